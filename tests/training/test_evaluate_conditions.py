"""Conditions: the same examples in every process, held out, and with what each condition promises."""

from __future__ import annotations

from collections import Counter

import pytest
from orchestra_training.evaluate.conditions import CONDITIONS, WorkbenchSet, standard_budgets
from orchestra_training.evaluate.routers import STRENGTH

from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.workbench import SKILLS, Workbench, solutions


@pytest.mark.parametrize("name", CONDITIONS)
def test_an_example_follows_from_its_place(name: str) -> None:
    first, second = (WorkbenchSet(name, tasks=4, seed=3) for _ in range(2))
    order = range(len(first))
    assert [first.example(i) for i in order] == [second.example(i) for i in reversed(order)][::-1]
    assert all(first.example(i).index == i and "/held_out/" in first.example(i).task_id for i in order)
    assert {first.example(i).unit for i in order} == set(range(4))
    assert WorkbenchSet(name, tasks=4, seed=4).example(0) != first.example(0)


def test_conditions_draw_more_and_more() -> None:
    fixed, prices, unseen = (WorkbenchSet(name, tasks=30) for name in ("in-distribution", "prices", "unseen"))
    catalog = Workbench().catalog
    assert {fixed.example(i).catalog for i in range(30)} == {catalog}
    assert len({prices.example(i).catalog for i in range(30)}) == 30
    assert set().union(*(prices.example(i).catalog.tools for i in range(30))) == set(SKILLS)
    assert not set().union(*(unseen.example(i).catalog.tools for i in range(30))) & set(SKILLS)
    assert any(unseen.example(i).preferences.text for i in range(30))
    assert all(s.example(i).preferences == Preferences() for s in (fixed, prices) for i in range(30))


def test_every_wish_has_its_twins() -> None:
    """The same task without the wish, and with the opposite one."""
    wishes = WorkbenchSet("preferences", tasks=16)
    examples = [wishes.example(i) for i in range(len(wishes))]
    kinds = Counter(example.kind for example in examples)
    counts = {"avoid": 8, "cheap": 2, "fast": 2, "accurate": 2, "prefer": 2}
    opposite = {"fast instead of cheap": 2, "cheap instead of fast": 2, "cheap instead of accurate": 2}
    assert kinds == {**counts, **{f"no {kind}": n for kind, n in counts.items()}, **opposite}
    for unit in range(16):
        wish, none, *other = [example for example in examples if example.unit == unit]
        assert len({(e.task_id, e.catalog) for e in (wish, none, *other)}) == 1
        assert wish.preferences.text and none.preferences == Preferences()
        assert [wishes.counts(e.kind) for e in (wish, none, *other)] == [True, False, *(False for _ in other)]
        assert bool(wish.preferences.avoid) == (wish.kind == "avoid")
        assert all(e.preferences.text and e.preferences != wish.preferences for e in other)


def test_a_budget_curve_limits_one_thing_at_a_time() -> None:
    curve = WorkbenchSet("budget", tasks=2, budgets=standard_budgets([1, 2], [0.001]))
    assert [curve.example(i).kind for i in range(len(curve))] == 2 * ["1 turn", "2 turns", "$0.001"]
    assert [curve.example(i).budget for i in range(3)] == [Budget(turns=1), Budget(turns=2), Budget(dollars=0.001)]
    assert len({curve.example(i).task_id for i in range(3)}) == 1


async def test_a_trial_has_a_world_of_its_own() -> None:
    fixed = WorkbenchSet("in-distribution", tasks=20)
    example = next(e for e in map(fixed.example, range(20)) if e.kind == "arithmetic")
    reference = Workbench().task(example.task_id).reference
    first, second = fixed.trial(example), fixed.trial(example)
    assert (await first.verdict(reference)).outcome == 1.0
    assert (await first.verdict(None)).outcome == 0.0
    assert first.tools[0] is not second.tools[0]


@pytest.mark.parametrize(("name", "tasks", "problem"), [("prise", 1, "expected one of"), ("prices", 0, "at least 1")])
def test_what_is_no_condition(name: str, tasks: int, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        WorkbenchSet(name, tasks=tasks)


def test_experts_are_ordered_by_what_they_solve() -> None:
    """Alone, with searches before them and one retry."""
    tasks = Workbench().tasks("train", 350)
    solves: Counter[str] = Counter()
    for task in tasks:
        for steps in solutions(task.question):
            own = [step for step in steps if step != "search"]
            if len(set(own)) == 1 and len(own) <= 2:
                solves[own[0]] += 1
    shares = [solves[name] for name in STRENGTH]
    assert shares == sorted(shares, reverse=True)
    assert solves.keys() - {"runner"} == set(STRENGTH)
