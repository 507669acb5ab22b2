"""The standard conditions of the paper, on the workbench.

    in-distribution  the fixed catalog, held-out phrasings of the tasks; kinds are the families of tasks
    prices           fixed names and descriptions; which tools there are, prices and latencies are drawn
    unseen           names, descriptions, mixes, prices and users' wishes are drawn, in held-out phrasings
    preferences      as unseen, each task with a wish that counts; kinds are the wishes. Every second one is to avoid a
                     tool that the best plan would call. For comparison each task is run again without the wish
                     (`no avoid`, ...), and with the opposite one (`fast instead of cheap`, ...)
    budget           the fixed catalog, each task under several limits of turns and dollars; kinds are the limits

The workbench is a simulated economy: its figures say nothing of real models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.workbench import Episode, Workbench
from orchestra_graph.workbench.sample import Aspect
from orchestra_graph.workbench.wishes import WishKind, wish_for
from orchestra_training.evaluate.examples import Example, ExampleSet, Trial
from orchestra_training.verdicts.ruling import ruling

CONDITIONS: Final = ("in-distribution", "prices", "unseen", "preferences", "budget")
TURN_LIMITS: Final = (1, 2, 3, 4, 6, 10)
DOLLAR_LIMITS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01)
WITHOUT: Final = "no "
"""Begins the kind of an example that is there for comparison: the same task without the wish."""
INSTEAD: Final = " instead of "
"""Between two wishes, the kind of an example that is there for comparison: the same task with the first of them."""

_WISHES: Final[tuple[WishKind, ...]] = ("avoid", "cheap", "avoid", "fast", "avoid", "accurate", "avoid", "prefer")
_OPPOSITE: Final[dict[WishKind, WishKind]] = {"cheap": "fast", "fast": "cheap", "accurate": "cheap"}
_VARIED: Final[dict[str, tuple[Aspect, ...]]] = {
    "prices": ("tools", "prices"),
    "unseen": ("tools", "prices", "names", "wishes"),
    "preferences": ("tools", "prices", "names"),
}


class WorkbenchSet(ExampleSet):
    """One condition.

    Args:
        name: One of `CONDITIONS`.
        tasks: How many tasks; a condition may have several examples a task.
        seed: Another seed gives other tasks, catalogs and wishes.
        budgets: Limits of the condition `budget`.

    Raises:
        ConfigError: There is no such condition, or no task.
    """

    origin = "the workbench"
    split = "held_out"

    def __init__(self, name: str, *, tasks: int, seed: int = 0, budgets: Sequence[Budget] = ()) -> None:
        if name not in CONDITIONS:
            raise ConfigError(f"condition {name!r}; expected one of {', '.join(CONDITIONS)}")
        if tasks < 1:
            raise ConfigError(f"tasks = {tasks}; expected at least 1")
        self.name = name
        self.seed = seed
        self._budgets = tuple(budgets) or standard_budgets()
        self._bench = Workbench()
        self._places = [(unit, variant) for unit in range(tasks) for variant in range(self._variants(unit))]
        self._episode = lru_cache(maxsize=64)(self._draw)

    def __len__(self) -> int:
        return len(self._places)

    def example(self, index: int) -> Example:
        """The example at a place."""
        unit, variant = self._places[index]
        episode = self._episode(unit)
        made = Example(
            index=index,
            unit=unit,
            kind=episode.task.family,
            task_id=episode.task.id,
            question=episode.task.question,
            catalog=episode.catalog,
            preferences=episode.preferences,
            identity=episode.identity,
        )
        if self.name == "budget":
            budget = self._budgets[variant]
            return replace(made, kind=label(budget), budget=budget)
        if self.name == "preferences":
            return _wished(made, _wish(unit), variant, Random(f"{self.seed}/{index}"))
        return made

    def _variants(self, unit: int) -> int:
        """Examples of a task."""
        if self.name == "preferences":
            return 3 if _wish(unit) in _OPPOSITE else 2
        return len(self._budgets) if self.name == "budget" else 1

    def trial(self, example: Example) -> Trial:
        """The tools in a fresh world, and the check of what the run left there."""
        task = self._episode(example.unit).task
        world = self._bench.world(task)
        tools = self._bench.tools(world, catalog=example.catalog, identity=example.identity)

        async def verdict(answer: str | None) -> Verdict:
            return ruling(await self._bench.verdict(task, answer, world), "workbench")

        return Trial(tools, verdict)

    def counts(self, kind: str) -> bool:
        """Whether a kind has the condition: tasks without the wish, or with another one, have not."""
        return not kind.startswith(WITHOUT) and INSTEAD not in kind

    def _draw(self, unit: int) -> Episode:
        bench = self._bench
        if self.name in ("in-distribution", "budget"):
            return bench.sample(self.seed, unit, split="held_out", vary=())
        wish = _wish(unit) if self.name == "preferences" else None
        return bench.sample(self.seed, unit, split="held_out", vary=_VARIED[self.name], wish=wish)


def standard_budgets(
    turns: Sequence[int] = TURN_LIMITS, dollars: Sequence[float] = DOLLAR_LIMITS
) -> tuple[Budget, ...]:
    """The limits of a budget curve: one element of the budget at a time."""
    return (*(Budget(turns=limit) for limit in turns), *(Budget(dollars=limit) for limit in dollars))


def label(budget: Budget) -> str:
    """A budget as the kind of its examples, for example `2 turns` or `$0.001`."""
    if math.isinf(budget.dollars):
        return f"{budget.turns} turn" + ("" if budget.turns == 1 else "s")
    return f"${budget.dollars:g}"


def _wish(unit: int) -> WishKind:
    return _WISHES[unit % len(_WISHES)]


def _wished(example: Example, wish: WishKind, variant: int, rng: Random) -> Example:
    """The example with its wish, without it, or with the opposite one."""
    if variant == 0:
        return replace(example, kind=wish)
    if variant == 1:
        return replace(example, kind=f"{WITHOUT}{wish}", preferences=Preferences())
    other = _OPPOSITE[wish]
    return replace(example, kind=f"{other}{INSTEAD}{wish}", preferences=wish_for(rng, "held_out", other))
