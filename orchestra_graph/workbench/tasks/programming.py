"""Programming: a Python function over a list of whole numbers, described in steps; solved when hidden tests pass.

Sizes: `steps`, beyond which an expert forgets the ones in the middle, and `rank`, how advanced an algorithm is needed;
an expert that does not know it writes the naive idea instead.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from orchestra_graph.text import clean
from orchestra_graph.workbench.sandbox import warn_of_answers
from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working
from orchestra_graph.workbench.tasks.steps import FINALS, STEPS, Algorithm
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

LENGTH = {1: 2, 2: 3, 3: 4, 4: 5, 5: 7}
"""Steps by difficulty."""
RANK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
"""Rank of the most advanced one."""
HIGHEST = max(RANK.values())
TESTS = 12

_ALGORITHMS = {algorithm.name: algorithm for algorithm in (*STEPS, *FINALS)}
_FENCE = re.compile(r"```(?:python)?\n(.*?)```", re.DOTALL)
_HARNESS = "\n\nimport json, sys\nprint(json.dumps([solve(xs) for xs in json.load(sys.stdin)]))\n"
_JOIN = "; then "


@dataclass(frozen=True)
class Step:
    """An algorithm and its parameter; 0 where it has none."""

    name: str
    k: int = 0

    @property
    def algorithm(self) -> Algorithm:
        """What the step does."""
        return _ALGORITHMS[self.name]


Steps = tuple[Step, ...]


class Programming(Family[Steps]):
    """The last step turns the list into one number."""

    name: ClassVar[str] = "programming"
    frames: ClassVar[Phrases] = phrases(
        "programming",
        "frames",
        "Please code solve(xs) in Python, where xs holds integers, so that it does this: {ask}.",
        "Here is what my Python function solve(xs) should do with the integers in xs: {ask}. Please write it.",
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> Steps:
        """Different steps up to the rank of the difficulty, the last one of just that rank."""
        rank = RANK[difficulty]
        while True:
            middle = rng.sample([a for a in STEPS if a.rank <= rank], LENGTH[difficulty] - 1)
            final = rng.choice([a for a in FINALS if a.rank == rank])
            steps = tuple(Step(a.name, rng.randint(*a.parameter) if a.parameter else 0) for a in (*middle, final))
            if _discerning(steps):
                return steps

    def phrase(self, problem: Steps, rng: Random, split: Split) -> str:
        """The steps in order."""
        return _JOIN.join(step.algorithm.asks.draw(rng, split, k=step.k) for step in problem)

    def parse(self, ask: str) -> Steps | None:
        """Every step is a known one."""
        steps = [_read_step(part) for part in ask.split(_JOIN)]
        known = tuple(step for step in steps if step is not None)
        return known if len(known) == len(steps) and known[-1].algorithm in FINALS else None

    def sizes(self, problem: Steps) -> Sizes:
        """Number of steps, and highest rank."""
        return {"steps": len(problem), "rank": max(step.algorithm.rank for step in problem)}

    def title(self, problem: Steps) -> str:
        """For example `program: longest rising, 5 steps`."""
        return f"program: {problem[-1].name}, {len(problem)} steps"

    def solve(self, problem: Steps, limits: Sizes, desk: Desk) -> Working:
        """Write the steps that the expert keeps in mind, with the algorithms that it knows."""
        kept = _remembered(problem, limits["steps"])
        code = f"```python\n{_write(kept, limits['rank'])}```"
        return Working(f"The function works in {len(kept)} steps, the last one being: {kept[-1].name}.", code)

    def reference(self, problem: Steps, world: World) -> str:
        """A program that does all steps."""
        return f"```python\n{_write(problem, HIGHEST)}```"

    async def check(self, problem: Steps, answer: str, world: World) -> bool:
        """The code in the answer returns what the reference returns, on lists that the question does not show.

        Raises:
            ToolError: The sandbox could not run at all.
        """
        fences = _FENCE.findall(answer)
        inputs = _inputs(Random(repr(problem)))
        code = clean(fences[-1] if fences else answer)
        warn_of_answers()
        run = await world.sandbox.run(code + _HARNESS, stdin=json.dumps(inputs))
        lines = run.stdout.strip().splitlines()
        return run.exit_code == 0 and bool(lines) and lines[-1] == json.dumps(_outputs(problem, inputs))


def _read_step(text: str) -> Step | None:
    for algorithm in _ALGORITHMS.values():
        for slots in algorithm.asks.matches(text):
            k = slots.get("k", "0")
            if re.fullmatch(r"-?\d+", k):
                return Step(algorithm.name, int(k))
    return None


def _functions(steps: Steps, rank: int) -> list[Callable[[list[int], int], Any]]:
    """What each step calls, with the naive idea in place of algorithms above the rank."""
    algorithms = [step.algorithm for step in steps]
    return [a.function if a.rank <= rank or a.naive is None else a.naive for a in algorithms]


def _write(steps: Steps, rank: int) -> str:
    """Source of `solve` and of the functions that it calls."""
    functions = _functions(steps, rank)
    calls = [f"{f.__name__}(xs, {step.k})" for f, step in zip(functions, steps, strict=True)]
    lines = ["def solve(xs):", *(f"    xs = {call}" for call in calls[:-1]), f"    return {calls[-1]}\n"]
    # One who knows no better does not call an idea naive.
    return "\n\n".join([*(inspect.getsource(f) for f in functions), "\n".join(lines)]).replace("naive_", "")


def _remembered(steps: Steps, limit: int) -> Steps:
    """The first steps and the last one, `limit` in all."""
    return steps if len(steps) <= limit else (*steps[: limit - 1], steps[-1])


def _discerning(steps: Steps) -> bool:
    """Whether the hidden tests tell a program that forgets steps, or takes a naive idea, from the right one."""
    inputs = _inputs(Random(repr(steps)))
    right = _outputs(steps, inputs)
    forgetful = [_outputs(_remembered(steps, limit), inputs) for limit in range(1, len(steps))]
    naive = [_outputs(steps, inputs, rank) for rank in range(2, steps[-1].algorithm.rank)]
    return right not in forgetful and right not in naive


def _inputs(rng: Random) -> list[list[int]]:
    return [[], *([rng.randint(-15, 60) for _ in range(rng.randint(4, 24))] for _ in range(TESTS - 1))]


def _outputs(steps: Steps, inputs: list[list[int]], rank: int = HIGHEST) -> list[Any]:
    outputs: list[Any] = inputs
    for function, step in zip(_functions(steps, rank), steps, strict=True):
        outputs = [function(xs, step.k) for xs in outputs]
    return outputs
