from __future__ import annotations

from typing import Any

import pytest
from orchestra_training.groups import Reward
from orchestra_training.reward import guarded, measure, paper
from orchestra_training.reward.credit import answered_by_policy, not_chosen

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.ledger import totals
from orchestra_graph.preferences import Preferences
from tests.training.runs import CATALOG, charge, decided, run

REPAIRED = {"repaired": ["read a call that was written as text"]}
NO_REPLY = {"problem": {"kind": "router_error", "detail": "no reply"}}


def test_a_run_comes_to_what_its_ledger_says() -> None:
    lost = charge("search", 0.002, 0.5, status="uncertain", upper=0.3)
    turns: list[Any] = [decided(0, ["search", "search"]), decided(1, ["large"])]
    turns[0]["charges"]["r-0-0#1"] = lost
    measured, ledger = measure(run(turns=turns)), totals({turn["id"]: turn for turn in turns})
    assert (measured.dollars, measured.seconds) == (ledger["dollars"], ledger["seconds"])
    assert measured.wall_seconds == ledger["wall_seconds"]
    assert measured.calls == {"search": 2, "large": 1} == measured.chosen
    assert {name: ledger["tools"][name]["calls"] for name in measured.calls} == measured.calls


def test_the_final_answers_call_is_charged() -> None:
    only_search = measure(run(turns=[decided(0, ["search"])]))
    assert measure(run()).dollars - only_search.dollars == pytest.approx(0.015)


@pytest.mark.parametrize("reward", [paper, guarded])
def test_a_dearer_attempt_anywhere_in_a_run_earns_it_less(reward: Reward) -> None:
    """Of the router or a tool, in the first turn or in the one that answers."""
    cheap, dear = (
        measure(run(turns=[decided(0, ["large"])])),
        measure(run(turns=[decided(n, ["large"]) for n in range(4)])),
    )
    before = reward([cheap, measure(run()), dear], Preferences())[1]
    keys = [(n, key) for n, turn in enumerate(run().turns) for key in turn["charges"]]
    assert len(keys) == 4
    for n, key in keys:
        turns: list[Any] = [decided(0, ["search"]), decided(1, ["large"])]
        turns[n]["charges"][key]["dollars"] += 0.01
        after = reward([cheap, measure(run(turns=turns)), dear], Preferences())[1]
        assert after < before


@pytest.mark.parametrize("part", ["unsent", "rejected"])
def test_a_call_that_was_never_sent_does_not_count(part: str) -> None:
    measured = measure(run(turns=[decided(0, ["search"], outcome={part: True}), decided(1, ["large"])]))
    assert measured.calls == measured.chosen == {"large": 1}


def test_a_call_without_an_outcome_does_not_count() -> None:
    assert measure(run(turns=[decided(0, ["search"], outcomes={}), decided(1, ["large"])])).calls == {"large": 1}


def test_a_tool_that_answered_for_another_was_called_but_not_chosen() -> None:
    measured = measure(run(turns=[decided(0, ["search"], outcome={"by": "small"}), decided(1, ["large"])]))
    assert measured.calls == {"search": 1, "small": 1, "large": 1}
    assert measured.chosen == {"search": 1, "large": 1}


OTHERS = [
    ({"by": "fallback"}, "fallback"),
    ({"by": "closing"}, "closing"),
    ({"by": "expert"}, "expert"),
    (REPAIRED, "repaired"),
    (NO_REPLY, "router_error"),
]


@pytest.mark.parametrize(("decision", "why"), OTHERS)
def test_turns_of_others_are_charged_and_earn_no_use(decision: dict[str, Any], why: str) -> None:
    measured = measure(run(turns=[decided(0, ["search"], decision=decision), decided(1, ["large"])]))
    assert measured.calls == {"search": 1, "large": 1}
    assert measured.chosen == {"large": 1}
    assert measured.dollars == measure(run()).dollars
    assert measured.earned
    turn: Any = decided(0, ["search"], decision=decision)
    assert not_chosen(turn) == why


@pytest.mark.parametrize(("decision", "why"), [other for other in OTHERS if other[1] != "expert"])
def test_an_answer_of_others_earns_no_outcome(decision: dict[str, Any], why: str) -> None:
    measured = measure(run(turns=[decided(0, ["search"]), decided(1, ["large"], decision=decision)]))
    assert (measured.solved, measured.earned) == (True, False)


def test_an_experts_answer_is_earned_by_the_turn_that_chose_the_expert() -> None:
    by_expert = decided(1, ["final_answer"], decision={"by": "expert"})
    assert measure(run(turns=[decided(0, ["large"]), by_expert])).earned
    assert not measure(run(turns=[decided(0, ["large"], decision={"by": "fallback"}), by_expert])).earned
    assert not measure(run(turns=[by_expert])).earned


@pytest.mark.parametrize("stopped_by", ["dollars", "seconds", "turns", "router"])
def test_a_run_that_was_stopped_earns_no_outcome(stopped_by: str) -> None:
    measured = measure(run(stopped_by=stopped_by))
    assert (measured.solved, measured.earned) == (True, False)


def test_sources_that_do_not_say_what_stopped_a_run_are_believed() -> None:
    assert answered_by_policy(run(stopped_by=None))
    assert not answered_by_policy(run(turns=[]))
    assert not answered_by_policy(run(ended="abandoned"))
    assert not answered_by_policy(run(turns=[decided(0)]))


@pytest.mark.parametrize(("outcome", "solved"), [(1.0, True), (0.99, False), (0.5, False), (0.0, False)])
def test_half_a_solution_is_none(outcome: float, solved: bool) -> None:
    measured = measure(run(verdict={"outcome": outcome, "by": "judge"}))
    assert (measured.solved, measured.earned) == (solved, solved)


@pytest.mark.parametrize("verdict", [None, {"outcome": None, "by": "judge"}])
def test_a_run_that_was_not_judged_cannot_be_measured(verdict: Any) -> None:
    with pytest.raises(ConfigError, match=r"^run r: verdict = None; expected an outcome.*fix: judge the run first$"):
        measure(run(verdict=verdict))


def test_dollars_relative_to_the_dearest_tool_of_the_catalog() -> None:
    """A typical call of it costs $0.02: 300 tokens in, 100 out."""
    priced = {"search": Price(per_call=0.001), "large": Price(input=20.0, output=140.0), "small": Price(input=1.0)}
    catalog = Catalog.of([ToolSpec(name=name, price=price) for name, price in priced.items()])
    measured = measure(run(catalog=catalog))
    assert measured.relative_dollars == pytest.approx(measured.dollars / 0.02)
    assert measure(run()).relative_dollars == 0.0  # whose catalog is not in the log
    assert measure(run(catalog=CATALOG)).relative_dollars == 0.0  # whose tools cost nothing
