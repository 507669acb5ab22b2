"""Figures over runs."""

from __future__ import annotations

import pytest

from orchestra_graph import Catalog, Latency, Price, ToolSpec
from orchestra_graph.ledger import LedgerTotals, Totals
from orchestra_graph.report import RunFigures, summarise
from orchestra_graph.report.summary import priciest_tool

CATALOG = Catalog.of(
    [
        ToolSpec(name="tokens", price=Price(input=5, output=25)),
        ToolSpec(name="call", price=Price(per_call=0.002)),
        ToolSpec(name="slow", price=Price(per_second=0.001), latency=Latency(p50=20, p95=30)),
    ]
)


def row(calls: int, dollars: float = 0.0, wall: float = 0.0) -> Totals:
    return {
        "calls": calls,
        "attempts": calls,
        "input_tokens": 0,
        "cached_tokens": 0,
        "output_tokens": 0,
        "dollars": dollars,
        "uncertain_dollars": 0.0,
        "seconds": wall,
        "wall_seconds": wall,
    }


def run(*, solved: bool, calls: dict[str, int], dollars: float, wall: float, turns: int) -> RunFigures:
    tools = {name: row(n) for name, n in calls.items()}
    ledger: LedgerTotals = {**row(sum(calls.values()), dollars, wall), "tools": tools}
    return RunFigures(solved=solved, ledger=ledger, turns=turns)


def test_means_and_shares() -> None:
    runs = [
        run(solved=True, calls={"router": 2, "slow": 1, "call": 1}, dollars=0.3, wall=4.0, turns=2),
        run(solved=False, calls={"router": 3, "slow": 2, "final_answer": 1}, dollars=0.1, wall=2.0, turns=3),
    ]
    summary = summarise("r", runs, CATALOG)
    assert (summary.runs, summary.success, summary.turns) == (2, 0.5, 2.5)
    assert summary.dollars == pytest.approx(0.2)
    assert summary.seconds == pytest.approx(3.0)
    assert summary.shares == {"slow": 0.75, "call": 0.25}
    assert (summary.priciest, summary.priciest_share) == ("slow", 0.75)
    assert summary.to_json()["shares"] == {"slow": 0.75, "call": 0.25}


def test_a_run_without_calls() -> None:
    summary = summarise("r", [run(solved=False, calls={}, dollars=0.0, wall=0.0, turns=0)], CATALOG)
    assert (summary.priciest_share, summary.shares) == (0.0, {})


def test_the_priciest_tool_has_the_dearest_typical_call() -> None:
    assert priciest_tool(CATALOG) == "slow"
    assert priciest_tool(CATALOG.restrict(["tokens", "call"])) == "tokens"


def test_the_fallback_router_is_no_tool() -> None:
    summary = summarise(
        "r", [run(solved=True, calls={"fallback": 1, "slow": 1}, dollars=0.0, wall=0.0, turns=1)], CATALOG
    )
    assert summary.shares == {"slow": 1.0}
    assert summary.priciest_share == 1.0
