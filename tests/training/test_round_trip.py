"""Workbench runs through run log, LangSmith and checkpoints: what is harvested is what the live ledgers said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.round_trip import round_trip


@pytest.mark.slow
def test_dollars_seconds_calls_and_verdicts_are_the_live_ones(tmp_path: Path) -> None:
    found = round_trip(8, tmp_path, None)
    for name, row in found.items():
        assert (name, row["runs"], row["equal"], row["different"]) == (name, 8, 8, {})
        assert row["fidelity"] == {"text": 8}
        assert row["skipped"] == {}
    assert {name: row["judged"] for name, row in found.items()} == {"run log": 8, "LangSmith": 8, "SQLite": 0}
