"""A real MCP server for tests, by stdio or HTTP; its tools also misbehave on demand.

    python tests/mcp_server.py               # stdio
    python tests/mcp_server.py --http 8123   # http://127.0.0.1:8123/mcp

With `MCP_LOG` set every call is written to that file before it is carried out. Over HTTP a request without the header
`X-Key: $MCP_KEY` is refused, where `MCP_KEY` is set.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

from mcp.server.fastmcp import FastMCP
from mcp.types import AudioContent, CallToolResult, ImageContent, TextContent

PIXEL = base64.b64encode(b"\x89PNG not really").decode()

server = FastMCP("tests", log_level="ERROR")


def _note(call: str) -> None:
    path = os.environ.get("MCP_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as log:
            log.write(call + "\n")


@server.tool(description="Adds two whole numbers.")
def add(a: int, b: int) -> str:
    _note("add")
    return str(a + b)


@server.tool(description="Tells whether the server was given its key.")
def key() -> str:
    return f"a key of {len(os.environ.get('MCP_KEY', ''))} characters"


@server.tool(description="Weather of a city, as data.")
def weather(city: str, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    return {"city": city, "degrees": 21, "unit": unit}


@server.tool(description="Has arguments with names of LangChain's own.")
def chart(config: str, runtime: str, run_manager: int = 0, query: str = "") -> str:
    return f"{config} {runtime} {run_manager} {query}"


@server.tool(description="A picture, a sound, and a word.")
def picture() -> CallToolResult:
    return CallToolResult(
        content=[
            TextContent(type="text", text="A dot."),
            ImageContent(type="image", data=PIXEL, mimeType="image/png"),
            AudioContent(type="audio", data=PIXEL, mimeType="audio/wav"),
        ]
    )


@server.tool(description="Data alone.")
def data() -> CallToolResult:
    return CallToolResult(content=[], structuredContent={"answer": 42})


@server.tool(description="Fails.")
def fail() -> str:
    raise ValueError("no such city: Atlantis")


@server.tool(name="odd.name/x", description="Has a name that no model may call.")
def odd() -> str:
    return "odd"


@server.tool(description="Answers after some seconds.")
async def slow(seconds: float) -> str:
    _note("slow")
    await asyncio.sleep(seconds)
    return "done"


@server.tool(description="Ends the server under the call.")
async def die() -> str:
    _note("die")
    os._exit(1)


class HttpServer:
    """The server in a process of its own, by HTTP."""

    def __init__(self, port: int, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}/mcp"
        self._port = port
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.kill()
        command = [sys.executable, __file__, "--http", str(self._port)]
        self._process = subprocess.Popen(command, env=self._environment)
        for _ in range(400):
            try:
                urllib.request.urlopen(self.url, timeout=5)
            except urllib.error.HTTPError:  # it answers
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"{self.url} does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _serve_http(port: int) -> None:
    import uvicorn  # noqa: PLC0415  (for HTTP only)

    app = server.streamable_http_app()
    wanted = os.environ.get("MCP_KEY", "")

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and wanted and dict(scope["headers"]).get(b"x-key", b"").decode() != wanted:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        await app(scope, receive, send)

    uvicorn.run(guarded, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    Path(os.environ["MCP_PID"]).write_text(str(os.getpid())) if "MCP_PID" in os.environ else None
    if "--http" in sys.argv:
        _serve_http(int(sys.argv[-1]))
    else:
        server.run("stdio")
