"""Against a real HTTP server on loopback that speaks Tavily's API."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestra_graph.billing import is_refusal
from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.base import Request, Result
from orchestra_graph.tools.web_search import WebSearch

PAGE = {"url": "https://a.example/x", "title": "Capitals", "content": "Paris is the capital.", "score": 0.9}


class Tavily(ThreadingHTTPServer):
    daemon_threads = True
    status: int = 200
    body: bytes = json.dumps({"query": "q", "results": [PAGE]}).encode()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Tavily

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], sent))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def tavily() -> Iterator[Tavily]:
    with Tavily() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def call(tool: WebSearch, query: str = "capital of France") -> Result:
    return await tool.run(Request(args={"query": query}, question="?"))


async def test_pages_are_numbered_with_their_address(tavily: Tavily) -> None:
    result = await call(WebSearch("key-1", base_url=tavily.url, top_k=3, include_domains=["a.example"]))
    assert result.content == "[1] Capitals - https://a.example/x\nParis is the capital."
    assert result.artifacts == [
        {"source": "https://a.example/x", "title": "Capitals", "text": "Paris is the capital.", "score": 0.9}
    ]
    path, authorization, sent = tavily.asked[0]
    assert (path, authorization) == ("/search", "Bearer key-1")
    assert sent["query"] == "capital of France"
    assert (sent["max_results"], sent["search_depth"], sent["include_domains"]) == (3, "basic", ["a.example"])


async def test_nothing_found_is_no_error(tavily: Tavily) -> None:
    tavily.body = b'{"query": "q", "results": []}'
    result = await call(WebSearch("key", base_url=tavily.url), "zzz")
    assert result.content == "No passage fits 'zzz'. Try other words."
    assert result.artifacts == []


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (401, False), (429, True), (432, False), (500, True)])
async def test_refusal_is_told(tavily: Tavily, status: int, retryable: bool) -> None:
    tavily.status, tavily.body = status, b'{"detail": {"error": "no"}}'
    with pytest.raises(ToolError, match=f"web search failed: Error {status}") as caught:
        await call(WebSearch("secret-key", base_url=tavily.url))
    assert caught.value.retryable is retryable
    assert "secret-key" not in str(caught.value)
    assert is_refusal(caught.value), "Tavily bills nothing for it"


async def test_wrong_key_is_named(tavily: Tavily) -> None:
    tavily.status = 401
    with pytest.raises(ToolError, match="the key is not valid"):
        await call(WebSearch("key", base_url=tavily.url))


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"results": 3}', b'{"results": [3]}'])
async def test_broken_reply_is_told(tavily: Tavily, body: bytes) -> None:
    tavily.body = body
    with pytest.raises(ToolError, match="web search failed") as caught:
        await call(WebSearch("key", base_url=tavily.url))
    assert caught.value.retryable


async def test_nobody_listens() -> None:
    with pytest.raises(ToolError, match=r"web search failed: ClientConnectorError: .*127\.0\.0\.1") as caught:
        await call(WebSearch("key", base_url="http://127.0.0.1:9"))
    assert caught.value.retryable


def test_price_of_a_call_depends_on_the_depth() -> None:
    assert WebSearch("key").spec.price.per_call == 0.008
    spec = WebSearch("key", depth="advanced", name="web").spec
    assert (spec.price.per_call, spec.name, spec.kind, spec.required) == (0.016, "web", "search", ["query"])


def test_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "k")
    assert WebSearch.from_env("OTHER_KEY", name="web").spec.name == "web"
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    with pytest.raises(
        MissingError, match="the environment variable TAVILY_API_KEY is missing; fix: export TAVILY_API_KEY="
    ):
        WebSearch.from_env()


def test_empty_key_is_not_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAVILY_API_KEY", "another")
    with pytest.raises(ConfigError, match="no api_key"):
        WebSearch("")


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_tavily", None)
    with pytest.raises(MissingError, match=r"the extra `search` is missing; fix: pip install .*langchain-tavily"):
        WebSearch("key")
