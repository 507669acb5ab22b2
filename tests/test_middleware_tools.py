"""Tools that an agent's expert calls: what the budget lets through, and what is charged when others call them again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.tools import StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import report
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.preferences import Budget
from orchestra_graph.routers import Fixed
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.expert import Expert
from tests.agents import SEARCH, Bench, Mode, both, first_or_last, in_any_order, run
from tests.provider import ANSWERED, PRICE, Paid, Provider


def agent(calls: Any, tools: list[Any], lines: list[ToolSpec], *others: Any, first: bool = True, **options: Any) -> Any:
    """An agent whose expert makes these calls of tools, then answers; `build` holds what is `create_agent`'s."""
    model = ScriptedRouter(lambda messages: "done" if isinstance(messages[-1], ToolMessage) else calls)
    build = {"tools": tools, **options.pop("build", {})}
    experts = [Expert(model, name="small", price=Price())]
    mine = OrchestraMiddleware(Fixed(tool="small"), experts, catalog=Catalog.of(lines), **options)
    return Bench().agent(*others, first=first, mine=mine, build=build)


def outcomes(state: dict[str, Any]) -> list[Any]:
    """Of the tools, in their order."""
    turns = [turn for turn in state["turns"].values() if turn["decision"]["by"] == "expert"]
    return [turn["outcomes"].get(call["id"]) for turn in turns for call in turn["decision"]["calls"]]


@pytest.mark.parametrize("graphs", [1, 2, 4])
def test_orchestrators_called_in_one_message_share_what_is_left(graphs: int) -> None:
    look = Paid("look", 0.01)
    inner = create_orchestrator(ScriptedRouter(lambda messages: ("look", {})), [look]).compile()

    @tool
    async def helper(query: str) -> str:
        """Ask an orchestrator that spends all it may."""
        return str((await inner.ainvoke({"messages": [HumanMessage(query)]}))["answer"])

    calls = [("helper", {"query": str(n)}) for n in range(graphs)]
    lines = [ToolSpec(name="helper", kind="graph")]
    state = run(agent(calls, [helper], lines, budget=Budget(dollars=0.08)), "async")
    assert look.sent == 8
    assert state["ledger"]["dollars"] == pytest.approx(0.08)


class Again(AgentMiddleware[Any, Any, Any]):
    """Calls a tool several times, one after the other or side by side, and keeps the first result."""

    def __init__(self, times: int, *, at_once: bool) -> None:
        super().__init__()
        self.times = times
        self.at_once = at_once

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        if self.at_once:
            results = await asyncio.gather(*(handler(request) for _ in range(self.times)))
        else:
            results = [await handler(request) for _ in range(self.times)]
        return results[0]


LINE = ToolSpec(name="search", price=Price(per_call=SEARCH))


@tool("search")
async def slow(query: str) -> str:
    """Look something up."""
    await asyncio.sleep(0.01)
    return query


@first_or_last
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in a row"])
def test_every_call_of_a_tool_by_other_middleware_is_charged(at_once: bool, first: bool) -> None:
    calls = [("search", {"query": "a"}), ("search", {"query": "b"})]
    state = run(agent(calls, [slow], [LINE], Again(3, at_once=at_once), first=first), "async")
    assert state["ledger"]["tools"]["search"]["attempts"] == 6
    assert state["ledger"]["dollars"] == pytest.approx(6 * SEARCH)


@first_or_last
def test_a_call_by_other_middleware_is_made_only_if_the_budget_pays_for_it(first: bool) -> None:
    budget = Budget(dollars=2.5 * SEARCH)
    state = run(
        agent([("search", {"query": "a"})], [slow], [LINE], Again(4, at_once=False), first=first, budget=budget),
        "async",
    )
    assert state["ledger"]["dollars"] == pytest.approx(2 * SEARCH)
    assert [(outcome["content"], "unsent" in outcome) for outcome in outcomes(state)] == [("a", False)]


@in_any_order
def test_a_tool_is_tried_again_only_if_the_budget_pays_for_it(first: bool, mode: Mode) -> None:
    tries: list[str] = []

    @tool("search")
    def broken(query: str) -> str:
        """Break."""
        tries.append(query)
        raise ConnectionError("gone")

    retry = ToolRetryMiddleware(max_retries=8, initial_delay=0.0, jitter=False)
    budget = Budget(dollars=2.5 * SEARCH)
    state = run(agent([("search", {"query": "a"})], [broken], [LINE], retry, first=first, budget=budget), mode)
    assert (len(tries), state["ledger"]["uncertain_dollars"]) == (2, pytest.approx(2 * SEARCH))
    (outcome,) = outcomes(state)
    assert (outcome["content"][:35], outcome["error"]) == ("not sent: costs at least $0.010000,", True)
    assert state["ledger"]["tools"]["search"]["calls"] == 1


@both
def test_a_tool_that_asks_a_person_is_taken_up_again_only_if_the_budget_pays_for_it(mode: Mode) -> None:
    model = Provider()

    @tool("search")
    def asking(query: str) -> str:
        """Ask a model, then a person, several times."""
        model.invoke(query)
        report(seconds=6.0)
        return "".join(interrupt(n) for n in range(4))

    line = ToolSpec(name="search", model="m", price=PRICE)
    for budget in (Budget(dollars=1.5 * ANSWERED), Budget(seconds=10.0)):
        model.books.answered = 0
        graph = agent(
            [("search", {"query": "a"})], [asking], [line], budget=budget, build={"checkpointer": InMemorySaver()}
        )
        config = {"configurable": {"thread_id": "1"}}
        state = run(graph, mode, config=config)
        while "__interrupt__" in state:
            state = run(graph, mode, Command(resume="yes"), config)
        (outcome,) = outcomes(state)
        assert (outcome["content"][:9], outcome["error"]) == ("not sent:", True)
        assert outcome["seconds"] == pytest.approx(12.0, abs=0.1)
        assert state["ledger"]["dollars"] == pytest.approx(2 * ANSWERED)
        assert model.books.answered == 2


class Editing(AgentMiddleware[Any, Any, Any]):
    """Puts other calls into an expert's message."""

    def __init__(self, edit: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__()
        self.edit = edit

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        said = state["messages"][-1]
        calls = self.edit(said.tool_calls) if said.tool_calls else []
        return {"messages": [said.model_copy(update={"tool_calls": calls})]} if said.tool_calls else None


def asked(name: str, query: str = "new") -> ToolCall:
    return {"name": name, "args": {"query": query}, "id": f"call {query}", "type": "tool_call"}


@in_any_order
@pytest.mark.parametrize(
    ("edit", "made"),
    [
        (lambda calls: calls[1:], ["cheap"]),
        (lambda calls: [*calls, asked("cheap")], ["dear", "cheap", "cheap"]),
        (lambda calls: [asked("cheap"), calls[1]], ["cheap", "cheap"]),
        (lambda calls: [asked("cheap")], ["cheap"]),
        (lambda calls: calls[::-1], ["cheap", "dear"]),
    ],
    ids=["dropped", "added", "replaced", "all replaced", "in another order"],
)
def test_calls_that_other_middleware_has_changed_are_checked_and_charged(
    edit: Any, made: list[str], first: bool, mode: Mode
) -> None:
    def look(query: str) -> str:
        """Look something up."""
        return f"result of {query}"

    tools = [StructuredTool.from_function(look, name=name) for name in ("dear", "cheap")]
    lines = [ToolSpec(name="dear", price=Price(per_call=1.0)), ToolSpec(name="cheap", price=Price(per_call=SEARCH))]
    calls = [("dear", {"query": "a"}), ("cheap", {"query": "b"})]
    state = run(agent(calls, tools, lines, Editing(edit), first=first, budget=Budget(dollars=0.5)), mode)
    turn = list(state["turns"].values())[1]
    assert [call["tool"] for call in turn["decision"]["calls"]] == made
    assert len({call["id"] for call in turn["decision"]["calls"]}) == len(made)
    contents = [outcome["content"][:24] for outcome in outcomes(state)]
    assert [content.startswith("not sent: dear") for content in contents] == [name == "dear" for name in made]
    assert state["ledger"]["dollars"] == pytest.approx(made.count("cheap") * SEARCH)
    assert state["ledger"]["tools"]["cheap"]["calls"] == made.count("cheap")


@in_any_order
def test_an_expert_whose_every_call_was_dropped_leaves_the_results_of_older_ones_alone(first: bool, mode: Mode) -> None:
    model = ScriptedRouter([AIMessage("", tool_calls=[asked("search", query)]) for query in "ab"])
    mine = OrchestraMiddleware(Fixed(tool="small"), {"small": model}, catalog=Catalog.of([LINE]))
    dropping = Editing(lambda calls: [call for call in calls if call["args"]["query"] == "a"])
    state = run(Bench().agent(dropping, first=first, mine=mine), mode)
    assert [outcome and outcome["content"] for outcome in outcomes(state)] == ["result of a", None]
    assert state["ledger"]["dollars"] == pytest.approx(SEARCH)
