"""Tools of MCP servers (Model Context Protocol), by stdio or streamable HTTP, through `langchain-mcp-adapters`.

    with McpServer("weather", command="uvx", args=["weather-server"]) as server:
        graph = create_orchestrator(router, [*server.tools(), expert], catalog=prices)

In a catalog file each tool that the router may call has a line of its own, with its price and latency:

    [tools.forecast]
    kind = "mcp"
    path = "mcp.json"                   # how servers are reached: see `orchestra_graph.tools.mcp_file`
    target = "weather:get_forecast"     # server and tool; description and parameters are the server's, unless stated
    price = { per_call = 0.002 }

A server has one session for
all its tools and all graphs, whatever loop calls them: it lives in a thread of its own, is opened again after a crash,
and ends with the tools. A call under way when the server dies becomes an error that the router reads and is not
repeated, since it may have been carried out. One that found the session gone and so was never sent goes out again.

Left out: prompts, resources, sampling and elicitation; a call that is cancelled here runs on at the server.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from copy import copy
from typing import Any, Final

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from pydantic import ValidationError

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.mcp_session import McpSession

_sent: ContextVar[dict[str, Any]] = ContextVar("orchestra_graph_mcp_arguments")
"""Arguments of the call under way, all of them."""
_TAKEN: Final = frozenset({"self", "config", "run_manager", "runtime"})
"""Names that LangChain's tools keep for themselves: an argument of that name does not get through them."""


class McpServer:
    """One MCP server; its session is opened when its tools are first listed or called.

    Args:
        name: What errors call it.
        command: Program that serves on its standard input and output; in its place `url`.
        args: Its arguments.
        env: Environment variables for it, beside the few that every server inherits (`PATH`, `HOME`, ...).
        cwd: Its working directory.
        url: Address of a server that runs.
        headers: HTTP headers of every request to it.

    Raises:
        ConfigError: Not exactly one of `command` and `url` is given.
        MissingError: `langchain-mcp-adapters` is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        command: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if (command is None) == (url is None):
            raise ConfigError(f"MCP server {name!r}: command = {command!r}, url = {url!r}; expected one of the two")
        _require()
        self.name = name
        connection: dict[str, Any]
        if command is not None:
            connection = {"transport": "stdio", "command": command, "args": list(args), "env": dict(env or {})}
            connection["cwd"] = cwd
        else:
            connection = {"transport": "streamable_http", "url": url, "headers": dict(headers or {})}
        self._session = McpSession(name, connection)
        self.close = weakref.finalize(self, self._session.close)
        """Ends the session, and with it a server that was started; tools that are called later raise ToolError."""

    def __enter__(self) -> McpServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def tools(self) -> list[McpTool]:
        """All tools that the server offers now.

        Raises:
            ConfigError: The server cannot be reached, or a tool's parameters are no JSON Schema.
        """
        try:
            wrapped = self._session.run(self._list()).result()
        except ToolError as error:
            raise ConfigError(f"{error}; fix: mend its command, address or key") from error
        return [McpTool(self, tool) for tool in wrapped]

    async def _list(self) -> list[BaseTool]:
        from langchain_mcp_adapters.tools import load_mcp_tools  # noqa: PLC0415  (the extra `mcp`)

        async def through(request: Any, handler: Any) -> Any:
            return await called.call(request.name, _sent.get())

        called = self._session  # not the server, which ends with its tools
        return await called.ask(
            lambda session: load_mcp_tools(session, tool_interceptors=[through], server_name=self.name)
        )


def tools_of(server: McpServer, names: Iterable[str]) -> list[McpTool]:
    """The named tools of a server, in that order, each with a `spec` of its own.

    Raises:
        ConfigError: See `McpServer.tools`; or the server has no such tool.
    """
    offered = {tool.server_tool: tool for tool in server.tools()}
    for name in names:
        if name not in offered:
            known = ", ".join(offered) or "none: it offers no tools"
            raise ConfigError(f"the MCP server {server.name} has no tool {name!r}; expected one of {known}")
    return [copy(offered[name]) for name in names]


class McpTool(Tool):
    """One tool of an MCP server. Artifacts are its structured content, images, audio and files.

    Args:
        server: Kept alive by its tools.
        wrapped: The tool as `langchain_mcp_adapters` converts it.

    Raises:
        ConfigError: Its parameters are no JSON Schema that can be checked.
    """

    def __init__(self, server: McpServer, wrapped: BaseTool) -> None:
        self.server = server
        self.server_tool = wrapped.name
        """Name at the server, which may hold characters that a catalog's name may not."""
        self._wrapped = wrapped
        schema = wrapped.args_schema
        try:
            self.spec = ToolSpec(
                name=re.sub(r"[^A-Za-z0-9_-]", "_", wrapped.name)[:64],
                kind="mcp",
                description=wrapped.description,
                parameters=dict(schema) if isinstance(schema, dict) else {"type": "object", "properties": {}},
            )
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"tool {wrapped.name!r} of the MCP server {server.name}: {problem}") from error

    async def run(self, request: Request) -> Result:
        """Call the tool at its server.

        Raises:
            ToolError: It reports an error, its server cannot be reached, or died under the call.
        """
        shown = {name: value for name, value in request.args.items() if name not in _TAKEN}
        call = {"name": self.server_tool, "args": shown, "id": request.call_id, "type": "tool_call"}
        sent = _sent.set(request.args)
        try:
            reply: ToolMessage = await self._wrapped.ainvoke(call)
        finally:
            _sent.reset(sent)
        blocks = [{"type": "text", "text": reply.content}] if isinstance(reply.content, str) else reply.content
        text = "\n".join(_shown(block) for block in blocks if isinstance(block, dict))
        if reply.status == "error":
            raise ToolError(text)
        artifacts = [_lasting(block) for block in blocks if isinstance(block, dict) and block["type"] != "text"]
        structured = (reply.artifact or {}).get("structured_content")
        if structured is not None:
            artifacts.insert(0, {"type": "structured", "content": structured})
            text = text or json.dumps(structured, ensure_ascii=False)
        return Result(text, artifacts=artifacts)


def _shown(block: dict[str, Any]) -> str:
    """What the router reads of one block: its text, or what else is there."""
    if block["type"] == "text":
        return str(block["text"])
    size = f", {len(block['base64']) * 3 // 4:,} bytes" if block.get("base64") else ""
    return f"[{block['type']} {block.get('mime_type') or 'of unknown type'}{size}] {block.get('url', '')}".strip()


def _lasting(block: dict[str, Any]) -> dict[str, Any]:
    """A block without the id that LangChain draws anew for each."""
    return {key: value for key, value in block.items() if key != "id"}


def _require() -> None:
    try:
        import langchain_mcp_adapters.sessions  # noqa: F401, PLC0415  (the extra `mcp`)
    except ImportError as error:
        raise MissingError("the package langchain-mcp-adapters", "pip install 'orchestra-graph[mcp]'") from error
