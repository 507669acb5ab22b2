"""MCP tools against a real local server, by stdio and by HTTP: results, errors, crashes, and runs of a graph."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph import Catalog, Price, Request, Result, ToolError, ToolSpec, create_orchestrator
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.testing import Reply, ScriptedRouter
from orchestra_graph.tools.build import build_tools
from orchestra_graph.tools.mcp import McpServer, McpTool
from tests import mcp_server
from tests.mcp_server import PIXEL, HttpServer

pytestmark = pytest.mark.slow

KEY = "hush-hush-key"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stdio(folder: Path) -> McpServer:
    env = {"MCP_KEY": KEY, "MCP_LOG": str(folder / "log"), "MCP_PID": str(folder / "pid")}
    return McpServer("tests", command=sys.executable, args=[mcp_server.__file__], env=env)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[McpServer]:
    with stdio(tmp_path) as server:
        yield server


@pytest.fixture
def http(tmp_path: Path) -> Iterator[HttpServer]:
    server = HttpServer(free_port(), MCP_KEY=KEY, MCP_LOG=str(tmp_path / "log"))
    yield server
    server.kill()


def over_http(http: HttpServer) -> McpServer:
    return McpServer("tests", url=http.url, headers={"X-Key": KEY})


def by_name(server: McpServer) -> dict[str, McpTool]:
    return {tool.server_tool: tool for tool in server.tools()}


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def asked(**args: Any) -> Request:
    return Request(args=args, question="q", call_id="c-0")


async def all_results(tools: dict[str, McpTool]) -> None:
    assert (await tools["add"].run(asked(a=1, b=2))).content == "3"
    assert (await tools["key"].run(asked())).content == f"a key of {len(KEY)} characters"
    chart = asked(config="bars", runtime="fast", run_manager=3, query="x")
    assert (await tools["chart"].run(chart)).content == "bars fast 3 x"
    weather = await tools["weather"].run(asked(city="Rome"))
    assert json.loads(weather.content) == {"city": "Rome", "degrees": 21, "unit": "C"}
    assert weather.artifacts == [{"type": "structured", "content": {"city": "Rome", "degrees": 21, "unit": "C"}}]
    picture = await tools["picture"].run(asked())
    assert picture.content == "A dot.\n[image image/png, 15 bytes]\n[file audio/wav, 15 bytes]"
    assert picture.artifacts == [
        {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
        {"type": "file", "base64": PIXEL, "mime_type": "audio/wav"},
    ]
    bare = await tools["data"].run(asked())
    assert bare == Result('{"answer": 42}', artifacts=[{"type": "structured", "content": {"answer": 42}}])
    with pytest.raises(ToolError, match="no such city: Atlantis"):
        await tools["fail"].run(asked())


def test_what_the_router_reads_of_a_tool(local: McpServer) -> None:
    tools = by_name(local)
    spec = tools["weather"].spec
    assert (spec.name, spec.kind, spec.description) == ("weather", "mcp", "Weather of a city, as data.")
    assert spec.required == ["city"]
    assert spec.parameters["properties"]["unit"]["enum"] == ["C", "F"]
    assert tools["odd.name/x"].spec.name == "odd_name_x"


async def test_results_by_stdio(local: McpServer) -> None:
    await all_results(by_name(local))


async def test_results_by_http(http: HttpServer) -> None:
    with over_http(http) as server:
        await all_results(by_name(server))


def test_one_session_serves_loops_one_after_the_other(local: McpServer, tmp_path: Path) -> None:
    add = by_name(local)["add"]
    pid = (tmp_path / "pid").read_text()
    assert [asyncio.run(add.run(asked(a=n, b=1))).content for n in range(3)] == ["1", "2", "3"]
    assert (tmp_path / "pid").read_text() == pid


async def test_calls_side_by_side(local: McpServer) -> None:
    tools = by_name(local)
    started = time.perf_counter()
    results = await asyncio.gather(*(tools["slow"].run(asked(seconds=0.3)) for _ in range(10)))
    assert [result.content for result in results] == ["done"] * 10
    assert time.perf_counter() - started < 2.0


async def test_a_server_that_dies_under_a_call(local: McpServer, tmp_path: Path) -> None:
    tools = by_name(local)
    with pytest.raises(ToolError, match="the MCP server tests died during the call, which may have been") as error:
        await tools["die"].run(asked())
    assert not error.value.retryable
    assert log(tmp_path) == ["die"], "a call that may have been carried out is not repeated"
    assert (await tools["add"].run(asked(a=2, b=2))).content == "4"


async def test_a_server_that_dies_under_a_call_by_http(http: HttpServer, tmp_path: Path) -> None:
    with over_http(http) as server:
        tools = by_name(server)
        with pytest.raises(ToolError, match="died during the call, which may have been carried out: ConnectError"):
            await tools["die"].run(asked())
        assert log(tmp_path) == ["die"]
        with pytest.raises(ToolError, match="cannot be reached: ConnectError") as error:
            await tools["add"].run(asked(a=1, b=1))
        assert error.value.retryable
        http.start()
        assert (await tools["add"].run(asked(a=2, b=2))).content == "4"


async def test_a_server_that_was_started_anew_between_calls(local: McpServer, http: HttpServer, tmp_path: Path) -> None:
    tool = by_name(local)["add"]
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert (await tool.run(asked(a=1, b=1))).content == "2"
    with over_http(http) as server:
        tool = by_name(server)["add"]
        http.kill()
        http.start()
        assert (await tool.run(asked(a=1, b=2))).content == "3"
    assert log(tmp_path) == ["add", "add"]


async def test_a_busy_server_is_not_taken_for_dead(http: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra_graph.tools.mcp_session.PING_SECONDS", 0.1)
    with over_http(http) as server:
        assert (await by_name(server)["slow"].run(asked(seconds=0.6))).content == "done"


async def test_a_call_that_is_cancelled_leaves_the_session_whole(local: McpServer, tmp_path: Path) -> None:
    tools = by_name(local)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await tools["slow"].run(asked(seconds=30))
    pid = (tmp_path / "pid").read_text()
    assert (await tools["add"].run(asked(a=1, b=1))).content == "2"
    assert (tmp_path / "pid").read_text() == pid


def test_the_server_ends_with_its_tools(tmp_path: Path) -> None:
    def make() -> McpTool:
        return by_name(stdio(tmp_path))["add"]

    tool = make()
    pid = int((tmp_path / "pid").read_text())
    assert asyncio.run(tool.run(asked(a=1, b=1))).content == "2"
    del tool
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("mcp-")] == []


async def test_a_server_that_was_closed(tmp_path: Path) -> None:
    with stdio(tmp_path) as server:
        tool = by_name(server)["add"]
    with pytest.raises(ToolError, match="the MCP server tests is closed"):
        await tool.run(asked(a=1, b=1))


async def test_closing_a_server_fails_the_calls_under_way_and_cancels_nobody(tmp_path: Path) -> None:
    with stdio(tmp_path) as server:
        tool = by_name(server)["slow"]
        call = asyncio.create_task(tool.run(asked(seconds=60)))
        while not (tmp_path / "log").exists():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.close)
    with pytest.raises(ToolError):
        await call


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({"command": "no-such-program"}, "No such file or directory: 'no-such-program'"),
        ({"command": "false"}, "Connection"),
        ({"url": "http://127.0.0.1:1/mcp"}, "ConnectError"),
    ],
)
def test_a_server_that_cannot_be_reached(way: dict[str, Any], said: str) -> None:
    with McpServer("there", **way) as server, pytest.raises(ConfigError) as error:
        server.tools()
    assert str(error.value).startswith("the MCP server there cannot be reached: ")
    assert said in str(error.value)


def test_a_wrong_key(http: HttpServer) -> None:
    with (
        McpServer("there", url=http.url, headers={"X-Key": "wrong"}) as server,
        pytest.raises(ConfigError, match="401 Unauthorized"),
    ):
        server.tools()


@pytest.mark.parametrize("way", [{}, {"command": "x", "url": "y"}])
def test_one_way_to_a_server(way: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected one of the two"):
        McpServer("there", **way)


def test_the_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_mcp_adapters.sessions", None)
    with pytest.raises(MissingError, match=r"fix: pip install 'orchestra-graph\[mcp\]'"):
        McpServer("there", command="x")


# From a catalog, in a graph.


def catalog(folder: Path, *tools: str) -> Catalog:
    env = {"MCP_KEY": "${TEST_KEY}", "MCP_LOG": "${LOG}"}
    servers = {"local": {"command": sys.executable, "args": [mcp_server.__file__], "env": env}}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    lines = [
        ToolSpec(
            name=f"my_{tool}",
            kind="mcp",
            path=str(folder / "mcp.json"),
            target=f"local:{tool}",
            price=Price(per_call=0.01),
        )
        for tool in tools
    ]
    return Catalog.of(lines)


def environment(folder: Path) -> dict[str, str]:
    return {"TEST_KEY": KEY, "LOG": str(folder / "log")}


def test_lines_of_a_catalog(tmp_path: Path) -> None:
    lines = catalog(tmp_path, "add", "weather")
    add, weather = build_tools(lines, environment(tmp_path))
    assert isinstance(add, McpTool)
    assert isinstance(weather, McpTool)
    assert add.server is weather.server
    assert (add.spec.name, add.spec.description) == ("my_add", "Adds two whole numbers.")
    assert add.spec.price.per_call == 0.01
    assert add.spec.required == ["a", "b"]
    add.server.close()


def test_what_lines_miss(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"variable TEST_KEY \(key of my_add\) is missing; fix: export TEST_KEY"):
        build_tools(catalog(tmp_path, "add"), {"LOG": "x"})
    with pytest.raises(ConfigError, match="the MCP server local has no tool 'sing'; expected one of add, key"):
        build_tools(catalog(tmp_path, "sing"), environment(tmp_path))


SCRIPT: list[Reply] = [
    ("my_add", {"a": 20, "b": 22}),
    ("my_die", {}),
    ("my_key", {}),
    ("final_answer", {"answer": "42"}),
]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_run_survives_the_death_of_a_server(tmp_path: Path, is_async: bool) -> None:
    lines = catalog(tmp_path, "add", "die", "key")
    tools = build_tools(lines, environment(tmp_path))
    graph = create_orchestrator(ScriptedRouter(SCRIPT), tools, catalog=lines).compile()
    question = {"messages": [("user", "How many?")]}
    state = asyncio.run(graph.ainvoke(question)) if is_async else graph.invoke(question)
    assert state["answer"] == "42"
    outcomes = [outcome for turn in state["turns"].values() for outcome in turn["outcomes"].values()]
    assert [outcome["error"] for outcome in outcomes] == [False, True, False, False]
    assert outcomes[0]["content"] == "42"
    assert "died during the call" in outcomes[1]["content"]
    assert outcomes[2]["content"] == f"a key of {len(KEY)} characters"
    assert log(tmp_path) == ["add", "die"]
    assert state["ledger"]["dollars"] == pytest.approx(0.02)
    assert state["ledger"]["uncertain_dollars"] == pytest.approx(0.01)
    assert KEY not in str(state)
    [server] = {tool.server for tool in tools if isinstance(tool, McpTool)}
    server.close()
