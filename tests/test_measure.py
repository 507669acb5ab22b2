"""Latencies measured out of a run log."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra_graph import Catalog, Expert, Latency, RunLog, Subgraph, ToolError, create_orchestrator
from orchestra_graph.runlog.measure import seconds_by_tool
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter


async def runs(log: Path, count: int, expert: ScriptedExpert) -> Catalog:
    solver = Expert(expert, name="solver")
    graph = create_orchestrator(
        ScriptedRouter([("solver", {}), ("solver", {})], stateless=True), [solver], run_log=RunLog(log), fallback=None
    ).compile()
    for _ in range(count):
        await graph.ainvoke({"messages": [("user", "2 + 2?")]})
    return Catalog.of([solver.spec])


async def test_latency_is_replaced_when_enough_runs_exist(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    catalog = await runs(log, 25, ScriptedExpert("<answer>4</answer>", seconds=7.5))
    seconds = seconds_by_tool(log)
    assert len(seconds["solver"]) == 25
    assert seconds["solver"] == pytest.approx([7.5] * 25, abs=0.5)
    measured = catalog.with_measured_latency(seconds).tools["solver"].latency
    assert measured.source == "measured"
    assert measured.p50 == pytest.approx(7.5, abs=0.5)
    assert catalog.with_measured_latency(seconds, at_least=26).tools["solver"].latency == Latency()


async def test_the_time_of_an_orchestrator_is_that_of_its_calls(tmp_path: Path) -> None:
    solver = Expert(ScriptedExpert("<answer>4</answer>", seconds=7.5), name="solver")
    inner = create_orchestrator(ScriptedRouter([("solver", {})]), [solver]).compile(name="inner")
    log = tmp_path / "runs.jsonl"
    outer = create_orchestrator(
        ScriptedRouter([("inner", {"request": "2 + 2?"})]), [Subgraph(inner, terminal=True)], run_log=RunLog(log)
    )
    await outer.compile().ainvoke({"messages": [("user", "2 + 2?")]})
    assert seconds_by_tool(log)["inner"] == pytest.approx([7.5], abs=0.5)


async def test_failed_calls_do_not_count(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    await runs(log, 3, ScriptedExpert([ToolError("broken"), "<answer>4</answer>"] * 3, seconds=2.0))
    assert seconds_by_tool(log)["solver"] == pytest.approx([2.0] * 3, abs=0.5)
