"""What a turn costs beside the model and the tool: ours against a hand-written graph and against `create_agent`.

    python tests/benchmarks/overhead.py            # 30 pairs a mode, about 4 minutes
    python tests/benchmarks/overhead.py --pairs 5

Every side runs the same fake model and the same tool, through `BaseTool.ainvoke`, for ten turns and an answer. Ours has
validation, ledger and run log switched on. In mode `sync` the caller is synchronous: ours is invoked, the others run
their async graph on one loop of the caller's. The last mode is beside the bars: there the others call `invoke`
throughout, which cannot be cancelled at a deadline. Sides are interleaved in one process with the garbage collector
off; a figure is CPU time of the whole process, and a ratio is the median over pairs. The bars: at most 1.15 against the
hand-written graph, at most 1.0 against `create_agent`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from orchestra_graph.catalog import Catalog, ModelSpec, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.tools.adapt import as_tool

Side = tuple[Any, Callable[[Any], None]]
"""A graph, and what runs it a number of times."""

TURNS = 10
CONCURRENT = 200
REPEAT = 10
"""Runs in one measurement of the modes without concurrency."""


class FakeModel(BaseChatModel):
    """Calls the tool until ten results are there; binds tools as ChatOpenAI does."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(t) for t in tools])

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        calls = [{"name": "lookup", "args": {"query": f"q{done}"}, "id": f"call_{done}"}] if done < TURNS else []
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        message = AIMessage("one more" if calls else "the answer", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self._generate(messages)


def _lookup(query: str) -> str:
    """Look something up."""
    return f"the result for {query}"


async def _alookup(query: str) -> str:
    """Look something up."""
    return f"the result for {query}"


lookup = StructuredTool.from_function(_lookup, coroutine=_alookup, name="lookup")


class MinimalState(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def minimal() -> Any:
    """The smallest graph that does the same: no validation, no ledger, no log."""
    model = FakeModel().bind_tools([lookup])

    async def agent(state: MinimalState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def tools(state: MinimalState) -> dict[str, Any]:
        calls = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return {"messages": [await lookup.ainvoke(call) for call in calls]}

    return _compiled(agent, tools)


def minimal_sync() -> Any:
    """The same with `invoke` throughout: what a synchronous caller could write who has no async model or tool."""
    model = FakeModel().bind_tools([lookup])

    def agent(state: MinimalState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    def tools(state: MinimalState) -> dict[str, Any]:
        calls = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return {"messages": [lookup.invoke(call) for call in calls]}

    return _compiled(agent, tools)


def _compiled(agent: Any, tools: Any) -> Any:
    builder = StateGraph(MinimalState)
    builder.add_node("agent", agent)
    builder.add_node("tools", tools)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END])
    builder.add_edge("tools", "agent")
    return builder.compile()


def ours(folder: Path) -> Any:
    """An orchestrator with everything on; router and tool have prices."""
    catalog = Catalog.of(
        [as_tool(lookup).spec.model_copy(update={"price": Price(per_call=0.001)})],
        router=ModelSpec(model="fake", price=Price(input=1.0, output=2.0)),
    )
    log = RunLog(folder / "runs.jsonl")
    return create_orchestrator(FakeModel(), [lookup], catalog=catalog, run_log=log).compile()


def question() -> dict[str, Any]:
    return {"messages": [HumanMessage("How many?")]}


CONFIG = {"recursion_limit": 100}


async def one(graph: Any) -> None:
    state = await graph.ainvoke(question(), CONFIG)
    assert state["messages"][-1].text == "the answer"


async def some(graph: Any) -> None:
    for _ in range(REPEAT):
        await one(graph)


async def many(graph: Any) -> None:
    await asyncio.gather(*(one(graph) for _ in range(CONCURRENT)))


def some_sync(graph: Any) -> None:
    for _ in range(REPEAT):
        state = graph.invoke(question(), CONFIG)
        assert state["messages"][-1].text == "the answer"


def cpu_ms(run: Callable[[Any], None], graph: Any, runs: int) -> float:
    """CPU milliseconds of the process for one turn."""
    gc.collect()
    started = time.process_time()
    run(graph)
    return (time.process_time() - started) / (runs * TURNS) * 1000


def measure(pairs: int, folder: Path, runner: asyncio.Runner) -> dict[str, dict[str, float]]:
    """Ratios and medians of each mode."""

    def on_loop(graph: Any) -> None:
        runner.run(some(graph))

    def all_at_once(graph: Any) -> None:
        runner.run(many(graph))

    others = {"hand-written": (minimal(), on_loop), "create_agent": (create_agent(FakeModel(), [lookup]), on_loop)}
    plain = {"hand-written": (minimal_sync(), some_sync), "create_agent": (others["create_agent"][0], some_sync)}
    crowd = {name: (graph, all_at_once) for name, (graph, _) in others.items()}
    modes: dict[str, tuple[int, dict[str, Side]]] = {
        "async": (REPEAT, {"ours": (ours(folder), on_loop), **others}),
        f"{CONCURRENT} concurrent": (CONCURRENT, {"ours": (ours(folder), all_at_once), **crowd}),
        "sync": (REPEAT, {"ours": (ours(folder), some_sync), **others}),
        "sync, others by invoke": (REPEAT, {"ours": (ours(folder), some_sync), **plain}),
    }
    return {mode: _compare(pairs, runs, sides) for mode, (runs, sides) in modes.items()}


def _compare(pairs: int, runs: int, sides: dict[str, Side]) -> dict[str, float]:
    times: dict[str, list[float]] = {side: [] for side in sides}
    for n in range(pairs + 1):
        for side, (graph, run) in sides.items():
            taken = cpu_ms(run, graph, runs)
            if n:  # the first round warms up
                times[side].append(taken)
    figures = {side: statistics.median(values) for side, values in times.items()}
    for other in ("hand-written", "create_agent"):
        ratios = [a / b for a, b in zip(times["ours"], times[other], strict=True)]
        figures[f"ratio to {other}"] = statistics.median(ratios)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per turn, ours against a hand-written graph and create_agent.")
    parser.add_argument("--pairs", type=int, default=30, help="interleaved pairs for each mode")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    gc.disable()
    # In the working directory, where a log would be; /tmp is often another file system.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".overhead-") as folder, asyncio.Runner() as runner:
        report = measure(args.pairs, Path(folder), runner)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for mode, row in report.items():
        cells = "  ".join(f"{k} {v:.3f}{'' if 'ratio' in k else ' ms'}" for k, v in row.items())
        print(f"{mode:22} {cells}")


if __name__ == "__main__":
    main()
