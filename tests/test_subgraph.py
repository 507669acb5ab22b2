"""Graphs as tools, and orchestrators inside orchestrators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from orchestra_graph.catalog import Catalog, Limits, Price, ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import current_meter
from orchestra_graph.preferences import Budget
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import LIMITS, Subgraph


def returning(state: Any) -> Any:
    """A graph that ends in a state."""
    return RunnableLambda(lambda given: state).with_config(run_name="fixed")


async def call(tool: Subgraph, **args: Any) -> Result:
    return await tool.run(Request(args=args, question="the question"))


def chat(reply: str) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("say", lambda state: {"messages": [AIMessage(f"{reply} {state['messages'][-1].text}")]})
    graph.add_edge(START, "say")
    graph.add_edge("say", END)
    return graph.compile(name="talker")


def orchestrator(reply: str = "<answer>42</answer>", **options: Any) -> Any:
    expert = Expert(ScriptedExpert(reply), name="solver", price=Price(per_call=0.5))
    return create_orchestrator(ScriptedRouter(lambda m: ("solver", {})), [expert], **options).compile()


async def test_the_last_message_of_a_graph_is_its_answer() -> None:
    tool = Subgraph(chat("you said"))
    assert tool.spec.name == "talker"
    assert await call(tool, request="hello") == Result("you said hello", answer="you said hello")


async def test_a_graph_without_a_request_gets_the_question() -> None:
    tool = Subgraph(chat("you asked"), takes_request=False)
    assert tool.spec.required == []
    assert (await call(tool)).content == "you asked the question"


async def test_the_answer_comes_before_the_messages() -> None:
    assert (await call(Subgraph(returning({"answer": 42, "messages": [AIMessage("x")]})), request="r")).content == "42"


async def test_a_graph_may_have_a_ledger_of_its_own() -> None:
    state = {"messages": [AIMessage("balanced")], "ledger": {"rent": 3}}
    assert (await call(Subgraph(returning(state)), request="r")).content == "balanced"


def test_a_graph_has_time_for_many_calls_and_is_not_paid_again() -> None:
    assert Subgraph(chat("a")).spec.limits == LIMITS
    assert Subgraph(chat("a"), limits=Limits(timeout=5)).spec.limits == Limits(timeout=5)


def test_fields_of_the_spec() -> None:
    spec = Subgraph(chat("x"), name="other", description="Talks.", terminal=True, price=Price(per_call=1.0)).spec
    assert (spec.name, spec.kind, spec.description, spec.terminal, spec.price.per_call) == (
        "other",
        "graph",
        "Talks.",
        True,
        1.0,
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("text", "returned str; expected a state"),
        ({"x": 1}, "state has x; expected messages or answer"),
        ({}, "state has nothing"),
        ({"messages": [], "answer": None}, "expected messages or answer"),
    ],
)
async def test_a_graph_that_brings_nothing_is_an_error(state: Any, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        await call(Subgraph(returning(state)), request="r")


async def test_an_orchestrator_that_is_stopped_with_a_result_answers_with_it() -> None:
    tool = Subgraph(orchestrator("a remark", budget=Budget(turns=2)), name="inner")
    assert (await call(tool, request="r")).answer == "a remark"


async def test_an_orchestrator_that_is_stopped_without_a_result_is_an_error() -> None:
    tool = Subgraph(orchestrator(budget=Budget(dollars=0.1)), name="inner")
    with pytest.raises(ToolError, match="No answer: the run ended before one was found"):
        await call(tool, request="r")


async def run(inner: Subgraph, *, context: Any = None, **options: Any) -> dict[str, Any]:
    router = ScriptedRouter([("inner", {"request": "r"}), ("inner", {"request": "r"})])
    graph = create_orchestrator(router, [inner], **options).compile()
    state: dict[str, Any] = await graph.ainvoke({"messages": [HumanMessage("q")]}, context=context)
    return state


async def test_an_orchestrator_joins_the_ledger_and_ends_the_run_where_it_is_terminal() -> None:
    state = await run(Subgraph(orchestrator(), name="inner", terminal=True))
    assert (state["answer"], state["stopped_by"]) == ("42", "answer")
    assert state["ledger"]["tools"]["inner/solver"]["dollars"] == 0.5
    assert state["ledger"]["dollars"] == 0.5


async def test_a_refusal_inside_becomes_an_error_that_the_outer_router_reads() -> None:
    broken = create_orchestrator(ScriptedRouter([ValueError("no such model")]), [chat("x")]).compile()
    state = await run(Subgraph(broken, name="inner", terminal=True), budget=Budget(turns=1))
    outcome = next(iter(state["turns"].values()))["outcomes"].popitem()[1]
    assert outcome["error"]
    assert "no such model" in outcome["content"]


async def test_the_preferences_of_the_outer_run_are_not_those_of_the_inner_one() -> None:
    inner = Subgraph(orchestrator(), name="inner", terminal=True)
    state = await run(inner, context={"preferences": {"prefer": {"inner": 1.0}}})
    assert state["answer"] == "42"


async def test_the_budget_of_the_outer_run_does_not_replace_that_of_the_inner_one() -> None:
    inner = Subgraph(orchestrator("a remark", budget=Budget(turns=2)), name="inner", terminal=True)
    state = await run(inner, context={"budget": {"turns": 10}})
    assert state["answer"] == "a remark"
    # Two turns of the inner run and its closing one.
    assert state["ledger"]["tools"]["inner/solver"]["dollars"] == 1.5


async def test_one_graph_serves_concurrent_calls() -> None:
    tool = Subgraph(orchestrator(), name="inner")
    results = await asyncio.gather(*(call(tool, request=str(n)) for n in range(20)))
    assert {result.answer for result in results} == {"42"}


async def test_the_inner_run_is_streamed_with_its_subgraphs() -> None:
    router = ScriptedRouter([("inner", {"request": "r"})])
    graph = create_orchestrator(router, [Subgraph(orchestrator(), name="inner", terminal=True)]).compile()
    question: Any = {"messages": [HumanMessage("q")]}
    deep: list[Any] = [part async for part in graph.astream(question, stream_mode="custom", subgraphs=True)]
    assert {len(namespace) for namespace, _ in deep} == {0, 1}
    assert sum(event["type"] == "answer" for _, event in deep) == 2


class Purse(Tool):
    """Remembers what it may spend."""

    spec = ToolSpec(name="purse", terminal=True)

    def __init__(self) -> None:
        self.left: list[Any] = []

    async def run(self, request: Request) -> Result:
        meter = current_meter()
        assert meter is not None and meter.left is not None
        self.left.append(meter.left)
        return Result("42", answer="42")

    def around(self, **spec: Any) -> Subgraph:
        """An orchestrator that calls it."""
        inner = create_orchestrator(ScriptedRouter(lambda m: ("purse", {})), [self])
        return Subgraph(inner.compile(), name=spec.pop("name", "inner"), **spec)

    @property
    def dollars(self) -> list[float]:
        return sorted(round(left["dollars"], 6) for left in self.left)


async def spend(tools: list[Any], *calls: str, **options: Any) -> None:
    """Call tools in one reply, with a dollar and 100 seconds."""
    reply: Any = [(name, {"request": "r"}) for name in calls]
    router = ScriptedRouter([reply, ("final_answer", {"answer": "42"})])
    graph = create_orchestrator(router, tools, budget=Budget(dollars=1.0, seconds=100.0), **options)
    await graph.compile().ainvoke({"messages": [HumanMessage("q")]})


async def test_a_nested_run_gets_all_that_is_left_or_its_share() -> None:
    whole, half = Purse(), Purse()
    await spend([whole.around()], "inner")
    await spend([half.around(share=0.5)], "inner")
    assert (whole.dollars, half.dollars) == ([1.0], [0.5])
    # The clock goes on, and time is kept back for closing in both runs.
    assert half.left[0]["seconds"] < 50 < whole.left[0]["seconds"]


async def test_graphs_called_in_one_reply_never_get_more_than_there_is() -> None:
    purse = Purse()
    tools = [purse.around(name="a", share=0.8), purse.around(name="b", share=0.8), purse.around(name="c")]
    await spend(tools, "a", "b", "c")
    assert purse.dollars == pytest.approx([0.8 / 3, 0.8 / 3, 1 / 3], abs=1e-6)


async def test_a_function_that_runs_an_orchestrator_gets_the_share_that_its_line_states() -> None:
    purse = Purse()
    inner = create_orchestrator(ScriptedRouter(lambda m: ("purse", {})), [purse]).compile()

    async def ask(request: str) -> str:
        """Ask another orchestrator."""
        return str((await inner.ainvoke({"messages": [HumanMessage(request)]}))["answer"])

    await spend([ask], "ask", catalog=Catalog.of([ToolSpec(name="ask", share=0.25)]))
    assert purse.dollars == [0.25]


async def test_an_agent_inside_that_could_pay_nothing_says_so() -> None:
    def stopped(state: Any) -> dict[str, Any]:
        """As an agent with `OrchestraMiddleware` ends, which has no `answer`."""
        words = AIMessage("The run was stopped.")
        return {"messages": [words], "ledger": {"wall_seconds": 0.0}, "turns": {}, "stopped_by": "dollars"}

    with pytest.raises(ToolError, match="The run was stopped"):
        await Subgraph(RunnableLambda(stopped), name="agent").run(Request(args={"request": "q"}, question="q"))
