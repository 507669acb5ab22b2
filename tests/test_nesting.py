"""Orchestrators inside orchestrators: one ledger, nothing counted twice; their turns in the log; how deep they go."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from orchestra_graph.catalog import Catalog, Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.engine import MAX_DEPTH
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import Meter
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_run, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.runlog.repair import repair
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.adapt import as_tool
from orchestra_graph.tools.base import Request
from orchestra_graph.tools.build import build_tools
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from orchestra_graph.vllm import ChatVLLM
from tests.openai_server import OpenAIServer, Reply
from tests.provider import ANSWERED, PRICE, Books, CrashError, Mortal, Provider, charges_of


def meter(name: str, **options: Any) -> Meter:
    return Meter("c", name, ModelSpec(price=Price()), price_of=lambda spec, model: PRICE, **options)


def dollars(measured: Meter) -> float:
    return sum(charge["dollars"] for charge in measured.charges.values())


def nest(depth: int, books: Books, *, seconds: float = 0.0, **options: Any) -> Any:
    """An orchestrator whose only tool is one of a level less; at the bottom an expert. Each level asks one router.

    The options are those of the outermost one.
    """
    if depth == 0:
        bottom: Any = Expert(Provider(books=books), name="solver", price=PRICE)
        return create_orchestrator(router("solver", {}, seconds), [bottom], catalog=priced(), **options)
    below = Subgraph(nest(depth - 1, books, seconds=seconds).compile(), name=f"level{depth}", terminal=True)
    return create_orchestrator(
        router(below.spec.name, {"request": f"q{depth}"}, seconds), [below], catalog=priced(), **options
    )


def router(name: str, args: dict[str, Any], seconds: float = 0.0) -> ScriptedRouter:
    usage = UsageMetadata(input_tokens=100, output_tokens=10, total_tokens=110)
    calls = [{"name": name, "args": args, "id": "1"}]
    return ScriptedRouter(lambda messages: AIMessage("", tool_calls=calls, usage_metadata=usage), seconds=seconds)


def priced() -> Catalog:
    return Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=Limits()))


async def run_nested(depth: int, **options: Any) -> tuple[dict[str, Any], Books]:
    books = Books()
    state = await nest(depth, books, **options).compile().ainvoke({"messages": [HumanMessage("q")]})
    assert (state["answer"], state["stopped_by"]) == ("42", "answer")
    return state, books


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
async def test_nested_orchestrators_count_every_request_once(depth: int) -> None:
    state, books = await run_nested(depth)
    requests = depth + 1 + books.requests
    paid = [key for key, charge in charges_of(state["turns"]).items() if charge["dollars"]]
    assert books.requests == 1
    assert len(paid) == requests
    assert state["ledger"]["dollars"] == pytest.approx(requests * ANSWERED, abs=1e-12)
    assert state["ledger"]["input_tokens"] == requests * 100


async def test_charges_of_nested_orchestrators_say_where_they_belong() -> None:
    state, _ = await run_nested(2)
    tools = state["ledger"]["tools"]
    assert {"router", "level2/router", "level2/level1/router", "level2/level1/solver"} <= set(tools)
    assert all(tools[name]["dollars"] == pytest.approx(ANSWERED) for name in tools if name.endswith("router"))


async def test_seconds_of_nested_orchestrators_are_counted_once() -> None:
    slow = Expert(ScriptedExpert("<answer>42</answer>", delay=0.2), name="solver")
    inner = create_orchestrator(ScriptedRouter([("solver", {})]), [slow])
    outer = create_orchestrator(
        ScriptedRouter([("inner", {"request": "q"})]), [Subgraph(inner.compile(), name="inner", terminal=True)]
    )
    state = await outer.compile().ainvoke({"messages": [HumanMessage("q")]})
    assert 0.2 <= state["ledger"]["seconds"] < 0.35


async def test_modelled_seconds_of_a_nested_orchestrator_are_seconds_of_the_run_around_it() -> None:
    state, _ = await run_nested(2, seconds=10.0)
    assert state["ledger"]["wall_seconds"] == pytest.approx(30.0, abs=1.0)
    assert state["ledger"]["tools"]["level2"]["wall_seconds"] == pytest.approx(20.0, abs=1.0)


async def test_an_orchestrator_inside_a_plain_function_joins_the_ledger() -> None:
    books = Books()
    inner = nest(0, books).compile()

    def ask_inner(question: str) -> str:
        """Ask another orchestrator, synchronously."""
        answer: str = inner.invoke({"messages": [HumanMessage(question)]})["answer"]
        return answer

    routed = ScriptedRouter([("ask_inner", {"question": "q"}), ("final_answer", {"answer": "42"})])
    state = await create_orchestrator(routed, [ask_inner]).compile().ainvoke({"messages": [HumanMessage("q")]})
    tools = state["ledger"]["tools"]
    assert tools["ask_inner/router"]["dollars"] == pytest.approx(ANSWERED)
    assert tools["ask_inner/solver"]["dollars"] == pytest.approx(books.known)
    assert state["ledger"]["dollars"] == pytest.approx(2 * ANSWERED)


async def test_a_nested_orchestrator_that_is_tried_twice_is_paid_twice() -> None:
    books = Books()
    inner = nest(0, books).compile()
    failures = iter([True, False])

    async def flaky(question: str) -> str:
        """Ask, and lose the first reply."""
        state = await inner.ainvoke({"messages": [HumanMessage(question)]})
        if next(failures):
            raise ConnectionError("lost on the way")
        return str(state["answer"])

    measured = meter("flaky")
    for _ in range(2):
        try:
            with measured.attempt():
                await as_tool(flaky).run(Request(args={"question": "q"}, question="q"))
        except ConnectionError:
            continue
    assert books.answered == 2
    assert dollars(measured) == pytest.approx(4 * ANSWERED)


async def test_a_crash_inside_a_nested_orchestrator_leaves_its_charges_with_the_outer_meter() -> None:
    books = Books()
    model = Provider(books=books, script=["empty", "crash"])
    inner = create_orchestrator(router("solver", {}), [Mortal(model, name="solver", price=PRICE)], catalog=priced())
    measured = meter("inner")
    with pytest.raises(CrashError), measured.attempt():
        await Subgraph(inner.compile(), name="inner").run(Request(args={"request": "q"}, question="q"))
    assert dollars(measured) == pytest.approx(ANSWERED + books.known)
    uncertain = [c for c in measured.charges.values() if c["status"] == "uncertain"]
    assert sum(c["upper"] for c in uncertain) >= books.lost * ANSWERED


# The turns of nested runs.


def only_run(log: RunLog) -> Trajectory:
    (run,) = read_runs(log.path)
    return run


def first_call(run: Trajectory) -> str:
    return run.turns[0]["decision"]["calls"][0]["id"]


async def test_the_turns_of_nested_runs_are_in_the_trajectory_and_not_in_the_state(tmp_path: Path) -> None:
    log, books = RunLog(tmp_path / "runs.jsonl"), Books()
    state = await nest(2, books, run_log=log).compile().ainvoke({"messages": [HumanMessage("q")]})
    run = only_run(log)
    middle, inner = (next(r for r in run.runs.values() if r.task.question == q) for q in ("q2", "q1"))
    assert len(run.runs) == 2
    assert (run.parent, middle.parent, inner.parent) == (None, first_call(run), first_call(middle))
    assert inner.catalog is not None and list(inner.catalog.tools) == ["solver"]
    assert (inner.answer, inner.ended, inner.turns[0]["decision"]["by"]) == ("42", "answered", "router")
    (turn,) = state["turns"].values()
    assert "decision" not in json.dumps(turn["outcomes"])


async def test_what_a_nested_run_cost_stands_in_the_run_around_it_under_its_call(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    await nest(2, Books(), run_log=log).compile().ainvoke({"messages": [HumanMessage("q")]})
    run = only_run(log)
    by_parent = {nested.parent: nested for nested in run.runs.values()}
    middle = by_parent[first_call(run)]
    assert run.totals is not None and run.totals["dollars"] == pytest.approx(4 * ANSWERED)
    for around, nested in ((run, middle), (middle, by_parent[first_call(middle)])):
        prefix = f"{nested.parent}/"
        told = {key: charge["dollars"] for key, charge in around.turns[0]["charges"].items() if key.startswith(prefix)}
        own = {key: charge["dollars"] for turn in nested.turns for key, charge in turn["charges"].items()}
        assert {key.removeprefix(prefix): dollars for key, dollars in told.items()} == own != {}


async def test_a_nested_graph_with_a_log_of_its_own_writes_a_line_that_names_its_parent(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.vllm = True
    openai_server.script = [Reply("", [("final_answer", {"answer": "42"})])]
    own, log = RunLog(tmp_path / "inner.jsonl"), RunLog(tmp_path / "runs.jsonl")
    model = ChatVLLM(model="m", base_url=openai_server.base_url)
    solver = Expert(ScriptedExpert("x"), name="solver", price=PRICE)
    inner = create_orchestrator(model, [solver], catalog=priced(), run_log=own).compile()
    tools = [Subgraph(inner, name="inner", terminal=True)]
    outer = create_orchestrator(router("inner", {"request": "r"}), tools, run_log=log).compile()
    context: Any = {"task": {"id": "t1", "purpose": "train"}}
    await outer.ainvoke({"messages": [HumanMessage("q")]}, context=context)
    run, line = only_run(log), only_run(own)
    (nested,) = run.runs.values()
    assert nested == line
    assert line.parent == first_call(run)
    assert nested.captures[nested.turns[0]["captures"][0]].token_ids
    # The logprobs of a constrained router would be of no use, and the task of the run around is not this one's.
    assert (nested.task.id, nested.task.model_extra, nested.purpose, nested.constraint) == (None, {}, "train", None)


@pytest.mark.parametrize("depth", [1, 2])
async def test_the_captures_of_a_nested_graph_without_a_log_are_in_that_of_the_run_around_it(
    depth: int, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.vllm = True
    openai_server.script = [Reply("", [("solver", {})])]
    model = ChatVLLM(model="m", base_url=openai_server.base_url)
    solver = Expert(ScriptedExpert("<answer>42</answer>"), name="solver", price=PRICE)
    graph = create_orchestrator(model, [solver], catalog=priced())
    log = RunLog(tmp_path / "runs.jsonl")
    for level in range(depth):
        tools = [Subgraph(graph.compile(), name="inner", terminal=True)]
        outermost = log if level == depth - 1 else None
        graph = create_orchestrator(router("inner", {"request": "r"}), tools, run_log=outermost)
    state = await graph.compile().ainvoke({"messages": [HumanMessage("q")]})
    run = only_run(log)
    (nested,) = (nested for nested in run.runs.values() if nested.turns[0].get("captures"))
    (name,) = nested.turns[0]["captures"]
    assert nested.captures[name].token_ids and not run.captures
    assert (state["answer"], len(run.runs)) == ("42", depth)


async def test_a_nested_run_that_waited_for_a_person_is_there_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    solver = Expert(ScriptedExpert("<answer>42</answer>"), name="solver", price=PRICE)
    inner = create_orchestrator(router("solver", {}), [solver], catalog=priced(), approve={"solver": True}).compile()
    tools = [Subgraph(inner, name="inner", terminal=True)]
    outer = create_orchestrator(router("inner", {"request": "r"}), tools, run_log=log).compile(InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    await outer.ainvoke({"messages": [HumanMessage("q")]}, config)
    state = await outer.ainvoke(Command(resume={"type": "approve"}), config)
    run = only_run(log)
    assert state["answer"] == "42"
    assert [nested.parent for nested in run.runs.values()] == [first_call(run)]


async def test_a_nested_run_that_ended_before_a_crash_is_kept_by_repair(tmp_path: Path) -> None:
    log, books = RunLog(tmp_path / "runs.jsonl"), Books()
    inner = nest(0, books).compile()
    dying = Mortal(Provider(books=books, script=["crash"]), name="dying", price=PRICE)
    routed = ScriptedRouter([("inner", {"request": "r"}), ("dying", {})])
    outer = create_orchestrator(routed, [Subgraph(inner, name="inner"), dying], run_log=log).compile()
    with pytest.raises(CrashError):
        await outer.ainvoke({"messages": [HumanMessage("q")]})
    (spool,) = Path(f"{log.path}.spool").glob("*.jsonl")
    spool.write_bytes(spool.read_bytes().replace(b'"started":"', b'"started":"0'))  # of a process that is gone
    (folded,) = repair(log.path).folded
    run = read_run(log.path, folded)
    assert run.ended == "abandoned"
    assert [(nested.answer, nested.parent) for nested in run.runs.values()] == [("42", first_call(run))]


async def test_a_run_that_goes_on_after_its_line_was_written_keeps_the_runs_nested_in_it(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    await nest(1, Books(), run_log=log).compile().ainvoke({"messages": [HumanMessage("q")]})
    run = only_run(log)
    again = RunLog(log.path)
    again.take_up(run.run_id)
    line = run.model_dump(mode="json", exclude={"runs", "captures"})
    again.finish(run.run_id, line)
    assert only_run(log).runs == run.runs != {}


# How deep.


def chain(depth: int, **options: Any) -> Any:
    """So many orchestrators inside each other; the options are those of the outermost one."""
    return nest(depth - 1, Books(), **options)


def test_as_many_as_allowed_are_built() -> None:
    assert chain(MAX_DEPTH).compile()
    assert chain(3, max_depth=3).compile()


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 3])
def test_more_than_allowed_are_refused_when_the_graph_is_built(depth: int) -> None:
    most = MAX_DEPTH if depth > MAX_DEPTH else 2
    names = " > ".join(["this one", *(f"level{n}" for n in range(depth - 1, 0, -1))])
    with pytest.raises(
        ConfigError, match=f"{depth} orchestrators inside each other .{names}.; expected at most {most}"
    ):
        chain(depth, max_depth=most)


def test_orchestrators_inside_somebody_elses_graph_are_counted() -> None:
    around = StateGraph(MessagesState)
    around.add_node("inner", chain(2).compile())
    around.add_edge(START, "inner")
    with pytest.raises(ConfigError, match="this one > around > level1"):
        create_orchestrator(router("around", {}), [Subgraph(around.compile(), name="around")], max_depth=2)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_depth = 0; expected at least 1"):
        chain(1, max_depth=0)


def test_a_graph_that_contains_itself_is_refused() -> None:
    loop = Subgraph(chain(1).compile(), name="loop")
    loop.graph = create_orchestrator(router("loop", {}), [loop]).compile()
    with pytest.raises(ConfigError, match="the graph of 'loop' contains itself: loop > loop; fix: take one"):
        create_orchestrator(router("loop", {}), [loop])


async def test_a_function_that_calls_its_own_orchestrator_is_stopped(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    asked = []

    async def again(question: str) -> str:
        """Ask the same orchestrator."""
        asked.append(question)
        state = await graph.ainvoke({"messages": [HumanMessage(question)]})
        return str(state["answer"])

    def decide(messages: Any) -> Any:
        newest = messages[-1]
        return ("final_answer", {"answer": newest.text}) if newest.type == "tool" else ("again", {"question": "q"})

    graph = create_orchestrator(ScriptedRouter(decide), [again], run_log=log, max_depth=3).compile()
    state = await graph.ainvoke({"messages": [HumanMessage("q")]})
    assert len(asked) == 3
    assert "this would be orchestrator number 4 inside each other; expected at most 3; fix:" in state["answer"]
    outermost = [run for run in read_runs(log.path) if run.parent is None]
    assert [len(run.runs) for run in outermost] == [2]


@dataclass
class UsersContext:
    """A context of the user's own."""

    user: str
    budget: dict[str, Any]


@pytest.mark.parametrize(
    "context", [UsersContext("u", {"turns": 1}), {"user": "u", "budget": {"turns": 1}}, {"user": "u"}]
)
async def test_a_node_of_a_graph_reads_what_is_its_own_of_that_graphs_context(context: Any) -> None:
    look = Expert(ScriptedExpert("Ada"), name="look", role="chat", price=Price())
    script = [("look", {}), ("final_answer", {"answer": "end"})]
    around = StateGraph(MessagesState, context_schema=UsersContext if isinstance(context, UsersContext) else None)
    around.add_node("inner", create_orchestrator(ScriptedRouter(script), [look]).compile())
    around.add_edge(START, "inner")
    state = await around.compile().ainvoke({"messages": [HumanMessage("q")]}, context=context)
    assert state["messages"][-1].text == ("end" if context == {"user": "u"} else "Ada")


MODULE = """
from orchestra_graph import Catalog, Rules, create_orchestrator
from orchestra_graph.tools.build import build_tools
from orchestra_graph.catalog import ToolSpec

catalog = Catalog.of([ToolSpec(name="{other}", kind="graph", target="{other}:graph")])
graph = create_orchestrator(Rules(), build_tools(catalog, {{}}), catalog=catalog).compile(name="{name}")
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three modules with a graph each, of which every one names the next as its tool."""
    for name, other in (("ring_a", "ring_b"), ("ring_b", "ring_c"), ("ring_c", "ring_a")):
        (tmp_path / f"{name}.py").write_text(MODULE.format(name=name, other=other))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("ring_a", "ring_b", "ring_c"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("modules")
def test_catalogs_that_name_each_other_are_refused_with_one_error() -> None:
    catalog = Catalog.of([ToolSpec(name="a", kind="graph", target="ring_a:graph")])
    with pytest.raises(ConfigError) as refused:
        build_tools(catalog, {})
    assert str(refused.value) == (
        "ring_a: target = 'ring_a:graph' contains itself: ring_a:graph > ring_b:graph > ring_c:graph > ring_a:graph; "
        "fix: take one of these lines out"
    )


@pytest.mark.usefixtures("modules")
def test_a_module_that_is_imported_by_itself_is_refused_as_well() -> None:
    with pytest.raises(ConfigError, match="contains itself: ring_b:graph > ring_c:graph > ring_a:graph > ring_b:graph"):
        __import__("ring_a")
