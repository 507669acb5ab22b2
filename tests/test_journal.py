"""Keys of charges, what is known of earlier tries, and which runs are known to be new."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph import journal
from orchestra_graph.journal import Started, best_known, lost, next_try, of_owner, owner_of
from orchestra_graph.turns import Charge

PAID: Charge = {"tool": "a", "status": "paid", "dollars": 1.0, "seconds": 1.0}
LOST = lost("a", 2.0)


def test_a_key_names_its_owner() -> None:
    keys = ["r-1#0", "r-1#0.0", "r-1-0#2.1", "r-1-0/i-0#0.0", "r-1-0/i-0-0/j-0#1"]
    assert list(map(owner_of, keys)) == ["r-1", "r-1", "r-1-0", "r-1-0", "r-1-0"]


def test_a_turn_owns_the_charges_of_its_calls_and_a_call_its_own() -> None:
    charges = dict.fromkeys(["r-1#0", "r-1-0#0", "r-1-0/i-0#0", "r-1-1#0", "r-10#0", "r-10-0#0", "r-2#0"], PAID)
    assert list(of_owner("r-1", charges)) == ["r-1#0", "r-1-0#0", "r-1-0/i-0#0", "r-1-1#0"]
    assert list(of_owner("r-1-0", charges)) == ["r-1-0#0", "r-1-0/i-0#0"]


def test_the_next_try_comes_after_all_of_the_owners_own() -> None:
    charges = dict.fromkeys(["c#0", "c#10", "c#9.3", "c/i#20", "c-1#30"], PAID)
    assert (next_try("c", charges), next_try("d", charges), next_try("c", {})) == (11, 0, 0)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from([PAID, LOST]))))
def test_what_came_back_is_never_taken_for_lost(sources: list[dict[str, Charge]]) -> None:
    known = best_known(*sources)
    assert known.keys() == {key for source in sources for key in source}
    for key, charge in known.items():
        assert (charge == PAID) == any(source.get(key) == PAID for source in sources)


def test_a_task_begins_for_the_first_time_once_in_a_run_that_began_here() -> None:
    started = Started()
    started.add("r")
    assert [started.is_first("r", owner) for owner in ("a", "b", "a")] == [True, True, False]
    assert not started.is_first("another", "a")
    started.discard("r")
    started.discard("r")
    assert not started.is_first("r", "c")


def test_runs_that_never_end_are_forgotten_the_oldest_first() -> None:
    started = Started()
    for n in range(journal._MOST_STARTED + 10):
        started.add(f"r{n}")
    assert len(started) == journal._MOST_STARTED
    assert not started.is_first("r9", "a")
    assert started.is_first("r10", "a")
