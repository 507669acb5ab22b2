"""A run that is taken up again pays nothing twice, and loses no charge."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import CachePolicy, Command, interrupt

from orchestra_graph.add_router import add_router
from orchestra_graph.meter import report
from orchestra_graph.preferences import Budget
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from tests.provider import ANSWERED, CrashError, Provider, charges_of
from tests.spending_graphs import CONFIG, QUESTION, Node, compiled, graph_of, script, spec, values_of

# LangGraph's node cache.


async def test_a_cached_node_is_free_and_its_result_counts_for_the_new_call() -> None:
    node = Node()
    builder: Any = StateGraph(MessagesState)
    builder.add_node("work", node, cache_policy=CachePolicy(key_func=lambda state: state["messages"][0].text))
    router = script("work", "work")
    graph = compiled(builder, router, [spec("work")], cache=InMemoryCache())
    await graph.ainvoke(QUESTION, CONFIG)
    turns = (await values_of(graph))["orchestra_turns"]
    total = (await values_of(graph))["orchestra_ledger"]["tools"]["work"]
    assert (node.runs, total["calls"], total["attempts"]) == (1, 2, 1)
    assert total["dollars"] == pytest.approx(ANSWERED)
    outcomes = [outcome for turn in turns.values() for outcome in turn["outcomes"].values()]
    assert [(outcome["content"], outcome.get("cached", False)) for outcome in outcomes[:2]] == [
        ("said", False),
        ("said", True),
    ]
    again: Any = {"configurable": {"thread_id": "2"}}
    await graph.ainvoke(QUESTION, again)
    assert (node.runs, (await graph.aget_state(again)).values["orchestra_ledger"]["dollars"]) == (1, 0.0)


async def test_a_visit_of_the_graphs_own_is_cached_apart_from_calls() -> None:
    node = Node()
    builder: Any = StateGraph(MessagesState)
    builder.add_node("work", node, cache_policy=CachePolicy(key_func=lambda state: b"same"))
    builder.add_node("lead", lambda state: None)
    builder.add_edge("lead", "work")
    lines = [spec("work"), spec("lead", terminal=True)]
    graph = compiled(builder, script("work", "lead"), lines, cache=InMemoryCache())
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "said", "said"]
    assert (node.runs, len((await values_of(graph))["orchestra_turns"])) == (2, 2)


# Resuming.


async def test_what_was_paid_before_a_person_was_asked_is_in_the_ledger_and_waiting_is_not(tmp_path: Path) -> None:
    node, log = Node(asks=True), RunLog(tmp_path / "runs.jsonl")
    graph = compiled(graph_of(work=node), script("work"), [spec("work", terminal=True)], run_log=log)
    await graph.ainvoke(QUESTION, CONFIG)
    (spool,) = Path(f"{log.path}.spool").glob("*.jsonl")
    assert '"kind":"waiting"' in spool.read_text()
    await asyncio.sleep(0.5)
    state = await graph.ainvoke(Command(resume="yes"), CONFIG)
    ledger = (await values_of(graph))["orchestra_ledger"]
    assert (state["messages"][-1].text, node.runs) == ("yes", 2)
    assert ledger["dollars"] == pytest.approx(2 * ANSWERED)
    assert ledger["wall_seconds"] < 0.4


@pytest.mark.parametrize("new_process", [True, False], ids=["new process", "same graph"])
@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_killed_run_goes_on_and_pays_nothing_again_that_was_written(
    new_process: bool, durability: Any, tmp_path: Path
) -> None:
    first, dying = Node(), Node(fails=[CrashError()])
    log = RunLog(tmp_path / "runs.jsonl")

    def make(saver: Any) -> Any:
        builder = graph_of(first=first, dying=dying)
        return compiled(
            builder, script("first", "dying"), [spec("first"), spec("dying")], run_log=log, checkpointer=saver
        )

    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "state.sqlite")) as saver:
        graph = make(saver)
        with pytest.raises(CrashError):
            await graph.ainvoke(QUESTION, CONFIG, durability=durability)
        graph = make(saver) if new_process else graph
        state = await graph.ainvoke(None, CONFIG, durability=durability)
        tools = (await values_of(graph))["orchestra_ledger"]["tools"]
    assert [message.text for message in state["messages"]] == ["q", "said", "said", "end"]
    assert (first.runs, dying.runs) == (1, 2)
    assert tools["first"]["dollars"] == pytest.approx(ANSWERED)
    assert tools["dying"]["dollars"] == pytest.approx(2 * ANSWERED)
    (run,) = read_runs(log.path)
    assert run.totals is not None
    assert run.totals["tools"]["dying"] == tools["dying"]


async def test_a_run_killed_in_an_error_handler_goes_on_there() -> None:
    node, crash, saver = Node(fails=[ValueError("a bug")]), [CrashError()], InMemorySaver()

    def handler(state: MessagesState) -> dict[str, Any]:
        if crash:
            raise crash.pop()
        return {"messages": [AIMessage("mended")]}

    def make() -> tuple[Any, Any]:
        builder = graph_of(other=Node())
        builder.add_node("work", node, error_handler=handler)
        router = script("work", "other")
        return compiled(builder, router, [spec("work"), spec("other", terminal=True)], checkpointer=saver), router

    with pytest.raises(CrashError):
        await make()[0].ainvoke(QUESTION, CONFIG)
    graph, router = make()
    state = await graph.ainvoke(None, CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "mended", "said"]
    assert router.prompts[-1][-1].text == "Error: ValueError('a bug')\nmended"
    assert (node.runs, (await values_of(graph))["orchestra_stopped_by"]) == (1, "answer")


async def test_a_request_that_was_lost_with_its_process_stands_as_uncertain(tmp_path: Path) -> None:
    model = Provider(script=["answer", "lost"], text="said")

    async def work(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("one")
        try:
            return {"messages": [await model.ainvoke("two")]}
        except Exception as error:
            raise CrashError from error

    saver, log = InMemorySaver(), RunLog(tmp_path / "runs.jsonl")
    graph = compiled(graph_of(work=work), script("work"), [spec("work")], run_log=log, checkpointer=saver)
    with pytest.raises(CrashError):
        await graph.ainvoke(QUESTION, CONFIG)
    graph = compiled(graph_of(work=work), script("work"), [spec("work")], run_log=log, checkpointer=saver)
    await graph.ainvoke(None, CONFIG)
    values = await values_of(graph)
    total = values["orchestra_ledger"]["tools"]["work"]
    assert (model.books.answered, model.books.lost) == (3, 1)
    assert total["dollars"] <= model.books.owed <= total["dollars"] + total["uncertain_dollars"]
    assert sum("." in key for key in charges_of(values["orchestra_turns"], "work")) == model.books.requests


async def test_a_run_is_one_line_of_the_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    builder = graph_of(search=Node(), answer=Node(Provider(text="it is 42")))
    lines = [spec("search"), spec("answer", terminal=True)]
    graph = add_router(builder, script("search", "answer"), lines, run_log=log).compile()
    for _ in range(2):
        await graph.ainvoke(QUESTION)
    runs = list(read_runs(log.path))
    assert [(run.answer, run.stopped_by, len(run.turns)) for run in runs] == [("it is 42", "answer", 2)] * 2
    assert runs[0].totals is not None
    assert runs[0].totals["dollars"] == pytest.approx(2 * ANSWERED)
    assert not list(Path(f"{log.path}.spool").glob("*.jsonl"))


class Questions:
    """A node that asks a model, then a person, several times: each answer runs it from its start."""

    def __init__(self, model: Provider, seconds: float = 0.0) -> None:
        self.model = model
        self.seconds = seconds

    async def __call__(self, state: MessagesState) -> dict[str, Any]:
        await self.model.ainvoke("q")
        report(seconds=self.seconds)
        return {"messages": [AIMessage("".join(interrupt(n) for n in range(4)))]}


@pytest.mark.parametrize(
    ("budget", "why"),
    [(Budget(dollars=0.003), "dollars"), (Budget(seconds=10.0), "seconds")],
    ids=["dollars", "seconds"],
)
async def test_a_node_is_taken_up_again_only_if_the_budget_pays_for_it(budget: Budget, why: str) -> None:
    model = Provider()
    graph = compiled(graph_of(work=Questions(model, 6.0)), script("work"), [spec("work")], budget=budget)
    state = await graph.ainvoke(QUESTION, CONFIG)
    while "__interrupt__" in state:
        state = await graph.ainvoke(Command(resume="yes"), CONFIG)
    values = await values_of(graph)
    (outcome,) = next(iter(values["orchestra_turns"].values()))["outcomes"].values()
    assert (outcome["error"], outcome["content"][:9]) == (True, "not sent:")
    assert (model.books.answered, values["orchestra_stopped_by"]) == (2, why)
    assert values["orchestra_ledger"]["dollars"] == pytest.approx(2 * ANSWERED)


async def test_a_terminal_node_that_the_graph_cannot_do_without_is_taken_up_all_the_same() -> None:
    model = Provider()
    builder = graph_of(work=Questions(model), after=Node())
    builder.add_edge("work", "after")
    graph = compiled(builder, script("work"), [spec("work", terminal=True)], budget=Budget(dollars=0.003))
    state = await graph.ainvoke(QUESTION, CONFIG)
    while "__interrupt__" in state:
        state = await graph.ainvoke(Command(resume="yes"), CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "yes" * 4, "said"]
    assert model.books.answered == 5
