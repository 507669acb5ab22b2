"""A budget over an agent: what it lets through, and that the agent still ends in an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.preferences import Budget
from orchestra_graph.routers import Cheapest, Fixed
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert
from tests.agents import MODES, SEARCH, Bench, Mode, catalog, cost, decisions, ledger_of, run, said
from tests.examples import examples
from tests.runs import read

QUESTION = "How many? " + "word " * 400
"""Longer than what the provider bills for, so that estimates are above the bill."""

both = pytest.mark.parametrize("mode", MODES)


@both
def test_when_dollars_are_used_up_the_cheapest_expert_answers_without_tools(mode: Mode) -> None:
    bench = Bench("large", steps=50)
    bench.models["small"].steps = 0
    budget = Budget(dollars=0.03)
    state = run(bench.agent(budget=budget), mode, QUESTION)
    by, called = decisions(state)[-1]
    assert (by, called, state["stopped_by"]) == ("closing", ["small"], "dollars")
    assert said(state) == "answer of small"
    assert ledger_of(state) == pytest.approx({**bench.billed, "search": _searched(state)})
    assert state["ledger"]["dollars"] <= budget.dollars


@both
def test_a_closing_expert_that_calls_tools_all_the_same_is_not_followed(mode: Mode) -> None:
    bench = Bench("large", steps=50)
    state = run(bench.agent(budget=Budget(turns=2)), mode)
    closings = [turn for turn in state["turns"].values() if turn["decision"]["by"] == "closing"]
    assert [outcome["error"] for turn in closings for outcome in turn["outcomes"].values()] == [True, True]
    assert said(state).endswith("result of q0")
    closing = state["messages"][-1]
    assert isinstance(closing, AIMessage)
    assert closing.tool_calls == []


@both
def test_the_named_expert_closes_the_run(mode: Mode) -> None:
    bench = Bench("large", steps=50)
    bench.models["backup"].steps = 0
    state = run(bench.agent(budget=Budget(dollars=0.03), closing="backup"), mode, QUESTION)
    assert decisions(state)[-1] == ("closing", ["backup"])


@both
def test_the_next_expert_closes_the_run_when_the_first_fails(mode: Mode) -> None:
    bench = Bench("large", steps=1, small=["invalid"])
    state = run(bench.agent(budget=Budget(turns=2)), mode)
    assert [called for by, called in decisions(state) if by == "closing"] == [["small"], ["backup"]]
    assert said(state) == "answer of backup"
    assert ledger_of(state) == pytest.approx({**bench.billed, "search": SEARCH})


@both
def test_nothing_is_paid_from_an_empty_purse(mode: Mode) -> None:
    bench = Bench("small")
    state = run(bench.agent(budget=Budget(dollars=0.0)), mode)
    assert (state["stopped_by"], state["ledger"]["dollars"]) == ("dollars", 0.0)
    assert said(state).startswith("The run was stopped: the budget's dollars are used up")
    assert bench.router.books.requests == bench.models["small"].books.requests == 0


@both
def test_what_there_is_stands_as_the_answer(mode: Mode) -> None:
    bench = Bench("small", steps=1, small=["answer", "invalid"], large=["invalid"], backup=["invalid"])
    state = run(bench.agent(budget=Budget(turns=2)), mode)
    assert state["stopped_by"] == "turns"
    assert said(state).endswith("result of q0")


@both
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_turns_are_counted(turns: int, mode: Mode) -> None:
    bench = Bench("small", steps=50)
    state = run(bench.agent(budget=Budget(turns=turns)), mode)
    assert state["stopped_by"] == "turns"
    before = [by for by, _ in decisions(state) if by != "closing"]
    assert before == (["router", "expert"] * 4)[: turns + turns % 2]


@both
def test_an_expert_that_is_too_dear_for_a_long_conversation_is_not_asked(mode: Mode) -> None:
    bench = Bench("large", "small")
    long = "What follows from this? " + "word " * 4000
    state = run(bench.agent(budget=Budget(dollars=0.02)), mode, long)
    first, second = state["turns"].values()
    assert next(iter(first["outcomes"].values()))["content"].startswith("not sent: large costs at least $0.05")
    assert second["decision"]["calls"][0]["tool"] == "small"
    assert bench.models["large"].books.requests == 0


@both
def test_a_tool_that_is_too_dear_is_not_called(mode: Mode) -> None:
    called: list[str] = []

    @tool("search")
    def dear(query: str) -> str:
        """Look something up."""
        called.append(query)
        return query

    bench = Bench("small", steps=1)
    state = run(bench.agent(budget=Budget(dollars=0.005), build={"tools": [dear]}), mode)
    turn = list(state["turns"].values())[1]
    [outcome] = turn["outcomes"].values()
    assert (called, outcome["unsent"]) == ([], True)
    assert "search" not in ledger_of(state)
    assert state["ledger"]["tools"].get("search", {}).get("calls", 0) == 0
    [result] = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    assert result.text.startswith("not sent: search costs at least $0.010000")


@both
def test_calls_of_one_message_are_paid_in_order(mode: Mode) -> None:
    calls = [("search", {"query": f"q{n}"}) for n in range(4)]
    model = ScriptedRouter([calls, "done"])
    experts = [Expert(model, name="one", price=Price(input=0.001, output=0.001))]
    mine = OrchestraMiddleware(Cheapest(), experts, catalog=_tools(), budget=Budget(dollars=2.5 * SEARCH))
    state = run(Bench().agent(mine=mine), mode)
    assert [m.status for m in state["messages"] if isinstance(m, ToolMessage)] == ["success"] * 2 + ["error"] * 2
    assert ledger_of(state)["search"] == pytest.approx(2 * SEARCH)


def test_time_ends_an_experts_call() -> None:
    experts = {"slow": ScriptedExpert("late", delay=5.0), "quick": ScriptedExpert("in time")}
    mine = OrchestraMiddleware(Fixed(tool="slow"), experts, budget=Budget(seconds=0.3), closing="quick")
    state = run(Bench().agent(mine=mine), "async")
    assert (said(state), state["stopped_by"]) == ("in time", "seconds")
    assert [by for by, _ in decisions(state)] == ["router", "closing"]
    assert state["ledger"]["wall_seconds"] < 0.5


@both
def test_modelled_time_counts(mode: Mode) -> None:
    slow = ScriptedRouter([("search", {"query": "q"})] * 9, seconds=10.0)
    mine = OrchestraMiddleware(Fixed(tool="slow"), {"slow": slow}, budget=Budget(seconds=25.0))
    state = run(Bench().agent(mine=mine), mode)
    assert said(state).startswith("The run was stopped: the budget's seconds are used up")
    assert said(state).endswith("result of q")
    assert 30.0 <= state["ledger"]["wall_seconds"] < 31.0


@both
def test_other_middleware_cannot_spend_what_is_not_there(mode: Mode) -> None:
    bench = Bench("small", small=["lost"] * 9)
    fallback = ModelFallbackMiddleware(bench.models["large"])
    retry = ModelRetryMiddleware(max_retries=8, initial_delay=0.0, jitter=False)
    state = run(bench.agent(fallback, retry, first=False, budget=Budget(dollars=0.02)), mode)
    assert state["stopped_by"] == "dollars"
    # A lost request may have been billed: it counts with the most that it can cost.
    assert bench.models["small"].books.requests <= 2


@both
def test_the_log_tells_why_it_ended(mode: Mode, tmp_path: Path) -> None:
    bench = Bench("large", steps=50)
    state = run(bench.agent(budget=Budget(dollars=0.03), run_log=RunLog(tmp_path / "runs.jsonl")), mode)
    [logged], _ = read(tmp_path / "runs.jsonl")
    assert (logged.stopped_by, logged.ended) == ("dollars", "answered")
    assert logged.turns == list(state["turns"].values())


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dollars=st.floats(0.0, 0.1),
    choices=st.lists(st.sampled_from(["small", "large", "backup", "no call"]), min_size=1, max_size=8),
    steps=st.integers(0, 6),
    small=st.lists(st.sampled_from(["answer", "lost", "refused"]), max_size=4),
)
def test_whatever_happens_the_agent_ends_within_its_budget(
    dollars: float, choices: list[str], steps: int, small: list[Any]
) -> None:
    """The budget holds but for the last requests: what they cost beyond their least price is known too late."""
    bench = Bench(*choices, steps=steps, small=small)
    fallbacks = {name: tuple({"small", "large", "backup"} - {name}) for name in ("small", "large", "backup")}
    state = run(bench.agent(budget=Budget(dollars=dollars), fallbacks=fallbacks), "sync")
    assert said(state)
    assert ledger_of(state) == pytest.approx({**bench.billed, **_found(state)})
    assert state["ledger"]["dollars"] <= dollars + cost("router") + cost("large") + cost("small") + SEARCH


def _searched(state: dict[str, Any]) -> float:
    return float(state["ledger"]["tools"]["search"]["dollars"])


def _found(state: dict[str, Any]) -> dict[str, float]:
    searched = state["ledger"]["tools"].get("search", {"dollars": 0.0})["dollars"]
    return {"search": searched} if searched else {}


def _tools() -> Catalog:
    return Catalog.of(
        [line for line in catalog().tools.values() if isinstance(line, ToolSpec) and line.kind != "expert"]
    )
