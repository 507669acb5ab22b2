"""The events of a run are what `events` says: in order, and with each charge once."""

from __future__ import annotations

import json
from math import fsum
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from orchestra_graph import (
    Budget,
    Catalog,
    Expert,
    Limits,
    ModelSpec,
    Price,
    RunLog,
    Subgraph,
    ToolSpec,
    create_orchestrator,
)
from orchestra_graph.events import AnswerEvent, ChargeEvent, DecisionEvent, Event, OutcomeEvent
from orchestra_graph.meter import Meter
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter

QUESTION: Any = {"messages": [("user", "q")]}
SHAPES = {"decision": DecisionEvent, "outcome": OutcomeEvent, "charge": ChargeEvent, "answer": AnswerEvent}
PRICE = Price(per_call=0.25, input=10.0, output=10.0)


def look(word: str) -> str:
    """Look a word up."""
    return f"about {word}"


def solver(**options: Any) -> Any:
    """An orchestrator that looks something up twice, and asks an expert that fails once."""
    expert = ScriptedExpert([ConnectionError("down"), "<answer>42</answer>"])
    tools: list[Any] = [look, Expert(expert, name="expert", price=PRICE, limits=Limits(retries=1))]
    both: Any = [("look", {"word": "a"}), ("look", {"word": "b"})]
    return create_orchestrator(ScriptedRouter(["a remark", both, ("expert", {})]), tools, **options)


async def all_events_of(graph: Any, given: Any = QUESTION, **options: Any) -> list[Event]:
    return [event async for event in graph.astream(given, stream_mode="custom", **options)]


async def events_of(graph: Any, given: Any = QUESTION, **options: Any) -> list[Event]:
    return [event for event in await all_events_of(graph, given, **options) if event["type"] != "charge"]


def charges_of(events: list[Event]) -> list[tuple[str, float]]:
    told = [event["charges"] for event in events if event["type"] == "decision" or event["type"] == "outcome"]
    return [(key, charge["dollars"]) for charges in told for key, charge in charges.items()]


def ledger_of(events: list[Event]) -> float:
    answer = events[-1]
    assert answer["type"] == "answer"
    return answer["ledger"]["dollars"]


async def test_the_order_of_a_runs_events() -> None:
    events = await events_of(solver().compile())
    kinds = ["decision", "decision", "outcome", "outcome", "decision", "outcome", "answer"]
    assert [event["type"] for event in events] == kinds
    assert len({event["run"] for event in events if event["type"] != "charge"}) == 1
    assert json.loads(json.dumps(events)) == events


@pytest.mark.parametrize("budget", [Budget(), Budget(turns=1), Budget(dollars=0.3)])
async def test_every_event_has_the_documented_fields(budget: Budget) -> None:
    for event in await all_events_of(solver(budget=budget).compile()):
        assert set(event) == set(get_type_hints(SHAPES[event["type"]]))


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_each_charge_comes_once_and_their_sum_is_the_ledger(depth: int) -> None:
    graph = solver()
    for _ in range(depth):
        inner = Subgraph(graph.compile(), name="inner", terminal=True)
        graph = create_orchestrator(ScriptedRouter([("inner", {"request": "r"})]), [inner])
    events = await events_of(graph.compile())
    keys = [key for key, _ in charges_of(events)]
    assert len(keys) == len(set(keys)) >= 7
    assert fsum(dollars for _, dollars in charges_of(events)) == pytest.approx(ledger_of(events)) and ledger_of(events)


async def test_a_charge_is_told_as_soon_as_its_attempt_has_come_back() -> None:
    events = await all_events_of(solver().compile())
    alone = [(event["key"], event["charge"]["dollars"]) for event in events if event["type"] == "charge"]
    assert alone == charges_of(events)
    for event in events:
        if event["type"] == "charge":
            assert event["key"].startswith(f"{event['call']}#")
    # Of the try that failed, too, before the call has come back.
    assert [event["type"] for event in events[-6:]] == [*["charge"] * 4, "outcome", "answer"]


def test_a_charge_outside_of_a_graph_is_told_to_nobody() -> None:
    meter = Meter("c", "tool", ModelSpec(), price_of=lambda spec, model: PRICE)
    with meter.attempt():
        pass
    assert list(meter.charges) == ["c#0"]


async def test_a_run_that_waits_tells_the_rest_when_it_goes_on() -> None:
    graph = create_orchestrator(
        ScriptedRouter([[("look", {"word": "a"}), ("pay", {})], ("final_answer", {"answer": "42"})]),
        [look, Expert(ScriptedExpert("done"), name="pay", role="chat", price=PRICE)],
        approve={"pay": True},
    ).compile(InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    first = await events_of(graph, config=config)
    assert [event["type"] for event in first] == ["decision", "outcome"]
    approve: Any = Command(resume={"type": "approve"})
    rest = await events_of(graph, approve, config=config)
    assert [event["type"] for event in rest] == ["outcome", "decision", "answer"]
    told = [*charges_of(first), *charges_of(rest)]
    assert len(told) == len(dict(told))
    assert fsum(dollars for _, dollars in told) == pytest.approx(ledger_of(rest))


async def test_a_decision_that_came_too_late_is_told_with_its_charge(tmp_path: Path) -> None:
    router = ScriptedRouter([("look", {"word": "a"}), ("look", {"word": "b"})], seconds=6.0)
    catalog = Catalog.of([ToolSpec(name="look")], router=ModelSpec(model="m", price=Price(per_call=1.0)))
    log = RunLog(tmp_path / "runs.jsonl")
    graph = create_orchestrator(router, [look], catalog=catalog, budget=Budget(seconds=10.0), run_log=log).compile()
    events = await events_of(graph)
    assert sum(dollars for _, dollars in charges_of(events)) == ledger_of(events) == 2.0
