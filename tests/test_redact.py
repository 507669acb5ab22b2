"""What is taken for a secret in a text."""

from __future__ import annotations

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
    ],
)
def test_hide_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


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
