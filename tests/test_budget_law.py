"""The law of the budget, for any tools and any router."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from orchestra_graph.catalog import Limits
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Budget
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.turns import Turn
from tests.examples import examples
from tests.provider import Paid

State = dict[str, Any]


CENTS = st.integers(0, 40).map(lambda n: n / 100)


@st.composite
def worlds(draw: st.DrawFn, *, honest: bool = False) -> tuple[Budget, list[Paid], list[list[str]]]:
    """A budget, tools that may cost more than their price, and what the router calls."""
    names = ["a", "b", "c"]
    tools = [
        Paid(
            name,
            draw(CENTS),
            extra=0.0 if honest else draw(CENTS),
            fails=False if honest else draw(st.booleans()),
            limits=Limits(retries=1),
        )
        for name in names
    ]
    tools.append(Paid("close", draw(CENTS), extra=0.0 if honest else draw(CENTS), answer="closed"))
    replies = draw(st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=4), min_size=1, max_size=5))
    return Budget(dollars=draw(CENTS) * 3, turns=6), tools, replies


def play(world: tuple[Budget, list[Paid], list[list[str]]]) -> State:
    budget, tools, replies = world
    router = ScriptedRouter(lambda messages: [(name, {}) for name in replies[_turn(messages) % len(replies)]])
    graph = create_orchestrator(router, tools, budget=budget).compile()
    state: State = asyncio.run(graph.ainvoke({"messages": [HumanMessage("q")]}))
    return state


def _turn(messages: list[Any]) -> int:
    return sum(isinstance(m, AIMessage) for m in messages)


def least_of_sent(turn: Turn, prices: dict[str, float]) -> float:
    """What the calls of a turn that were sent cost at least, together."""
    sent = {id for id, outcome in turn["outcomes"].items() if not outcome.get("unsent")}
    return sum(prices[call["tool"]] for call in turn["decision"]["calls"] if call["id"] in sent)


QUICK = settings(deadline=None, max_examples=examples(120), suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@given(worlds())
@QUICK
def test_what_is_sent_fits_the_budget_when_it_is_sent(world: tuple[Budget, list[Paid], list[list[str]]]) -> None:
    """So a budget is exceeded at most by what the calls of the last reply cost beyond their least."""
    budget, tools, _ = world
    prices = {tool.spec.name: tool.spec.price.per_call for tool in tools}
    state = play(world)
    spent = overshoot = 0.0
    for turn in state["turns"].values():
        least = least_of_sent(turn, prices)
        assert spent + least <= budget.dollars + 1e-9
        cost = Spent.of([turn]).dollars
        assert spent <= budget.dollars + 1e-9 or cost == 0.0
        spent += cost
        overshoot = max(0.0, cost - least)
    assert spent <= budget.dollars + overshoot + 1e-9
    assert state["ledger"]["dollars"] <= budget.dollars + overshoot + 1e-9
    assert state["stopped_by"] in ("dollars", "turns")
    assert isinstance(state["answer"], str)


@pytest.mark.slow
@given(worlds(honest=True))
@QUICK
def test_tools_that_cost_what_they_say_never_exceed_the_budget(
    world: tuple[Budget, list[Paid], list[list[str]]],
) -> None:
    budget, tools, _ = world
    state = play(world)
    assert state["ledger"]["dollars"] <= budget.dollars + 1e-9
    if 0 < tools[-1].spec.price.per_call <= budget.dollars / 2:
        assert state["answer"] == "closed"
