"""Algebra: equations in one unknown, and systems of linear equations, with whole-number solutions; SymPy checks.

Size: `unknowns`, the degree of the equation or the number of unknowns. Beyond its limit an expert stops at the first
root that it finds, or takes the unknowns that it cannot keep track of for 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from orchestra_graph.workbench.symbolic import parse, sympy
from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working, within
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

LETTERS = "xyzw"
_SEPARATOR = re.compile(r",|;|\band\b|\bor\b")
_VALUE = re.compile(r"(?:([xyzw])\s*=\s*)?(-?\d{1,30}(?:/[1-9]\d{0,30})?)")

_CODE = """from fractions import Fraction

rows = {rows}
for i in range(len(rows)):
    pivot = next(r for r in range(i, len(rows)) if rows[r][i])
    rows[i], rows[pivot] = rows[pivot], rows[i]
    rows[i] = [Fraction(v, rows[i][i]) for v in rows[i]]
    for r in range(len(rows)):
        if r != i:
            rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i])]
print(", ".join(f"{{name}} = {{row[-1]}}" for name, row in zip("xyzw", rows)))"""

_ROOTS_CODE = """f = {coefficients}
roots = [x for x in range(-1000, 1001) if sum(c * x**i for i, c in enumerate(reversed(f))) == 0]
print(", ".join(f"x = {{x}}" for x in roots))"""


@dataclass(frozen=True)
class Equations:
    """Left sides that equal 0 or a number, for example `("3*x - 6 = 0",)`."""

    lines: tuple[str, ...]


class Algebra(Family[Equations]):
    """Find all solutions."""

    name: ClassVar[str] = "algebra"
    frames: ClassVar[Phrases] = phrases(
        "algebra",
        "frames",
        "Which numbers satisfy {ask}?",
        "Give me all solutions of {ask}, please.",
        "What must the unknowns be so that {ask}?",
    )
    joins: ClassVar[Phrases] = Phrases(
        train=("{a} and {b}", "{a}; {b}", "{a} as well as {b}", "{a}, {b}"), held_out=("{a} together with {b}",)
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> Equations:
        """Linear, quadratic, or two unknowns; then up to degree 4 or four unknowns."""
        size = {1: 1, 2: 2, 3: 2, 4: 3, 5: 4}[difficulty]
        if difficulty in (1, 2) or (difficulty > 3 and rng.random() < 0.5):
            return Equations((_polynomial(rng, size),))
        return Equations(tuple(_system(rng, size)))

    def phrase(self, problem: Equations, rng: Random, split: Split) -> str:
        """The equations, joined."""
        text = problem.lines[0]
        for line in problem.lines[1:]:
            text = self.joins.draw(rng, split, a=text, b=line)
        return text

    def parse(self, ask: str) -> Equations | None:
        """Equations in x, y, z, w."""
        lines = tuple(re.split(r" and | together with | as well as |[;,] ", ask))
        try:
            _sides(lines)
        except ValueError:
            return None
        return Equations(lines)

    def sizes(self, problem: Equations) -> Sizes:
        """Degree, or number of unknowns."""
        return {"unknowns": len(problem.lines) if len(problem.lines) > 1 else _degree(problem.lines[0])}

    def title(self, problem: Equations) -> str:
        """For example `system of 3 equations`."""
        size = self.sizes(problem)["unknowns"]
        return f"system of {size} equations" if len(problem.lines) > 1 else f"equation of degree {size}"

    def solve(self, problem: Equations, limits: Sizes, desk: Desk) -> Working:
        """Solve; or find a part of the solution, and take it for all of it."""
        if not within(self.sizes(problem), limits):
            return _stop_early(problem.lines, limits["unknowns"])
        solutions = ", ".join(f"{name} = {value}" for name, value in _solve(problem.lines))
        shape = "Eliminate one unknown after the other" if len(problem.lines) > 1 else "Factor the left side"
        return Working(f"{shape}: {'; '.join(problem.lines)}.\nThis leaves {solutions}.", solutions)

    def reference(self, problem: Equations, world: World) -> str:
        """For example `x = -2, x = 5`."""
        return ", ".join(f"{name} = {value}" for name, value in _solve(problem.lines))

    async def check(self, problem: Equations, answer: str, world: World) -> bool:
        """Every stated value satisfies the equations, and none is missing."""
        stated = [_VALUE.fullmatch(part.strip()) for part in _SEPARATOR.split(answer)]
        found = [(match[1] or "x", Fraction(match[2])) for match in stated if match]
        if len(found) < len(stated):
            return False
        unknowns = {name for name, _ in found}
        if len(problem.lines) == 1:
            return unknowns == {"x"} and {v for _, v in found} == {Fraction(v) for _, v in _solve(problem.lines)}
        if len(found) != len(unknowns) or unknowns != {*LETTERS[: len(problem.lines)]}:
            return False
        values = {sympy().Symbol(name): sympy().Rational(v.numerator, v.denominator) for name, v in found}
        return all(side.subs(values) == 0 for side in _sides(problem.lines))

    def code(self, problem: Equations) -> str:
        """Try whole numbers, or eliminate with exact fractions."""
        symbols = [sympy().Symbol(name) for name in LETTERS]
        sides = _sides(problem.lines)
        if len(sides) == 1:
            return _ROOTS_CODE.format(coefficients=[int(c) for c in sympy().Poly(sides[0], symbols[0]).all_coeffs()])
        origin = dict.fromkeys(symbols, 0)
        rows = [[*(int(s.coeff(u)) for u in symbols[: len(sides)]), -int(s.subs(origin))] for s in sides]
        return _CODE.format(rows=rows)


def _polynomial(rng: Random, degree: int) -> str:
    x = sympy().Symbol("x")
    if degree == 1:
        factor, root = rng.randint(2, 19), rng.randint(-30, 30)
        shift = rng.randint(1, 60)
        return f"{factor}*x + {shift} = {factor * root + shift}"
    roots = rng.sample([n for n in range(-12, 13) if n], degree)
    left = sympy().expand(sympy().prod([x - root for root in roots]))
    return f"{left} = 0"


def _system(rng: Random, size: int) -> list[str]:
    """Linear equations with one solution, in whole numbers."""
    symbols = [sympy().Symbol(name) for name in LETTERS[:size]]
    values = [rng.choice((-1, 1)) * rng.randint(1, 9) for _ in symbols]
    while True:
        matrix = [[rng.choice((-5, -4, -3, -2, 2, 3, 4, 5)) for _ in symbols] for _ in symbols]
        if sympy().Matrix(matrix).det() != 0:
            break
    totals = [sum(a * v for a, v in zip(row, values, strict=True)) for row in matrix]
    lefts = [sum(a * s for a, s in zip(row, symbols, strict=True)) for row in matrix]
    return [f"{left} = {total}" for left, total in zip(lefts, totals, strict=True)]


@lru_cache(maxsize=4096)
def _sides(lines: tuple[str, ...]) -> tuple[Any, ...]:
    """Left minus right side of each equation.

    Raises:
        ValueError: A line is no equation.
    """
    halves = [line.split("=") for line in lines]
    if any(len(half) != 2 for half in halves):
        raise ValueError("expected one `=` in each equation")
    return tuple(sympy().expand(parse(left) - parse(right)) for left, right in halves)


def _degree(line: str) -> int:
    return int(sympy().degree(_sides((line,))[0], sympy().Symbol("x")))


@lru_cache(maxsize=4096)
def _solve(lines: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Name and value of each unknown, or of each root."""
    sides = _sides(lines)
    symbols = [sympy().Symbol(name) for name in LETTERS[: len(sides)]]
    if len(sides) == 1:
        return tuple(("x", str(root)) for root in sorted(sympy().roots(sides[0], symbols[0])))
    (values,) = sympy().linsolve(list(sides), *symbols)
    return tuple((str(symbol), str(value)) for symbol, value in zip(symbols, values, strict=True))


def _stop_early(lines: tuple[str, ...], limit: int) -> Working:
    """What is left of the solution when only `limit` unknowns, or one root, fit in mind."""
    if len(lines) == 1:
        name, root = min(_solve(lines), key=lambda found: abs(int(found[1])))
        return Working(f"Trying whole numbers, {root} makes both sides equal.", f"{name} = {root}")
    symbols = [sympy().Symbol(name) for name in LETTERS[: len(lines)]]
    forgotten = dict.fromkeys(symbols[limit:], 0)
    kept = [side.subs(forgotten) for side in _sides(lines)[:limit]]
    values = sympy().solve(kept, symbols[:limit], dict=True)
    if not values or len(values[0]) < limit:
        return Working("I find no numbers that fit.")
    solution = ", ".join(f"{symbol} = {values[0].get(symbol, 0)}" for symbol in symbols)
    return Working(f"From the first equations: {solution}.", solution)
