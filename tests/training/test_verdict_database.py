from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from orchestra_training.verdicts import Visit, same_database
from orchestra_training.verdicts.values import difference

from orchestra_graph.workbench import Workbench

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
GOLDEN = Visit({"orders": {"o1": {"status": "cancelled", "total": 80}}}, frozenset({("orders", "o1")}))


def reason(verdict: Any) -> str:
    return str((verdict.model_extra or {}).get("reason", ""))


def test_all_three_criteria() -> None:
    verdict = same_database(GOLDEN, GOLDEN, said="I cancelled order o1; you get $80.", required=["o1", "80"])
    assert (verdict.outcome, verdict.by, reason(verdict)) == (1, "database", "")


def test_one_more_entry_may_be_touched() -> None:
    assert same_database(Visit(GOLDEN.content, GOLDEN.touched | {("users", "u1")}), GOLDEN).outcome == 1


@pytest.mark.parametrize(
    ("run", "said", "why"),
    [
        (Visit({"orders": {}}, GOLDEN.touched), "80", "orders/o1 is not there"),
        (Visit(GOLDEN.content), "80", "never touched: orders/o1"),
        (GOLDEN, "18000", "never said: 80"),
        (Visit({**GOLDEN.content, "users": {}}, GOLDEN.touched), "80", "users = {}; expected nothing there"),
    ],
)
def test_each_criterion_alone_decides(run: Visit, said: str, why: str) -> None:
    verdict = same_database(run, GOLDEN, said=said, required=["80"])
    assert verdict.outcome == 0
    assert reason(verdict).startswith(why)


def test_a_database_of_the_workbench() -> None:
    bench = Workbench()
    [task] = bench.tasks("train", 1, families=["records"])
    run, golden = bench.world(task).database, bench.world(task).database
    assert same_database(Visit(run.content()), Visit(golden.content())).outcome == 1
    golden.execute([("UPDATE customers SET credit = credit + 1 WHERE id = (SELECT MIN(id) FROM customers)", ())])
    verdict = same_database(Visit(run.content()), Visit(golden.content()))
    assert verdict.outcome == 0
    assert reason(verdict).startswith("customers/0/5 = ")


@given(JSON)
def test_a_value_equals_itself(value: Any) -> None:
    assert difference(value, value) is None


@pytest.mark.parametrize(("found", "same"), [(0.3 - 0.1 - 0.2, True), (1e-6, False), (-0.0, True)])
def test_a_sum_that_comes_to_nothing(found: float, same: bool) -> None:
    assert (difference({"balance": found}, {"balance": 0}) is None) == same
    assert difference(0, 6.6e-34) is not None


@given(JSON, JSON)
def test_difference_goes_both_ways(a: Any, b: Any) -> None:
    assume(0 not in (a, b))
    assert (difference(a, b) is None) == (difference(b, a) is None)
    if difference(a, b) is None:
        assert difference({"x": [a]}, {"x": [b]}) is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (1, 1.0),
        (0.1 + 0.2, 0.3),
        ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (float("nan"), float("nan")),
    ],
)
def test_values_that_are_alike(found: Any, expected: Any) -> None:
    assert difference(found, expected) is None


@pytest.mark.parametrize(
    ("found", "expected", "where"),
    [
        (True, 1, "value = True; expected 1"),
        (None, 0, "value = None; expected 0"),
        ("1", 1, "value = '1'; expected 1"),
        ([1], [1, 2], "value has 1 items; expected 2"),
        ({"a": {"b": [0]}}, {"a": {"b": [1]}}, "a/b/0 = 0; expected 1"),
        ({}, {"a": 1}, "a is not there; expected 1"),
        ({"a": 1}, {}, "a = 1; expected nothing there"),
        (float("nan"), 1.0, "value = nan; expected 1.0"),
        ({}, [], "value = {}; expected []"),
        (10**400, 1.0, "value = 1"),
    ],
)
def test_the_first_difference_is_told(found: Any, expected: Any, where: str) -> None:
    assert str(difference(found, expected)).startswith(where)
