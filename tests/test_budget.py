"""What a budget lets through, and that a run whose budget is used up still ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from orchestra_graph.catalog import Catalog, Latency, ModelSpec, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Budget
from orchestra_graph.state import NO_ANSWER, OrchestratorContext, OrchestratorInput
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.provider import ANSWERED, LIMITS, PRICE, Paid, Provider, charges_of

State = dict[str, Any]


def again(*names: str) -> ScriptedRouter:
    """A router that gives the same reply for ever."""
    return ScriptedRouter(lambda messages: [(name, {}) for name in names])


async def run(
    router: Any, tools: Sequence[Tool], budget: Budget | None = None, *, context: Any = None, **options: Any
) -> State:
    graph = create_orchestrator(router, tools, budget=budget, **options).compile()
    state: State = await graph.ainvoke({"messages": [HumanMessage("q")]}, context=context)
    return state


def outcomes(state: State) -> list[dict[str, Any]]:
    return [outcome for turn in state["turns"].values() for outcome in turn["outcomes"].values()]


def by(state: State) -> list[str]:
    return [turn["decision"]["by"] for turn in state["turns"].values()]


# Turns.


@pytest.mark.parametrize("turns", [1, 2, 5])
async def test_turns_are_counted_and_the_closing_tool_answers(turns: int) -> None:
    look, close = Paid("look", 0.0), Paid("close", 0.0, answer="closed")
    state = await run(again("look"), [look, close], Budget(turns=turns))
    assert (state["stopped_by"], state["answer"]) == ("turns", "closed")
    assert by(state) == ["router"] * turns + ["closing"]
    assert (look.sent, close.sent) == (turns, 1)


async def test_without_a_terminal_tool_the_newest_result_is_the_answer() -> None:
    state = await run(again("look"), [Paid("look", 0.0)], Budget(turns=2))
    assert (state["stopped_by"], state["answer"]) == ("turns", "result of look")
    assert state["messages"][-1].text == "result of look"


async def test_replies_that_are_no_call_use_up_turns() -> None:
    state = await run(ScriptedRouter(lambda m: "hm"), [Paid("close", 0.0, answer="x")], Budget(turns=2))
    assert (state["stopped_by"], state["answer"], by(state)) == ("turns", "x", ["router", "router", "closing"])


# Dollars.


async def test_a_router_that_cannot_be_paid_is_not_asked() -> None:
    router = Provider(calls=[("look", {})])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    state = await run(
        router, [Paid("look", 0.0), Paid("close", 0.0, answer="x")], Budget(dollars=1e-6), catalog=catalog
    )
    assert router.books.requests == 0
    assert (state["stopped_by"], state["answer"], state["ledger"]["dollars"]) == ("dollars", "x", 0.0)


async def test_the_router_is_asked_until_its_price_no_longer_fits() -> None:
    router = Provider(calls=[("look", {})])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=Price(input=0.0, output=100.0), limits=LIMITS))
    state = await run(router, [Paid("look", 0.0)], Budget(dollars=0.0035), catalog=catalog)
    # 0.001 a reply, at least 0.0001: the fourth is sent with 0.0005 left.
    assert router.books.requests == 4
    assert state["stopped_by"] == "dollars"
    assert state["ledger"]["dollars"] == pytest.approx(0.004)


async def test_a_call_that_does_not_fit_is_not_sent_and_the_router_reads_why() -> None:
    dear, cheap = Paid("dear", 0.5), Paid("cheap", 0.1, answer="done")
    router = ScriptedRouter([("dear", {}), ("cheap", {})])
    state = await run(router, [dear, cheap], Budget(dollars=0.3))
    assert (dear.sent, cheap.sent) == (0, 1)
    assert (state["answer"], state["stopped_by"]) == ("done", "answer")
    first = outcomes(state)[0]
    assert first["unsent"]
    assert first["error"]
    told = [m.text for m in router.prompts[1] if isinstance(m, ToolMessage)]
    assert told[0].startswith("Error: not sent: dear costs at least $0.500000, and $0.200000 is left for it")
    assert state["ledger"]["tools"].keys() == {"router", "cheap"}


async def test_calls_of_one_reply_reserve_the_sum_of_their_least_costs() -> None:
    tool = Paid("tool", 0.4)
    state = await run(
        ScriptedRouter([[("tool", {})] * 3, ("final_answer", {"answer": "x"})]), [tool], Budget(dollars=1.0)
    )
    assert tool.sent == 2
    assert [o.get("unsent", False) for o in outcomes(state)[:3]] == [True, False, False]
    assert state["ledger"]["dollars"] == pytest.approx(0.8)


async def test_an_expert_reserves_what_it_will_read() -> None:
    expert = Expert(Provider(), name="expert", role="chat", price=Price(input=1000.0), limits=LIMITS)
    router = ScriptedRouter([("look", {}), ("expert", {}), ("final_answer", {"answer": "x"})])
    tools = [Paid("look", 0.0), expert]
    # "q" and "result of look" are 15 characters, so at least 4 tokens: $0.004.
    short = await run(router, tools, Budget(dollars=0.0039))
    assert outcomes(short)[1]["unsent"]
    assert "costs at least $0.004000" in outcomes(short)[1]["content"]


async def test_uncertain_attempts_count_with_their_upper_bound() -> None:
    lossy = Expert(Provider(script=["lost"] * 3), name="lossy", price=PRICE, limits=LIMITS)
    state = await run(again("lossy"), [lossy], Budget(dollars=0.1))
    assert Spent.of(state["turns"].values()).dollars > 0.1
    assert state["ledger"]["dollars"] == 0.0
    assert (state["stopped_by"], by(state)) == ("dollars", ["router"])


@pytest.mark.parametrize("dollars", [0.0, 0.001])
async def test_a_budget_below_any_call_ends_at_once(dollars: float) -> None:
    router = again("look")
    look, close = Paid("look", 0.5), Paid("close", 0.5, answer="x")
    state = await run(router, [look, close], Budget(dollars=dollars))
    assert (state["stopped_by"], state["answer"]) == ("dollars", NO_ANSWER)
    assert (look.sent, close.sent, len(router.prompts), state["turns"]) == (0, 0, 0, {})
    assert state["ledger"]["dollars"] == 0.0


async def test_a_zero_budget_still_pays_for_what_is_free() -> None:
    state = await run(again("look"), [Paid("look", 0.0), Paid("close", 0.0, answer="x")], Budget(dollars=0.0, turns=3))
    assert (state["stopped_by"], state["answer"], len(state["turns"])) == ("turns", "x", 4)


# Closing.


async def test_the_reserve_for_closing_is_kept() -> None:
    look, close = Paid("look", 0.1), Paid("close", 0.25, answer="closed")
    state = await run(again("look"), [look, close], Budget(dollars=0.6))
    assert (look.sent, close.sent) == (3, 1)
    assert (state["answer"], state["stopped_by"]) == ("closed", "dollars")
    assert state["ledger"]["dollars"] == pytest.approx(0.55)


async def test_a_reserve_of_more_than_half_the_budget_is_not_kept() -> None:
    look, close = Paid("look", 0.1), Paid("close", 0.4, answer="closed")
    state = await run(again("look"), [look, close], Budget(dollars=0.6))
    assert (look.sent, close.sent) == (6, 0)
    assert (state["answer"], state["stopped_by"]) == ("result of look", "dollars")


@pytest.mark.parametrize(("closing", "answer"), [(None, "cheap"), ("dear", "dear")])
async def test_the_cheapest_tool_closes_or_the_one_that_is_named(closing: str | None, answer: str) -> None:
    tools = [Paid("look", 0.1), Paid("dear", 0.2, answer="dear"), Paid("cheap", 0.01, answer="cheap")]
    state = await run(again("look"), tools, Budget(dollars=1.0), closing=closing)
    assert (state["answer"], state["stopped_by"], by(state)[-1]) == (answer, "dollars", "closing")
    assert state["ledger"]["dollars"] <= 1.0


async def test_a_named_closing_tool_that_cannot_be_paid_gives_way_to_a_cheaper_one() -> None:
    tools = [Paid("look", 0.3), Paid("dear", 0.9, answer="dear"), Paid("cheap", 0.2, answer="cheap")]
    state = await run(again("look"), tools, Budget(dollars=1.0), closing="dear")
    assert (state["answer"], state["stopped_by"]) == ("cheap", "dollars")


async def test_the_closing_tool_reads_the_evidence() -> None:
    closer = ScriptedExpert(lambda prompt: f"<answer>{'result of look' in prompt}</answer>")
    state = await run(again("look"), [Paid("look", 0.0), Expert(closer, name="close")], Budget(turns=1))
    assert state["answer"] == "True"


async def test_a_closing_tool_that_fails_leaves_the_newest_result() -> None:
    tools = [Paid("look", 0.0), Paid("close", 0.0, answer="x", fails=True)]
    state = await run(again("look"), tools, Budget(turns=1))
    assert (state["answer"], state["stopped_by"]) == ("result of look", "turns")
    assert outcomes(state)[-1]["error"]


async def test_a_router_that_gives_up_is_not_closed_at_a_price() -> None:
    close = Paid("close", 0.5, answer="x")
    state = await run(ScriptedRouter(lambda m: "hm"), [Paid("look", 0.0), close], fallback=None, max_malformed=2)
    assert (state["stopped_by"], close.sent, state["ledger"]["dollars"]) == ("router", 0, 0.0)


# Seconds.


async def test_a_running_call_is_cancelled_at_the_deadline_and_charged_for_what_is_known() -> None:
    slow = Expert(ScriptedExpert("<answer>late</answer>", delay=5.0), name="slow", price=PRICE, limits=LIMITS)
    started = time.perf_counter()
    state = await run(again("slow"), [slow], Budget(seconds=0.2))
    assert time.perf_counter() - started < 1.5
    assert (state["stopped_by"], state["answer"]) == ("seconds", NO_ANSWER)
    assert "cancelled after" in outcomes(state)[0]["content"]
    request = next(c for key, c in charges_of(state["turns"], "slow").items() if "." in key)
    assert (request["status"], request["dollars"]) == ("uncertain", 0.0)
    assert request["upper"] > 0
    assert state["ledger"]["wall_seconds"] == pytest.approx(0.2, abs=0.15)


async def test_a_router_is_cancelled_at_the_deadline() -> None:
    state = await run(ScriptedRouter([("look", {})], delay=5.0), [Paid("look", 0.0)], Budget(seconds=0.2))
    assert (state["stopped_by"], by(state)) == ("seconds", ["router"])
    assert state["turns"].popitem()[1]["decision"]["problem"]["kind"] == "router_error"


async def test_modelled_seconds_count_and_a_late_result_counts_as_none() -> None:
    look = Paid("look", 0.0, seconds=20.0)
    state = await run(again("look"), [look], Budget(seconds=50.0))
    assert look.sent == 3
    assert state["stopped_by"] == "seconds"
    assert [o["error"] for o in outcomes(state)] == [False, False, True]
    assert state["answer"] == "result of look"
    assert state["ledger"]["seconds"] == pytest.approx(60.0, abs=1.0)


async def test_time_for_closing_is_kept() -> None:
    look = Paid("look", 0.0, seconds=10.0)
    close = Paid("close", 0.0, seconds=14.0, answer="closed", latency=Latency(p50=15.0))
    state = await run(again("look"), [look, close], Budget(seconds=50.0))
    assert (look.sent, close.sent) == (4, 1)
    assert (state["stopped_by"], state["answer"]) == ("seconds", "closed")


async def test_a_closing_tool_that_would_take_too_long_is_not_called() -> None:
    close = Paid("close", 0.0, answer="closed", latency=Latency(p50=40.0))
    state = await run(again("look"), [Paid("look", 0.0, seconds=20.0), close], Budget(seconds=30.0))
    assert (close.sent, state["answer"]) == (0, "result of look")


async def test_calls_side_by_side_take_the_time_of_the_slowest() -> None:
    tools = [Paid("a", 0.0, seconds=10.0), Paid("b", 0.0, seconds=30.0)]
    router = ScriptedRouter([[("a", {}), ("b", {})], ("final_answer", {"answer": "x"})])
    state = await run(router, tools, Budget(seconds=35.0))
    assert (state["answer"], state["stopped_by"]) == ("x", "answer")
    assert state["ledger"]["wall_seconds"] == pytest.approx(30.0, abs=0.5)


async def test_a_pause_that_passes_the_deadline_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra_graph.attempts.FIRST_PAUSE", 20.0)
    started = time.perf_counter()
    state = await run(
        ScriptedRouter([("broken", {}), ("final_answer", {"answer": "x"})]),
        [Paid("broken", 0.0, fails=True)],
        Budget(seconds=5.0),
    )
    assert time.perf_counter() - started < 2.0
    assert outcomes(state)[0]["content"] == "broken"


# Budgets of a run.


async def test_a_budget_of_the_context_replaces_that_of_the_graph() -> None:
    look = Paid("look", 0.1)
    state = await run(again("look"), [look], Budget(turns=50), context={"budget": {"dollars": 0.35}})
    assert (look.sent, state["stopped_by"]) == (3, "dollars")
    state = await run(again("look"), [look], context={"budget": Budget(turns=1)})
    assert (look.sent, state["stopped_by"]) == (4, "turns")


async def test_concurrent_runs_have_budgets_of_their_own() -> None:
    graph = create_orchestrator(again("look"), [Paid("look", 0.1)]).compile()
    question: OrchestratorInput = {"messages": [HumanMessage("q")]}
    budgets = [Budget(dollars=n / 10 + 0.05) for n in range(1, 8)]
    contexts: list[OrchestratorContext] = [{"budget": budget} for budget in budgets]
    states = await asyncio.gather(*(graph.ainvoke(question, context=context) for context in contexts))
    assert [round(state["ledger"]["dollars"], 6) for state in states] == [round(n / 10, 6) for n in range(1, 8)]


async def test_a_fallback_tool_is_called_only_if_it_fits() -> None:
    broken, dear = Paid("broken", 0.0, fails=True, fallback=("dear",)), Paid("dear", 0.5)
    state = await run(
        ScriptedRouter([("broken", {}), ("final_answer", {"answer": "x"})]), [broken, dear], Budget(dollars=0.1)
    )
    assert dear.sent == 0
    assert state["ledger"]["dollars"] <= 0.1


async def test_a_fallback_expert_is_asked_only_if_what_it_will_read_fits() -> None:
    asked = Provider()
    first = Expert(Provider(script=["invalid"]), name="first", role="chat", fallback=("dear",), limits=LIMITS)
    dear = Expert(asked, name="dear", role="chat", price=Price(input=1000.0), limits=LIMITS)
    router = ScriptedRouter([("look", {}), ("first", {}), ("final_answer", {"answer": "x"})])
    # "q" and "result of look" are at least 4 tokens: $0.004.
    state = await run(router, [Paid("look", 0.0), first, dear], Budget(dollars=0.0039))
    assert asked.books.requests == 0
    assert "dear: not sent: costs at least $0.004000, and $0.003900 is left" in outcomes(state)[1]["content"]


async def test_a_lost_request_is_not_sent_again_where_what_is_left_does_not_pay_for_reading() -> None:
    lossy = Provider(script=["lost"] * 3)
    expert = Expert(lossy, name="expert", role="chat", price=Price(input=1000.0), limits=LIMITS)
    router = ScriptedRouter([("expert", {}), ("final_answer", {"answer": "x"})])
    graph = create_orchestrator(router, [expert], budget=Budget(dollars=0.2)).compile()
    # The question alone is $0.101, so what the first try may have cost leaves too little for a second one.
    state = await graph.ainvoke({"messages": [HumanMessage("q" * 400)]})
    assert lossy.books.requests == 1
    assert 0.1 < Spent.of(state["turns"].values()).dollars <= 0.2


# Nested orchestrators.


def nested(name: str, look: Tool, **spec: Any) -> Subgraph:
    return Subgraph(create_orchestrator(again("look"), [look]).compile(), name=name, takes_request=False, **spec)


async def test_a_nested_orchestrator_stays_within_the_budget_around_it() -> None:
    look = Paid("look", 0.1)
    state = await run(again("inner"), [nested("inner", look)], Budget(dollars=0.55, turns=10))
    assert look.sent == 5
    assert state["answer"] == "result of look"
    assert outcomes(state)[-1]["content"].startswith("No answer")
    assert state["ledger"]["dollars"] == pytest.approx(0.5)


async def test_nested_orchestrators_of_one_reply_share_what_is_left() -> None:
    look = Paid("look", 0.1)
    tools = [nested("one", look), nested("two", look), nested("three", look)]
    state = await run(again("one", "two", "three"), tools, Budget(dollars=1.0))
    assert look.sent == 9
    assert state["ledger"]["dollars"] == pytest.approx(0.9)


async def test_a_nested_orchestrator_stays_within_the_seconds_around_it() -> None:
    look = Paid("look", 0.0, seconds=10.0)
    state = await run(again("inner"), [nested("inner", look)], Budget(seconds=35.0))
    assert look.sent <= 4
    assert state["stopped_by"] == "seconds"


async def test_a_nested_orchestrator_can_close_a_run_without_turns_left() -> None:
    inner = nested("inner", Paid("look", 0.0), terminal=True)
    state = await run(again("other"), [Paid("other", 0.0), inner], Budget(turns=2))
    assert (state["stopped_by"], state["answer"], by(state)[-1]) == ("turns", "result of look", "closing")


async def test_a_call_is_told_what_it_may_spend() -> None:
    look, close = Paid("look", 0.1), Paid("close", 0.2, answer="x")
    await run(ScriptedRouter([("look", {}), ("close", {})]), [look, close], Budget(dollars=1.0, turns=5))
    assert look.left == [{"dollars": pytest.approx(0.8), "seconds": None, "turns": 5}]
    assert close.left == [{"dollars": pytest.approx(0.9), "seconds": None, "turns": 4}]


async def test_the_budget_of_a_decision_with_a_paid_router_is_checked_with_the_calls() -> None:
    router = Provider(calls=[("look", {})])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    look = Paid("look", 0.01)
    state = await run(router, [look], Budget(dollars=0.0125), catalog=catalog)
    # After one decision $0.0105 are left: the call fits; after it nothing does.
    assert look.sent == 1
    assert state["ledger"]["dollars"] == pytest.approx(0.01 + router.books.answered * ANSWERED)
    assert state["stopped_by"] == "dollars"
