"""Graphs asked through the real development server: offline, without a key, over HTTP with its own SDK."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.integration.install_langgraph_dev import ROOT, install
from tests.openai_server import Body, OpenAIServer, Reply
from tests.test_serving_process import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first run installs the server

HERE = Path(__file__).with_name("served")
GRAPHS = ROOT / "graphs"
QUESTION: Any = {"messages": [{"role": "user", "content": "When is the shop in Bern open?"}]}
NOWHERE = "http://127.0.0.1:9"


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """`langgraph dev` in a folder, without keys and without a way out; its address."""
    port = free_port()
    command = [str(install().with_name("langgraph")), "dev", "--no-browser", "--no-reload", "--port", str(port), *flags]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    with process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/ok", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"langgraph dev did not start: {log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scripted graphs, served with the server's check for blocking calls."""
    folder = tmp_path_factory.mktemp("served") / "graphs"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with serving(folder) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as client:
        yield client


async def thread(client: LangGraphClient) -> str:
    return str((await client.threads.create())["thread_id"])


def test_a_run_without_a_thread_is_waited_for(url: str) -> None:
    body = {"assistant_id": "plain", "input": QUESTION, "context": {"budget": {"dollars": 1.0}}}
    reply = httpx.post(f"{url}/runs/wait", json=body, trust_env=False, timeout=60)
    state = reply.json()
    assert reply.status_code == 200, reply.text
    assert (state["answer"], state["stopped_by"], state["ledger"]["dollars"]) == ("9 to 17", "answer", 0.25)


async def test_every_run_of_a_thread_starts_at_zero_and_sees_the_conversation(client: LangGraphClient) -> None:
    id = await thread(client)
    first: Any = await client.runs.wait(id, "plain", input=QUESTION)
    second: Any = await client.runs.wait(id, "plain", input=QUESTION, context={"preferences": {"cost": 1.0}})
    assert [len(state["messages"]) for state in (first, second)] == [2, 4]
    assert [state["ledger"]["dollars"] for state in (first, second)] == [0.25, 0.25]
    assert not set(first["turns"]) & set(second["turns"])
    kept: Any = (await client.threads.get_state(id))["values"]
    assert kept["run"]["preferences"]["cost"] == 1.0


async def test_a_budget_that_is_used_up_ends_in_an_answer(client: LangGraphClient) -> None:
    state: Any = await client.runs.wait(None, "plain", input=QUESTION, context={"budget": {"turns": 1}})
    assert (state["stopped_by"], state["answer"]) == ("turns", "9 to 17")


async def test_a_context_that_is_wrong_is_told(client: LangGraphClient) -> None:
    with pytest.raises(Exception, match="ConfigError: the context's preferences: cost = 7: Input should be less"):
        await client.runs.wait(None, "plain", input=QUESTION, context={"preferences": {"cost": 7}})


async def stream(client: LangGraphClient, graph: str, mode: Any, **options: Any) -> list[tuple[str, Any]]:
    parts = client.runs.stream(None, graph, input=QUESTION, stream_mode=mode, **options)
    found = [(part.event, part.data) async for part in parts if part.event != "metadata"]
    return [(name, data) for name, data in found if not isinstance(data, dict) or data.get("type") != "charge"]


async def test_our_events_are_streamed(client: LangGraphClient) -> None:
    events = await stream(client, "plain", "custom")
    assert {name for name, _ in events} == {"custom"}
    assert [event["type"] for _, event in events] == ["decision", "outcome", "decision", "outcome", "answer"]
    assert events[-1][1]["ledger"]["dollars"] == 0.25


async def test_events_of_a_nested_run_come_with_subgraphs(client: LangGraphClient) -> None:
    events = await stream(client, "nested", "custom", stream_subgraphs=True)
    inner = [event for name, event in events if "|" in name]
    assert [event["type"] for event in inner] == ["decision", "outcome", "decision", "outcome", "answer"]
    assert len({event["run"] for _, event in events}) == 2


async def test_messages_are_streamed(client: LangGraphClient) -> None:
    messages = [data[0] for name, data in await stream(client, "plain", "messages-tuple") if name == "messages"]
    assert [message["content"] for message in messages][-2:] == ["<answer>9 to 17</answer>", "9 to 17"]
    assert [call["name"] for message in messages for call in message.get("tool_calls", ())] == ["look_up", "clerk"]


@pytest.mark.parametrize(
    ("answer", "told"), [({"type": "approve"}, "paid 5 back"), ({"type": "reject"}, "a person rejected the call")]
)
async def test_a_person_is_asked_and_the_run_goes_on(client: LangGraphClient, answer: Any, told: str) -> None:
    id = await thread(client)
    waiting: Any = await client.runs.wait(id, "careful", input=QUESTION)
    (asked,) = waiting["__interrupt__"]
    assert (asked["value"]["name"], asked["value"]["args"], waiting["answer"]) == ("refund", {"amount": 5}, None)
    assert (await client.threads.get(id))["status"] == "interrupted"
    state: Any = await client.runs.wait(id, "careful", command={"resume": {asked["id"]: answer}})
    first = next(iter(state["turns"].values()))
    assert [told in outcome["content"] for outcome in first["outcomes"].values()].count(True) == 1
    assert (state["answer"], state["ledger"]["tools"]["look_up"]["calls"]) == ("9 to 17", 1)


async def test_the_server_knows_input_output_and_context(client: LangGraphClient) -> None:
    (assistant,) = await client.assistants.search(graph_id="plain")
    schemas: Any = await client.assistants.get_schemas(assistant["assistant_id"])
    assert set(schemas["input_schema"]["properties"]) == {"messages"}
    assert {"answer", "stopped_by", "ledger", "turns"} <= set(schemas["output_schema"]["properties"])
    assert set(schemas["context_schema"]["properties"]) == {"preferences", "budget", "task"}


async def test_a_run_log_needs_a_server_that_allows_blocking(client: LangGraphClient) -> None:
    with pytest.raises(Exception, match="BlockingError"):
        await client.runs.wait(None, "logged", input=QUESTION)


def script(body: Body) -> Reply:
    """The routers of the ready graphs; experts are not asked."""
    if "Nemotron" in body["model"]:
        return Reply("<message>From 9 to 17.</message>")
    return Reply("<answer>From 9 to 17.</answer>") if body["model"].startswith("gpt") else Reply("", [("small", {})])


@pytest.mark.parametrize("flags", [(), ("--allow-blocking",)], ids=["as shipped", "with a run log"])
async def test_the_ready_graphs_are_served(flags: tuple[str, ...], openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script = script
    folder = tmp_path / "graphs"
    shutil.copytree(GRAPHS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    tokenizer = ROOT / "tests" / "data" / "tokenizer"
    for name in ("service", "recursive"):
        text = (folder / f"{name}.toml").read_text(encoding="utf-8")
        text = text.replace("http://localhost:8000/v1", openai_server.base_url)
        text = text.replace('api_key_env = "OPENAI_API_KEY"', f'base_url = "{openai_server.base_url}"')
        lines = f'tokenizer = "{tokenizer}"\n' + ('run_log = "runs.jsonl"\n' if flags else "")
        (folder / f"{name}.toml").write_text(lines + text, encoding="utf-8")
    with serving(folder, *flags) as url:
        async with get_client(url=url) as client:
            for name in ("service", "recursive"):
                state: Any = await client.runs.wait(None, name, input=QUESTION)
                assert state["answer"] == "From 9 to 17."
            # Its documents are not there: said when it is asked, in one line; the others are served all the same.
            with pytest.raises(Exception, match="documents"):
                await client.runs.wait(None, "research", input=QUESTION)
    if flags:
        answers = [json.loads(line)["answer"] for line in (folder / "runs.jsonl").read_text().splitlines()]
        assert answers == ["From 9 to 17."] * 2
