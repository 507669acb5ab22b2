"""What is taken for a secret in a text."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from orchestra_graph.graph import create_orchestrator
from orchestra_graph.redact import hide_secrets
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.testing import ScriptedRouter


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "401 - {'message': 'Incorrect API key: sk-proj-abcd1234.'}",
            "401 - {'message': 'Incorrect API key: [secret].'}",
        ),
        ("header Authorization: Bearer abcdefgh12345", "header Authorization: [secret]"),
        ("cannot reach http://user:pass-word@host:80/x", "cannot reach http://[secret]@host:80/x"),
        (
            "for url 'http://host/mcp?a=1&tavilyApiKey=4f1d-2c3b&x=1' and https://host/?appid=12#top",
            "for url 'http://host/mcp?a=1&tavilyApiKey=[secret]&x=1' and https://host/?appid=[secret]#top",
        ),
        ("http://host/?q=monkey&keys=2 is it? key=value", "http://host/?q=monkey&keys=2 is it? key=value"),
        ("tvly-0123456789 and hf_0123456789", "[secret] and [secret]"),
        ("a task-oriented risk-free disk-1234567890", "a task-oriented risk-free disk-1234567890"),
        ("the bearer of news; sk-ip", "the bearer of news; sk-ip"),
        ("401: Basic authentication is required", "401: Basic authentication is required"),
        ("an unsupported basic operation.", "an unsupported basic operation."),
        ("the bearer certificate expired", "the bearer certificate expired"),
        ("Basic Authentication or basic JavaScript", "Basic Authentication or basic JavaScript"),
        ("a bearer access_token of basic user/password", "a bearer access_token of basic user/password"),
        ("Basic dXNlcjpwYXNz, bearer abcdefgh==", "[secret], [secret]"),
        ("{'Authorization': 'Bearer abcdefghi'}", "{'Authorization': '[secret]'}"),
        ("(b'authorization', b'Basic abcdefghi')", "(b'authorization', b'[secret]')"),
        ("http://user:p@ssw0rd@host and ftp://u:p?w#d@host", "http://[secret]@host and ftp://[secret]@host"),
        ("'https://ghtoken12345@host/x', 'http://token:@host'", "'https://[secret]@host/x', 'http://[secret]@host'"),
        ("ssh://git@host/x and https://host?to=me@host.org", "ssh://git@host/x and https://host?to=me@host.org"),
    ],
)
def test_hide_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


@pytest.mark.parametrize("part", ["bearer ", "a", "aB", "=", "://", "http://", ":", "@", "?", "&key", "Authorization:"])
@pytest.mark.parametrize("start", ["", "basic ", "://", "https://", "?", "authorization: basic "])
def test_a_long_text_takes_no_longer_a_character(start: str, part: str) -> None:
    started = time.perf_counter()
    hide_secrets(start + part * 20_000)
    assert time.perf_counter() - started < 1.0


async def test_a_key_in_a_url_that_fails_reaches_neither_the_router_nor_the_state_nor_the_log(tmp_path: Path) -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        request = httpx.Request("GET", f"https://host/data?q={city}&appid=4f1d2c3b")
        httpx.Response(401, request=request).raise_for_status()
        return "fine"

    router, log = ScriptedRouter([("weather", {"city": "Bern"}), ("final_answer", {"answer": "x"})]), tmp_path / "log"
    graph = create_orchestrator(router, [weather], run_log=RunLog(log)).compile()
    state = await graph.ainvoke({"messages": [("user", "q")]})
    for text in (str(router.prompts), str(state), log.read_text()):
        assert "q=Bern&appid=[secret]" in text
        assert "4f1d2c3b" not in text
