from __future__ import annotations

from typing import Any

import pytest
from orchestra_training.filters import FilterReport, homogeneous
from orchestra_training.groups import collect, example_id, group_id
from orchestra_training.reward import guarded, measure

from orchestra_graph.preferences import Preferences
from tests.training.runs import CATALOG, decided, run

OTHER = [
    {"task": {"id": "t2", "question": "What is 1 + 1?"}},
    {"task": {"id": "t1", "question": "What is 1 + 2?"}},
    {"catalog_hash": "other"},
    {"preferences": {"cost": 0.9}},
    {"preferences": {"text": "be quick"}},
    {"budget": {"dollars": 1.0}},
    {"policy": {"name": "tiny", "weights_hash": "w", "step": 4}},
    {"policy": {"name": "tiny", "weights_hash": "v", "step": 3}},
    {"policy": {"name": "large", "weights_hash": "w", "step": 3}},
    {"group_id": "g2"},
    {"protocol": "scan"},
]
UNREACHED = decided(0, decision={"problem": {"kind": "router_error", "detail": "gave no reply"}})


@pytest.mark.parametrize("parts", OTHER, ids=str)
def test_runs_that_were_given_something_else_are_in_another_group(parts: dict[str, Any]) -> None:
    assert group_id(run(**parts)) != group_id(run())


@pytest.mark.parametrize(
    "parts",
    [
        {"rollout": 5},
        {"answer": "3", "turns": [], "verdict": None},
        {"purpose": "evaluate"},
        {"seeds": {"sampling": 7}},
        {"budget": {"dollars": None, "seconds": None, "turns": 50}},
        {"catalog": CATALOG.model_dump(mode="json"), "catalog_hash": None},
    ],
    ids=str,
)
def test_what_a_run_did_and_how_it_was_drawn_is_not_part_of_its_group(parts: dict[str, Any]) -> None:
    assert group_id(run(**parts)) == group_id(run())


def test_the_order_of_preferences_does_not_matter() -> None:
    a, b = {"prefer": {"search": 1, "small": 0.5}}, {"prefer": {"small": 0.5, "search": 1}}
    assert group_id(run(preferences=a)) == group_id(run(preferences=b))


def test_an_example_is_the_same_for_all_policies() -> None:
    assert example_id(run(policy=None, protocol="scan", group_id="g")) == example_id(run())
    assert example_id(run(preferences={"cost": 0.9})) != example_id(run())


def test_collect_sorts_runs_into_groups_and_measures_them() -> None:
    report = FilterReport()
    second = {"task": {"id": "t2", "question": "Who?"}, "preferences": {"cost": 0.9}}
    runs = [run("a"), run("b", **second), run("c", verdict={"outcome": 0.0, "by": "exact"})]
    first, other = collect(runs, report)
    assert (first.run_ids, other.run_ids) == (["a", "c"], ["b"])
    assert first.measures == [measure(runs[0]), measure(runs[2])]
    assert (first.earned, other.preferences) == ([True, False], Preferences(cost=0.9))
    assert first.rewards(guarded) == [1.0, 0.0]
    assert (report.kept, report.dropped) == (3, [])


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"purpose": "evaluate"}, ("for_evaluation", "evaluate")),
        ({"verdict": None}, ("unjudged", "no_verdict")),
        ({"stopped_by": "router", "turns": [UNREACHED]}, ("unreached", "router_error")),
        ({"policy": None}, ("incomparable", "policy")),
        ({"catalog_hash": None}, ("incomparable", "catalog")),
    ],
)
def test_runs_that_are_in_no_group_are_counted(parts: dict[str, Any], why: tuple[str, str]) -> None:
    report = FilterReport()
    [group] = collect([run("a"), run("b", **parts)], report)
    assert group.run_ids == ["a"]
    assert (report.kept, report.counts) == (1, {why: 1})


def test_runs_for_evaluation_are_taken_when_told_so() -> None:
    [group] = collect([run("a", purpose="evaluate")], FilterReport(), evaluate=True)
    assert group.run_ids == ["a"]


def test_groups_are_filtered_by_their_rewards() -> None:
    failed = {"verdict": {"outcome": 0.0, "by": "exact"}}
    runs = [run("a"), run("b", **failed), *(run(id, group_id="g", **failed) for id in "cd")]
    report = FilterReport()
    groups = collect(runs, FilterReport())
    kept = [g for g in groups if report.passes(g.id, homogeneous(g.rewards(guarded), g.earned))]
    assert [group.run_ids for group in kept] == [["a", "b"]]
    assert report.counts == {("homogeneous", "all_failed"): 1}
