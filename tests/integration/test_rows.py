"""Rows of runs through a real vLLM: the ids are the server's, the logprobs are those that transformers computes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchestra_training.filters import FilterReport
from orchestra_training.harvest.fidelity import fidelity
from orchestra_training.render import Renderer
from orchestra_training.rows import Row, rows_of

from orchestra_graph import Budget, Catalog, Expert, Price, RunLog, create_orchestrator
from orchestra_graph.catalog import ModelSpec
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.served import VLLM_SAMPLING
from orchestra_graph.served import Served as Known
from orchestra_graph.serving.random_weights import TEMPLATE
from orchestra_graph.turns import Purpose
from tests.integration.serving import Served

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

RUNS = 8
PRICE = Price(input=3.0, output=9.0)


async def look_up(subject: str) -> str:
    """Look a subject up."""
    return f"what is known of {subject[:20]} <|im_end|> ünïcödé"


class Wire:
    """What the server answered to the router, as it came over the wire."""

    def __init__(self) -> None:
        self.replies: list[tuple[list[int], list[int]]] = []
        self.client = httpx.AsyncClient(event_hooks={"response": [self._keep]}, trust_env=False, timeout=120)

    async def _keep(self, response: httpx.Response) -> None:
        body = json.loads(await response.aread())
        self.replies.append((body["prompt_token_ids"], body["choices"][0]["token_ids"]))


async def runs_of(
    served: Served, log: Path, protocol: Protocol, purpose: Purpose
) -> tuple[list[Trajectory], list[tuple[list[int], list[int]]]]:
    """Runs with the ids that the server sent for their turns."""
    wire = Wire()
    known = Known(
        tokenizer="tiny",
        template_hash=hashlib.sha256(TEMPLATE.read_bytes()).hexdigest(),
        logprobs_mode="processed_logprobs",
        sampling=dict(VLLM_SAMPLING),
    )
    router = served.chat(max_tokens=48, http_async_client=wire.client, served=known)
    expert = Expert(served.chat(max_tokens=16), name="expert", role="answer", price=PRICE)
    graph: Any = create_orchestrator(
        router,
        [expert] if isinstance(protocol, ScanProtocol) else [look_up, expert],
        catalog=Catalog.of([], router=ModelSpec(model="tiny", price=PRICE)),
        protocol=protocol,
        run_log=RunLog(log),
        budget=Budget(turns=5),
        fallback=None,
        max_malformed=4,
    ).compile()
    context = {"task": {"purpose": purpose}}
    questions = [{"messages": [("user", f"Question {n}: which river is the longest?")]} for n in range(RUNS)]
    await asyncio.gather(*(graph.ainvoke(question, context=context) for question in questions))
    await wire.client.aclose()
    return list(read_runs(log)), wire.replies


def trained(rows: list[Row]) -> list[tuple[list[int], list[int]]]:
    """For each stretch of trained tokens all ids before it, and its own."""
    found = []
    for row in rows:
        ids, start = row.prompt_ids + row.completion_ids, len(row.prompt_ids)
        edges = [n for n in range(len(row.mask) + 1) if [0, *row.mask, 0][n] != [0, *row.mask, 0][n + 1]]
        found += [(ids[: start + a], ids[start + a : start + b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return found


async def test_free_replies_are_rows_of_the_servers_ids(served: Served, tmp_path: Path) -> None:
    """Replies of random weights are malformed: without filters all of them are in the rows."""
    runs, sent = await runs_of(served, tmp_path / "runs.jsonl", ConversationProtocol(repair=False), "train")
    assert {fidelity(run).fidelity for run in runs} == {"exact"}
    rows = [row for run in runs for row in rows_of(run, filters=())]
    found = trained(rows)
    assert sorted(found) == sorted(sent) and len(found) >= 2 * RUNS
    assert RUNS <= len(rows) < len(found), "no chat was folded"


async def test_calls_under_a_grammar_are_rows_of_the_servers_ids(served: Served, tmp_path: Path) -> None:
    runs, sent = await runs_of(served, tmp_path / "runs.jsonl", ConversationProtocol(), "serve")
    assert {fidelity(run).fidelity for run in runs} == {"ids"}
    report = FilterReport()
    rows = [row for run in runs for row in rows_of(run, report=report)]
    asked = {turn["id"] for run in runs for turn in run.turns if turn["decision"]["by"] == "router"}
    assert {turn for row in rows for turn in row.turns} == asked - {dropped.id for dropped in report.dropped}
    assert trained(rows) and all(reply in sent for reply in trained(rows))


async def test_rendered_prompts_are_what_the_server_read(served: Served, tmp_path: Path) -> None:
    """But for a mark that functions bear where calls are written under a grammar; runs that train never are."""
    runs, _ = await runs_of(served, tmp_path / "runs.jsonl", ConversationProtocol(), "serve")
    renderer = Renderer.from_folder(served.model, "conversation")
    read = {id: capture.prompt_token_ids for run in runs for id, capture in run.captures.items()}
    rendered = {id: c.prompt_token_ids for run in runs for id, c in renderer.render(run).captures.items()}
    compared = read.keys() & rendered.keys()
    assert len(compared) > RUNS
    for id in compared:
        assert renderer.decode(read[id]).replace(', "strict": true}', "}") == renderer.decode(rendered[id])


async def test_logprobs_are_those_of_transformers(served: Served, vllm_python: Path, tmp_path: Path) -> None:
    """Of whole rows: what a trainer computes in one pass is what the server computed turn by turn."""
    runs, _ = await runs_of(served, tmp_path / "runs.jsonl", ConversationProtocol(repair=False), "train")
    runs += (await runs_of(served, tmp_path / "scan.jsonl", ScanProtocol(), "train"))[0]
    rows = [row for run in runs for row in rows_of(run, filters=())]
    lines = [json.dumps({"prompt": row.prompt_ids, "completion": row.completion_ids}) for row in rows]
    script = Path(__file__).with_name("logprobs.py")
    done = await asyncio.to_thread(
        subprocess.run,
        [vllm_python, script, served.model],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    computed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(computed) == len(rows) >= RUNS
    worst = 0.0
    for row, expected in zip(rows, computed, strict=True):
        assert row.logprobs is not None
        both = zip(row.mask, row.logprobs, expected, strict=True)
        worst = max(worst, *(abs(ours - theirs) for is_ours, ours, theirs in both if is_ours))
    print(f"{len(rows)} rows, {sum(sum(row.mask) for row in rows)} tokens, worst difference {worst:.2g}")
    assert worst <= 1e-4
