"""Every example runs by itself, and is short."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestra_graph.events import Event
from tests.test_serving_process import free_port

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SERVER = "fastapi_stream.py"

EXPECTED = {
    "agent_middleware.py": "The shop in Bern is open from 9 to 17. (answer, $",
    "approval.py": "large{} may cost up to $0.10. Send it? [y/n] y\nanswer: It is 42.",
    "nested.py": "answer: Basel is older.\n",
    "preference_pairs.py": "answer: 42",
    "quickstart.py": "answer: 9 to 17 for $0.0000",
    "score_runs.py": "28 runs in groups, left out: {}\nRules: utility 0.",
    "streaming.py": "  46  (",
    "support_graph.py": "chatbot: We are open from 9 to 17. ($",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.name != SERVER], ids=lambda path: path.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", path], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert EXPECTED[path.name] in done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_under_60_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Address of the example that serves."""
    port = free_port()
    path = next(path for path in EXAMPLES if path.name == SERVER)
    with subprocess.Popen(
        [sys.executable, "-W", "error", path, str(port)], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, server)
            yield f"{url}/ask"
        finally:
            server.terminate()
            _, said = server.communicate(timeout=30)
    assert said == ""


def _wait(url: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(f"{url}/openapi.json", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the example does not serve")


def events(endpoint: str, **parameters: Any) -> list[Event]:
    """What is streamed, each event as soon as it has come."""
    with httpx.stream("GET", endpoint, params=parameters, trust_env=False, timeout=30) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        found, named = [], ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                named = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                assert found[-1]["type"] == named
    return found


def test_the_endpoint_streams_a_run(endpoint: str) -> None:
    found = events(endpoint, question="What is 1234 * 5678?")
    assert found[0]["type"] == "charge"
    assert [event["type"] for event in found if event["type"] != "charge"][:2] == ["decision", "outcome"]
    answer = found[-1]
    assert answer["type"] == "answer" and answer["answer"] == "7006652" and answer["stopped_by"] == "answer"


def test_the_endpoint_keeps_the_budget_that_it_is_given(endpoint: str) -> None:
    answer = events(endpoint, question="What is 1234 * 5678?", dollars=0)[-1]
    assert answer["type"] == "answer" and (answer["stopped_by"], answer["ledger"]["dollars"]) == ("dollars", 0)


@pytest.mark.parametrize("dollars", ["-1", "nan"])
def test_the_endpoint_refuses_a_budget_that_is_none(endpoint: str, dollars: str) -> None:
    reply = httpx.get(endpoint, params={"question": "What is 1234 * 5678?", "dollars": dollars}, trust_env=False)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["query", "dollars"]
