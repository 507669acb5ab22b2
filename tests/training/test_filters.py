from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.filters import (
    LEAST_SPREAD,
    FilterReport,
    bad_format,
    for_evaluation,
    homogeneous,
    invalid_output,
    keep_runs,
    keep_turns,
    other_choice,
    stale,
    truncated,
    unjudged,
)

from orchestra_graph.errors import ConfigError
from orchestra_graph.state import NO_ANSWER
from tests.training.runs import decided, run


def problem(kind: str) -> dict[str, Any]:
    return {"problem": {"kind": kind, "detail": f"it is {kind}"}}


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({}, None),
        ({"ended": "failed", "answer": None, "error": "the server said 400"}, "failed"),
        ({"ended": "abandoned", "answer": None}, "abandoned"),
        ({"answer": None}, "no_answer"),
        ({"answer": " \n"}, "no_answer"),
        ({"answer": NO_ANSWER}, "no_answer"),
        ({"stopped_by": "router"}, "gave_up"),
        ({"stopped_by": "dollars"}, None),
    ],
)
def test_invalid_output(parts: dict[str, Any], kind: str | None) -> None:
    fault = invalid_output(run(**parts))
    assert (None if fault is None else fault.kind) == kind


@pytest.mark.parametrize(
    ("step", "kind"), [(10, None), (8, None), (7, "old"), (0, "old"), (11, "newer"), (None, "unknown")]
)
def test_stale(step: int | None, kind: str | None) -> None:
    fault = stale(step=10, steps=2)(run(policy={"name": "tiny", "step": step}))
    assert (None if fault is None else fault.kind) == kind


def test_a_run_without_a_policy_is_stale() -> None:
    fault = stale(step=10, steps=2)(run(policy=None))
    assert fault is not None and fault.kind == "unknown"


def test_stale_needs_steps() -> None:
    with pytest.raises(ConfigError, match=r"stale\(step=3, steps=-1\): expected numbers from 0 on"):
        stale(step=3, steps=-1)


def test_runs_for_evaluation_and_runs_not_judged() -> None:
    assert for_evaluation(run(purpose="evaluate")) is not None
    assert for_evaluation(run(purpose="serve")) is None
    unclear = unjudged(run(verdict={"outcome": None, "by": "judge:m"}))
    assert unclear is not None and unclear.detail == "no outcome by judge:m; expected one from 0 to 1"
    assert unjudged(run(verdict=None)) is not None
    assert unjudged(run(verdict={"outcome": 0.0, "by": "exact"})) is None


def test_every_run_is_kept_or_noted_with_its_reason() -> None:
    report = FilterReport()
    runs = [run("a"), run("b", purpose="evaluate", answer=None), run("c", answer=None), run("d", ended="abandoned")]
    assert [kept.run_id for kept in keep_runs(runs, [for_evaluation, invalid_output], report)] == ["a"]
    assert report.kept == 1
    assert [(dropped.id, dropped.fault.filter) for dropped in report.dropped] == [
        ("b", "for_evaluation"),
        ("c", "invalid_output"),
        ("d", "invalid_output"),
    ]
    assert report.dropped[1].fault.detail == "answer = None; expected a text"
    assert report.counts == {
        ("for_evaluation", "evaluate"): 1,
        ("invalid_output", "no_answer"): 1,
        ("invalid_output", "abandoned"): 1,
    }


def test_runs_are_filtered_one_at_a_time() -> None:
    taken = []

    def source() -> Any:
        for id in "abc":
            taken.append(id)
            yield run(id)

    kept = keep_runs(source(), [invalid_output], FilterReport())
    assert next(kept).run_id == "a" and taken == ["a"]


TURNS = [
    ({}, None, None),
    ({"by": "fallback"}, "other_choice", "fallback"),
    ({"by": "closing"}, "other_choice", "closing"),
    ({"by": "expert"}, "other_choice", "expert"),
    ({"repaired": ["read a call that was written as text"]}, "other_choice", "repaired"),
    (problem("router_error"), "other_choice", "router_error"),
    (problem("no_call"), "bad_format", "no_call"),
    (problem("unknown_tool"), "bad_format", "unknown_tool"),
    (problem("bad_arguments"), "bad_format", "bad_arguments"),
    (problem("too_many_calls"), "bad_format", "too_many_calls"),
    (problem("unreadable"), "bad_format", "unreadable"),
    (problem("truncated"), "truncated", "truncated"),
]


@pytest.mark.parametrize(("decision", "filter", "kind"), TURNS)
def test_turns(decision: dict[str, Any], filter: str | None, kind: str | None) -> None:
    report = FilterReport()
    kept = keep_turns(run(turns=[decided(0, ["search"], decision=decision), decided(1, ["large"])]), report)
    assert [turn["id"] for turn in kept] == (["r-0", "r-1"] if filter is None else ["r-1"])
    assert report.counts == ({} if filter is None else {(filter, kind): 1})
    assert [dropped.id for dropped in report.dropped] == ([] if filter is None else ["r-0"])


@pytest.mark.parametrize("kind", ["no_call", "truncated", "router_error"])
def test_each_problem_of_a_turn_is_one_filters_matter(kind: str) -> None:
    turn: Any = decided(0, decision=problem(kind))
    assert sum(check(turn) is not None for check in (other_choice, bad_format, truncated)) == 1


@pytest.mark.parametrize(
    ("rewards", "solved", "kind"),
    [
        ([1.0, 1.0, 1.0], [True] * 3, "all_solved"),
        ([0.0, 0.0], [False, False], "all_failed"),
        ([0.05, 0.0], [True, False], "mixed"),
        ([1.0], [True], "all_solved"),
        ([0.0], [False], "all_failed"),
        ([1.0, 0.0], [True, False], None),
        ([1.0, 1.5], [True, True], None),
    ],
)
def test_homogeneous(rewards: list[float], solved: list[bool], kind: str | None) -> None:
    fault = homogeneous(rewards, solved)
    assert (None if fault is None else fault.kind) == kind


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_a_group_stays_where_its_sample_deviation_is_large_enough(rewards: list[float]) -> None:
    stays = homogeneous(rewards, [True] * len(rewards)) is None
    assert stays == (statistics.stdev(rewards) >= LEAST_SPREAD)


def test_a_groups_fault_says_what_was_expected() -> None:
    fault = homogeneous([1.0], [True], floor=0.2)
    assert fault is not None
    assert fault.detail == "1 run, rewards with a deviation of 0; expected at least 0.2"
