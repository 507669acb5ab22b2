"""Whole graphs against a real vLLM: ledgers against the server's own counters, concurrency, a server that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from orchestra_graph import Budget, Catalog, Expert, Price, RunLog, create_orchestrator
from orchestra_graph.catalog import Limits, ModelSpec
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.serving.metrics import Load, read_metrics
from tests.integration.serving import FLAGS, VLLM_FLAGS, Served, children, orchestra
from tests.test_serving_process import free_port

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),  # LangChain shares a connection pool, which belongs to one loop
]

PRICES = {"router": Price(input=2.0, cached_input=0.5, output=8.0), "expert": Price(input=3.0, output=9.0)}


async def look_up(subject: Literal["rivers", "mountains"], exact: bool = False) -> str:
    """Look a subject up."""
    await asyncio.sleep(0.01)
    return f"what is known of {subject} " * 20


def orchestrator(served: Served, *, log: RunLog | None = None, turns: int = 8, retries: int = 2, **options: Any) -> Any:
    """A router and an expert on the server."""
    limits = Limits(retries=retries, timeout=120)
    catalog = Catalog.of([], router=ModelSpec(model="tiny", price=PRICES["router"], limits=limits))
    expert = Expert(served.chat(max_tokens=64), name="expert", role="chat", price=PRICES["expert"])
    graph = create_orchestrator(
        served.chat(), [look_up, expert], catalog=catalog, run_log=log, budget=Budget(turns=turns), **options
    )
    return graph.compile()


async def run_all(graph: Any, number: int) -> list[dict[str, Any]]:
    questions = [{"messages": [("user", f"Question {n}: which river is the longest?")]} for n in range(number)]
    return list(await asyncio.gather(*(graph.ainvoke(question) for question in questions)))


def load_of(metrics: httpx.Client) -> Load:
    return Load.of(read_metrics(metrics.get("/metrics").text))


async def settled(metrics: httpx.Client, before: Load, requests: int) -> Load:
    """The counters, once the server has counted that many more requests."""
    deadline = time.monotonic() + 10
    while (load := load_of(metrics).since(before)).requests < requests and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return load


def charges(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [charge for turn in state["turns"].values() for charge in turn["charges"].values()]


def requests(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Charges of requests to the server that were answered."""
    return [charge for charge in charges(state) if "input_tokens" in charge and charge["status"] == "paid"]


async def test_32_runs_at_once_are_billed_to_the_token(served: Served, metrics: httpx.Client, tmp_path: Path) -> None:
    """What the ledgers say was read and written is what the server counted."""
    before, log = load_of(metrics), RunLog(tmp_path / "runs.jsonl")
    states = await run_all(orchestrator(served, log=log), 32)
    ledgers = [state["ledger"] for state in states]
    sent = sum(len(requests(state)) for state in states)
    load = await settled(metrics, before, sent)
    assert load.requests == sent > 64
    assert load.prompt_tokens == sum(ledger["input_tokens"] for ledger in ledgers)
    assert load.generated_tokens == sum(ledger["output_tokens"] for ledger in ledgers)
    assert load.cache_hits == sum(ledger["cached_tokens"] for ledger in ledgers) > 0
    for state in states:
        owed = sum(
            PRICES[charge["tool"]].dollars(
                input_tokens=charge["input_tokens"],
                cached_tokens=charge["cached_tokens"],
                output_tokens=charge["output_tokens"],
            )
            for charge in requests(state)
        )
        assert state["ledger"]["dollars"] == pytest.approx(owed, abs=1e-12)
        assert state["answer"] is not None
    runs = list(read_runs(log.path))
    assert len(runs) == 32
    for run in runs:
        assert run.constraint == "required"
        written = sum(len(capture.token_ids or ()) for capture in run.captures.values())
        assert run.totals is not None
        assert written == run.totals["tools"]["router"]["output_tokens"]


async def test_every_reply_is_a_valid_call(served: Served) -> None:
    """Under the constraint nothing is malformed and nothing needs mending, whatever the weights are.

    But for a value that holds the closing tag of a call: the server's parser stops there, and leaves the call as text.
    """
    decisions = [
        turn["decision"]
        for state in await run_all(orchestrator(served, turns=4), 16)
        for turn in state["turns"].values()
        if turn["decision"]["by"] == "router"
    ]
    assert len(decisions) >= 16
    assert [d for d in decisions if not d["calls"]] == []
    mended = [d for d in decisions if "repaired" in d]
    assert [d for d in mended if "</tool_call>" not in json.dumps(d["calls"])] == []
    kinds = {d["problem"]["kind"] for d in decisions if "problem" in d}
    assert kinds <= {"too_many_calls"}


async def test_runs_that_train_are_not_constrained(served: Served, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    graph = orchestrator(served, log=log, fallback=None, turns=3)
    question = {"messages": [("user", "Which river is the longest?")]}
    await asyncio.gather(*(graph.ainvoke(question, context={"task": {"purpose": "train"}}) for _ in range(4)))
    runs = list(read_runs(log.path))
    assert [run.constraint for run in runs] == [None] * 4
    captures = [capture.model_extra or {} for run in runs for capture in run.captures.values()]
    assert len(captures) >= 4
    assert all("tool_choice" not in capture["sampling"] for capture in captures)
    # Random weights do not write a call by themselves.
    assert {capture["finish_reason"] for capture in captures} == {"stop"}


async def test_messages_are_streamed_without_losing_tokens(served: Served, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    graph = orchestrator(served, log=log, turns=3)
    question = {"messages": [("user", "Which river is the longest?")]}
    parts = [part async for part in graph.astream(question, stream_mode="messages")]
    (run,) = read_runs(log.path)
    assert parts
    assert run.captures
    for capture in run.captures.values():
        assert len(capture.token_ids or ()) == len(capture.logprobs or ()) > 0
        assert capture.prompt_token_ids


async def test_a_broken_model_is_one_line(served: Served, vllm_python: Path, tmp_path: Path) -> None:
    """vLLM starts, reads the folder, and ends: its reason is told."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in served.model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text('{"model_type": "nothing-known"}')
    log = tmp_path / "server.log"
    port = free_port()
    done = orchestra("serve", folder, *FLAGS, "--port", port, "--python", vllm_python, "--log", log, "--", *VLLM_FLAGS)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the server ended with exit code 1 before it was ready: ")
    assert "nothing-known" in done.stderr
    assert done.stderr.endswith(f"; full log: {log}\n")
    assert done.stderr.count("\n") == 1


async def test_a_server_that_never_comes_up_is_one_line(served: Served, vllm_python: Path, tmp_path: Path) -> None:
    arguments = ["--port", free_port(), "--python", vllm_python, "--log", tmp_path / "server.log", "--timeout", 3]
    started = time.monotonic()
    done = await asyncio.to_thread(orchestra, "serve", served.model, *FLAGS, *arguments, "--", *VLLM_FLAGS)
    assert time.monotonic() - started < 60
    assert done.returncode == 1
    assert "the server was not ready within 3 s" in done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_server_killed_in_mid_run_comes_back_and_runs_end_right(served: Served, tmp_path: Path) -> None:
    """Runs wait for the restart; what was cut off is one uncertain charge, and no reply is paid twice."""
    log = RunLog(tmp_path / "runs.jsonl")
    graph = orchestrator(served, log=log, turns=8, retries=10, fallback=None)
    running = asyncio.ensure_future(run_all(graph, 16))
    await asyncio.sleep(2.0)
    family = [served.pid(), *children(served.pid())]
    os.kill(served.pid(), signal.SIGKILL)
    states = await running
    served.wait_for("ready", 2)
    assert [event["event"] for event in served.events if event["event"] == "crashed"] == ["crashed"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    uncertain = [charge for state in states for charge in charges(state) if charge["status"] == "uncertain"]
    assert uncertain, "the kill hit nobody"
    assert all(charge["upper"] > 0 for charge in uncertain)
    assert all(state["stopped_by"] in ("answer", "turns") for state in states)
    for run in read_runs(log.path):
        paid = [c for t in run.turns for c in t["charges"].values() if c["tool"] == "router" and c["status"] == "paid"]
        decided = [t for t in run.turns if t["decision"]["by"] == "router" and t.get("captures")]
        assert len(paid) == len(decided)
        assert sum(c["output_tokens"] for c in paid) == sum(len(c.token_ids or ()) for c in run.captures.values())
