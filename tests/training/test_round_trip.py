"""Workbench runs through run log, LangSmith and checkpoints: what is harvested is what the live ledgers said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.groups import group_id

from tests.benchmarks.round_trip import FIGURES, ROUTERS, Held, Live, Rows, figures, round_trip
from tests.training.runs import run


@pytest.mark.slow
def test_ledgers_verdicts_rows_and_fidelity_are_the_live_ones(tmp_path: Path) -> None:
    runs = 2 * len(ROUTERS)
    found = round_trip(runs, tmp_path, None)
    for name, row in found.items():
        assert (name, row.equal) == (name, dict.fromkeys(FIGURES, runs))
        assert row.is_whole(runs)
        assert row.tokens["rendered"] > 0
    assert {name: row.judged for name, row in found.items()} == {"run log": runs, "LangSmith": runs, "SQLite": 0}
    assert {name: row.tokens["own"] > 0 for name, row in found.items()} == {
        "run log": True,
        "LangSmith": False,
        "SQLite": False,
    }
    assert found["run log"].fidelity == {"exact": 2, "ids": 2, "text": 8}
    assert found["LangSmith"].fidelity == found["SQLite"].fidelity == {"text": runs}


@pytest.mark.parametrize(
    ("figure", "other"),
    [
        ("dollars", {"ledger": {"dollars": 0.25 + 1e-12}}),
        ("seconds", {"ledger": {"wall_seconds": 4.5 + 1e-12}}),
        ("calls", {"ledger": {"tools": {}}}),
        ("task", {"about": {"id": "t2"}}),
        ("group", {"group": "other"}),
        ("verdict", {"solved": False}),
        ("rows", {"own": Rows("other", 7)}),
        ("rows", {"rendered": Rows("other", 7)}),
        ("fidelity", {"fidelity": "ids"}),
    ],
)
def test_each_figure_that_differs_is_seen(figure: str, other: dict[str, Any]) -> None:
    ledger = {"dollars": 0.25, "seconds": 4.0, "wall_seconds": 4.5, "tools": {"large": {"calls": 1}}}
    sums = {"calls": 1, "attempts": 1, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
    amounts = {"dollars": 0.25, "uncertain_dollars": 0.0, "seconds": 4.0, "wall_seconds": 4.5}
    totals = {**sums, **amounts, "tools": {"large": {**sums, **amounts}}}
    told = {"source": "a", "task": "h", "fidelity": "text", "is_answered": True, "is_judged": True}
    harvested = run(totals=totals, harvest=told, purpose="train", group_id="g", rollout=0)
    rows = Rows("the same", 7)
    live = Live(
        ledger={**ledger, "tools": totals["tools"]},
        about={"id": "t1", "group_id": "g", "rollout": 0, "purpose": "train"},
        solved=True,
        group=group_id(harvested),
        fidelity="text",
        own=rows,
        rendered=rows,
    )
    held = Held(tokens=True, verdicts=True)
    assert figures(harvested, live, held, rows, rows) == dict.fromkeys(FIGURES, True)
    part: dict[str, Any] = {
        name: {**live.ledger, **value} if name == "ledger" else value for name, value in other.items()
    }
    assert figures(harvested, replace(live, **part), held, rows, rows) == {name: name != figure for name in FIGURES}
