from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.turns import merge_turns

IDS = st.sampled_from(["t-0", "t-1", "t-2"])
CALLS = st.sampled_from(["c0", "c1", "c2"])


def charge(key: str) -> dict[str, Any]:
    return {"tool": "search", "status": "paid", "dollars": float(len(key)), "seconds": 1.0}


@st.composite
def outcome_writes(draw: st.DrawFn) -> dict[str, Any]:
    """What one call's task writes: the same call always brings the same outcome."""
    turn, call, attempts = draw(IDS), draw(CALLS), draw(st.integers(1, 3))
    return {
        turn: {
            "id": turn,
            "outcomes": {call: {"content": f"{turn} {call}", "error": False}},
            "charges": {f"{call}#{n}": charge(f"{call}#{n}") for n in range(attempts)},
        }
    }


def decisions() -> dict[str, Any]:
    return {
        turn: {
            "id": turn,
            "index": index,
            "decision": {"calls": [], "reason": "", "by": "router"},
            "charges": {f"{turn}#0": charge(turn)},
            "outcomes": {},
            "seconds": 0.5,
        }
        for index, turn in enumerate(["t-0", "t-1", "t-2"])
    }


def merged(writes: list[dict[str, Any]]) -> dict[str, Any]:
    turns = decisions()
    for write in writes:
        turns = merge_turns(turns, write)
    return turns


@given(st.lists(outcome_writes(), max_size=6))
def test_merging_a_state_with_itself_changes_nothing(writes: list[dict[str, Any]]) -> None:
    turns = merged(writes)
    assert merge_turns(turns, turns) == turns


@given(st.lists(outcome_writes(), min_size=1, max_size=6), st.data())
def test_a_replayed_write_changes_nothing(writes: list[dict[str, Any]], data: st.DataObject) -> None:
    turns = merged(writes)
    assert merge_turns(turns, data.draw(st.sampled_from(writes))) == merge_turns(turns, {})


@given(st.lists(outcome_writes(), max_size=6), st.randoms())
def test_the_order_of_outcomes_does_not_matter(writes: list[dict[str, Any]], random: Any) -> None:
    # The same call with fewer attempts is a subset of the same write, so any order gives the union.
    shuffled = list(writes)
    random.shuffle(shuffled)
    assert merged(writes) == merged(shuffled)


@given(st.lists(outcome_writes(), max_size=6), outcome_writes())
def test_neither_argument_is_changed(writes: list[dict[str, Any]], write: dict[str, Any]) -> None:
    left, right = merged(writes), copy.deepcopy(write)
    before = copy.deepcopy(left)
    merge_turns(left, right)
    assert left == before
    assert right == write


def test_a_new_turn_is_added_and_the_others_stay() -> None:
    turns = merge_turns(decisions(), {"t-3": {"id": "t-3", "outcomes": {}, "charges": {}}})
    assert list(turns) == ["t-0", "t-1", "t-2", "t-3"]
    assert turns["t-0"] == decisions()["t-0"]


def test_several_charges_of_one_call_are_kept() -> None:
    first = {"t-0": {"id": "t-0", "charges": {"c0#0": charge("x")}}}
    second = {"t-0": {"id": "t-0", "charges": {"c0#1": charge("x")}}}
    assert set(merge_turns(merge_turns(decisions(), first), second)["t-0"]["charges"]) == {"t-0#0", "c0#0", "c0#1"}
