"""Whole runs: every field of a price is billed, retries and deadlines stay within the budget, closing goes on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from orchestra_graph import (
    Budget,
    Catalog,
    ConfigError,
    Expert,
    Latency,
    ModelSpec,
    Price,
    ToolError,
    ToolSpec,
    create_orchestrator,
)
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter

PRICE = Price(input=1000.0, output=2000.0, per_call=0.5, per_second=0.01)


async def test_router_and_expert_pay_tokens_calls_and_seconds() -> None:
    expert = Expert(ScriptedExpert("<answer>4</answer>", seconds=10.0), name="expert", price=PRICE)
    router = ScriptedRouter([("expert", {})], seconds=20.0)
    catalog = Catalog.of([expert.spec], router=ModelSpec(model="m", price=PRICE))
    state = (
        await create_orchestrator(router, [expert], catalog=catalog)
        .compile()
        .ainvoke({"messages": [("user", "2 + 2?")]})
    )
    for name, seconds in (("router", 20.0), ("expert", 10.0)):
        totals = state["ledger"]["tools"][name]
        tokens = (totals["input_tokens"] * 1000.0 + totals["output_tokens"] * 2000.0) / 1e6
        assert totals["dollars"] == pytest.approx(tokens + 0.5 + 0.01 * totals["seconds"]), name
        assert seconds <= totals["seconds"] < seconds + 5  # and what this machine took for it


async def test_a_model_on_a_server_of_ones_own_has_no_price_of_a_provider() -> None:
    spec = ToolSpec(name="expert", kind="expert", model="gpt-4o", base_url="http://localhost:8000/v1", terminal=True)
    expert = Expert(ScriptedExpert("<answer>4</answer>"), name="expert")
    state = (
        await create_orchestrator(ScriptedRouter([("expert", {})]), [expert], catalog=Catalog.of([spec]))
        .compile()
        .ainvoke({"messages": [("user", "2 + 2?")]})
    )
    assert state["ledger"]["dollars"] == 0.0


async def test_retries_stay_within_the_budget() -> None:
    class Reset(ConnectionError):
        """Broke after it was sent: may have been billed."""

    expert = Expert(
        ScriptedExpert([Reset("reset")] * 4),
        name="expert",
        price=Price(output=1000.0),
        limits={"retries": 3, "output_tokens": 10},
    )
    state = (
        await create_orchestrator(
            ScriptedRouter([("expert", {})]), [expert], budget=Budget(dollars=0.0205), fallback=None
        )
        .compile()
        .ainvoke({"messages": [("user", "2 + 2?")]})
    )
    assert state["ledger"]["uncertain_dollars"] == pytest.approx(0.02)


async def test_the_deadline_leaves_the_closing_tool_its_time() -> None:
    async def hang(city: str) -> str:
        """Hang."""
        await asyncio.sleep(30)
        return city

    small = Expert(
        ScriptedExpert("<answer>ok</answer>"), name="small", price=Price(input=1.0), latency=Latency(p50=0.3, p95=0.6)
    )
    router = ScriptedRouter([("hang", {"city": "Bern"}), ("small", {})])
    state = (
        await create_orchestrator(router, [hang, small], budget=Budget(seconds=1))
        .compile()
        .ainvoke({"messages": [("user", "Weather in Bern?")]})
    )
    assert (state["answer"], state["stopped_by"]) == ("ok", "seconds")


async def test_the_next_closing_tool_is_asked_when_one_fails() -> None:
    cheap = Expert(ScriptedExpert([ToolError("broken")] * 9), name="cheap", price=Price(input=0.1))
    dear = Expert(ScriptedExpert("<answer>found</answer>"), name="dear", price=Price(input=1.0))

    def look(city: str) -> str:
        """Look."""
        return f"nothing in {city}"

    router = ScriptedRouter([("look", {"city": "Bern"})] * 2)
    graph = create_orchestrator(router, [look, cheap, dear], budget=Budget(turns=1, dollars=1.0)).compile()
    events = [e async for e in graph.astream({"messages": [("user", "?")]}, stream_mode="custom")]
    assert events[-1]["answer"] == "found"
    assert [e["call"]["tool"] for e in events if e["type"] == "outcome"] == ["look", "cheap", "dear"]


async def test_unknown_words_in_the_context_are_refused() -> None:
    expert = Expert(ScriptedExpert("<answer>4</answer>"), name="expert")
    graph = create_orchestrator(ScriptedRouter([("expert", {})]), [expert]).compile()
    with pytest.raises(ConfigError, match="'prefs'; expected preferences, budget, task"):
        await graph.ainvoke({"messages": [("user", "2 + 2?")]}, context=cast(Any, {"prefs": {}}))
