"""A thousand runs at the same time in one process: no error, ledgers exact, memory bounded.

    python tests/benchmarks/concurrency.py              # 1,000 runs of 10 turns
    python tests/benchmarks/concurrency.py --runs 200 --json

Each turn calls a function and an expert side by side; the last one answers. Every tenth request of an expert is refused
and sent again. Usage and prices are known, so each ledger is compared with the sum of what its requests cost. The run
log is on. Left out: HTTP, checkpoints, tracing. Exit code 1 when the bar is missed: no error, every ledger exact to the
cent (in fact to 1e-9 dollars), peak memory below 1.5 GiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from orchestra_graph import attempts
from orchestra_graph.catalog import Catalog, ModelSpec, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.tools.expert import Expert

TURNS = 10
MEMORY_GIB = 1.5
WAIT = 0.01
"""Seconds that each request takes."""

ROUTER_PRICE = Price(input=0.3, cached_input=0.1, output=1.1)
EXPERT_PRICE = Price(input=2.5, output=7.7, per_call=0.003)


@dataclass(frozen=True)
class Report:
    """What was measured."""

    runs: int
    errors: list[str]
    wrong: list[str]
    """Ledgers that differ from what was billed."""
    lines: int
    """Runs in the log."""
    dollars: float
    gib: float
    """Peak resident memory of the process."""
    wall: float
    cpu: float

    @property
    def passed(self) -> bool:
        return not self.errors and not self.wrong and self.lines == self.runs and self.gib < MEMORY_GIB


class TooManyError(Exception):
    """A refusal of the provider."""

    status_code = 429


class Billed(BaseChatModel):
    """A chat model that bills each run by the number in its question; the price a call is due for an answer."""

    price: Price
    bill: dict[int, float] = Field(default_factory=dict)
    requests: int = 0
    refuses: bool = False

    @property
    def _llm_type(self) -> str:
        return "billed"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("asked asynchronously only")

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.requests += 1
        number = self.requests
        await asyncio.sleep(WAIT)
        if self.refuses and number % 10 == 0:
            raise TooManyError("slow down")
        run = number_of(messages)
        read, cached, wrote = 100 + run % 37, 20 + run % 7, 5 + number % 11
        dollars = self.price.dollars(input_tokens=read, cached_tokens=cached, output_tokens=wrote, calls=1)
        self.bill[run] = self.bill.get(run, 0.0) + dollars
        usage = UsageMetadata(
            input_tokens=read,
            output_tokens=wrote,
            total_tokens=read + wrote,
            input_token_details={"cache_read": cached},
        )
        message = self._reply(messages)
        message.usage_metadata = usage
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        return AIMessage("a remark")


class Router(Billed):
    """Calls both tools in every turn, and answers in the last one."""

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        calls: list[tuple[str, dict[str, Any]]] = [("lookup", {"query": f"q{turn}"}), ("expert", {})]
        if turn == TURNS - 1:
            calls = [("final_answer", {"answer": "done"})]
        return AIMessage("", tool_calls=[{"name": n, "args": a, "id": f"{i}"} for i, (n, a) in enumerate(calls)])


def number_of(messages: list[BaseMessage]) -> int:
    """The run that asks: its number ends the first line of its question."""
    question = next(message for message in messages if isinstance(message, HumanMessage))
    return int(question.text.removeprefix("Question:\n").split("\n")[0].split()[-1])


async def lookup(query: str) -> str:
    """Look something up."""
    await asyncio.sleep(WAIT)
    return f"the result for {query} " * 20


async def measure(runs: int, folder: Path) -> Report:
    """Run them all at once."""
    router, expert = Router(price=ROUTER_PRICE), Billed(price=EXPERT_PRICE, refuses=True)
    catalog = Catalog.of([], router=ModelSpec(model="router", price=ROUTER_PRICE))
    tools: list[Any] = [lookup, Expert(expert, name="expert", role="chat", price=EXPERT_PRICE)]
    log = RunLog(folder / "runs.jsonl")
    graph = create_orchestrator(router, tools, catalog=catalog, run_log=log).compile()
    cpu, wall = time.process_time(), time.perf_counter()
    questions: list[Any] = [{"messages": [HumanMessage(f"This is run {n}")]} for n in range(runs)]
    states = await asyncio.gather(*(graph.ainvoke(question) for question in questions), return_exceptions=True)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    errors, wrong, dollars = [], [], 0.0
    for n, state in enumerate(states):
        if isinstance(state, BaseException):
            errors.append(f"run {n}: {type(state).__name__}: {state}")
            continue
        if (state["stopped_by"], len(state["turns"])) != ("answer", TURNS):
            errors.append(f"run {n}: stopped by {state['stopped_by']} after {len(state['turns'])} turns")
        billed = router.bill[n] + expert.bill.get(n, 0.0)
        dollars += state["ledger"]["dollars"]
        if abs(state["ledger"]["dollars"] - billed) > 1e-9:
            wrong.append(f"run {n}: ledger {state['ledger']['dollars']:.9f}, billed {billed:.9f}")
    return Report(
        runs=runs,
        errors=errors,
        wrong=wrong,
        lines=sum(1 for _ in log.path.open("rb")),
        dollars=dollars,
        gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        wall=wall,
        cpu=cpu,
    )


def main() -> None:
    """Measure, print, and exit with 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description="Many concurrent runs in one process: errors, ledgers, memory.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    attempts.FIRST_PAUSE = WAIT  # type: ignore[misc]
    logging.disable(logging.WARNING)  # a call whose tries were all refused is no error here
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(measure(args.runs, Path(folder)))
    if args.json:
        print(json.dumps({**asdict(report), "passed": report.passed}, indent=2))
    else:
        print(f"{report.runs} runs of {TURNS} turns: {len(report.errors)} errors, {len(report.wrong)} wrong ledgers")
        print(f"${report.dollars:.6f} in all, {report.lines} lines in the run log")
        print(f"{report.gib:.2f} GiB at most, {report.wall:.1f} s wall, {report.cpu:.1f} s CPU")
        for problem in [*report.errors, *report.wrong][:10]:
            print(problem)
        print("passed" if report.passed else "MISSED")
    sys.exit(not report.passed)


if __name__ == "__main__":
    main()
