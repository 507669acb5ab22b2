"""Bounds: they hold what they claim, are paired, and count a task once however many runs it has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from orchestra_training.evaluate.bootstrap import Bootstrap, Draws, Table

DRAWS = 400


def mean(table: Table, **options: int) -> Draws:
    boot = Bootstrap(units=len(table), draws=DRAWS, **options)
    return boot.ratios({"mean": (table, np.ones_like(table))})["mean"]


@given(arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.floats(0, 1)))
def test_a_mean_lies_between_its_bounds_and_they_between_the_extremes(table: Table) -> None:
    found = mean(table).estimate
    assert found.value == pytest.approx(table.mean())
    assert table.min() - 1e-9 <= found.low <= found.high <= table.max() + 1e-9


def test_the_bounds_hold_the_truth_about_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        found = mean((rng.random((60, 1)) < 0.7).astype(float), seed=trial).estimate
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_differences_are_paired() -> None:
    """One router that is better by the same amount on every task is better for sure, however the tasks differ."""
    table = np.random.default_rng(1).random((50, 1))
    boot = Bootstrap(units=50, draws=DRAWS)
    one = np.ones_like(table)
    worse, better = (boot.ratios({"x": (t, one)})["x"] for t in (table, table + 0.01))
    difference = (better - worse).estimate
    assert difference.low == pytest.approx(0.01) == difference.high
    assert worse.estimate.high - worse.estimate.low > 0.1


def test_seeds_are_drawn_too() -> None:
    """Three seeds that differ, on tasks that do not: the bounds are those of the seeds."""
    table = np.tile([0.0, 0.5, 1.0], (100, 1))
    found = mean(table).estimate
    assert found.low < 0.2 and found.high > 0.8
    assert mean(table[:, 1:2]).estimate.low == 0.5 == mean(table[:, 1:2]).estimate.high


def test_the_seeds_of_two_routers_are_paired() -> None:
    """A training that adds the same to every seed adds it for sure, however the seeds differ."""
    before = np.tile([0.0, 0.5, 1.0], (20, 1))
    boot = Bootstrap(units=20, draws=DRAWS)
    one = np.ones_like(before)
    worse, alone, better = (
        boot.ratios({"x": (table, np.ones_like(table))})["x"] for table in (before, before[:, :1], before + 0.01)
    )
    difference = (better - worse).estimate
    assert difference.low == pytest.approx(0.01) == difference.high
    assert (better - alone).estimate.low < 0.2 < (better - alone).estimate.high
    others = boot.ratios({"x": (before[:, ::-1], one)})["x"]
    assert (others - worse).estimate.low < -0.3


def test_runs_of_one_task_are_drawn_together() -> None:
    """Ten runs a task that all end alike tell as little as one."""
    rng = np.random.default_rng(2)
    once = (rng.random((40, 1)) < 0.5).astype(float)
    boot = Bootstrap(units=40, draws=DRAWS)
    ten = boot.ratios({"x": (10 * once, 10 * np.ones_like(once))})["x"].estimate
    assert ten == mean(once).estimate


def test_a_ratio_that_is_not_there_is_told_as_such() -> None:
    nothing = np.zeros((5, 1))
    found = Bootstrap(units=5, draws=DRAWS).ratios({"x": (nothing, nothing)})["x"].estimate
    assert found.to_json() == {"value": None, "low": None, "high": None}


def test_the_same_seed_gives_the_same_bounds() -> None:
    table = np.random.default_rng(3).random((30, 2))
    assert mean(table, seed=4).estimate == mean(table, seed=4).estimate != mean(table, seed=5).estimate


def test_cost_ratios() -> None:
    boot = Bootstrap(units=30, draws=DRAWS)
    table = np.random.default_rng(4).random((30, 1)) + 0.5
    ones = np.ones_like(table)
    third = boot.ratios({"x": (table / 3, ones)})["x"] / boot.ratios({"x": (table, ones)})["x"]
    assert third.estimate.low == pytest.approx(1 / 3) == third.estimate.high
