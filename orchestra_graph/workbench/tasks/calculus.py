"""Calculus: derivatives at a point and definite integrals, answered exactly; SymPy checks.

Size: `rules`, how many rules of differentiation or integration have to be combined. Beyond its limit an expert makes a
beginner's mistake: it treats the factors of a product one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from orchestra_graph.workbench.symbolic import parse, sympy
from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working, within
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

_DIGITS = 30
_TOLERANCE = 1e-25


@dataclass(frozen=True)
class Problem:
    """A derivative at `a`, a second derivative at `a`, or an integral from `a` to `b`, of f(x)."""

    kind: str
    f: str
    a: int
    b: int = 0


_ASKS = {
    "derivative": phrases("calculus", "derivative", "the slope of the curve y = {f} at x = {a}"),
    "second": phrases("calculus", "second", "the rate at which the slope of y = {f} changes at x = {a}"),
    "integral": phrases("calculus", "integral", "the signed area under y = {f} between x = {a} and x = {b}"),
}


class Calculus(Family[Problem]):
    """Exact values, for example `3*exp(2) - 1`."""

    name: ClassVar[str] = "calculus"
    frames: ClassVar[Phrases] = phrases(
        "calculus", "frames", "I am looking for {ask}, in closed form.", "Could you derive {ask} for me?"
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> Problem:
        """Polynomials first; then products, integration by parts, and second derivatives."""
        a, k, n = rng.randint(1, 4), rng.randint(2, 5), rng.randint(2, 4)
        wave = rng.choice((f"exp({k}*x)", f"sin({k}*x)", f"cos({k}*x)"))
        match difficulty:
            case 1:
                return Problem("derivative", _polynomial(rng, 3), a)
            case 2:
                return Problem("integral", _polynomial(rng, 3), a, a + rng.randint(1, 4))
            case 3:
                return Problem("derivative", f"({_polynomial(rng, 2)})*{wave}", a)
            case 4:
                return Problem("integral", f"{rng.randint(2, 9)}*x*{wave}", 0, a)
        outer = rng.choice((f"log(x**2 + {k})", f"sqrt(x**2 + {k})", f"exp(x**2 - {k})"))
        return Problem("second", f"x**{n}*{wave}*{outer}", a)

    def phrase(self, problem: Problem, rng: Random, split: Split) -> str:
        """In words, with the function as a formula."""
        return _ASKS[problem.kind].draw(rng, split, f=problem.f, a=problem.a, b=problem.b)

    def parse(self, ask: str) -> Problem | None:
        """One of the wordings, with a formula that can be read."""
        for kind, wordings in _ASKS.items():
            for slots in wordings.matches(ask):
                try:
                    parse(slots["f"])
                    return Problem(kind, slots["f"], int(slots["a"]), int(slots.get("b", 0)))
                except ValueError:
                    continue
        return None

    def sizes(self, problem: Problem) -> Sizes:
        """Rules: 1 and 2 for polynomials, then 3 for a product, 4 by parts, 5 for a second derivative of a product."""
        simple = not any(name in problem.f for name in ("exp", "sin", "cos", "log", "sqrt"))
        if problem.kind == "derivative":
            return {"rules": 1 if simple else 3}
        if problem.kind == "integral":
            return {"rules": 2 if simple else 4}
        return {"rules": 5}

    def title(self, problem: Problem) -> str:
        """For example `integral by parts`."""
        return {
            1: "derivative of a polynomial",
            2: "integral of a polynomial",
            3: "derivative of a product",
            4: "integral by parts",
            5: "second derivative of a product",
        }[self.sizes(problem)["rules"]]

    def solve(self, problem: Problem, limits: Sizes, desk: Desk) -> Working:
        """Differentiate or integrate, then insert."""
        general, value = _exact(problem) if within(self.sizes(problem), limits) else _careless(problem)
        where = f"x = {problem.a}" if problem.kind != "integral" else f"the limits {problem.a} and {problem.b}"
        return Working(f"For f(x) = {problem.f} this gives {general}.\nInserting {where}: {value}", value)

    def reference(self, problem: Problem, world: World) -> str:
        """The exact value."""
        return _exact(problem)[1]

    async def check(self, problem: Problem, answer: str, world: World) -> bool:
        """Equal to 30 digits, without a variable left; a decimal number is no exact value."""
        try:
            stated = parse(answer)
        except ValueError:
            return False
        right = parse(self.reference(problem, world))
        if not (stated.is_number and stated.is_finite):
            return False
        return bool(abs(sympy().N((stated - right) / (1 + abs(right)), _DIGITS)) < _TOLERANCE)


def _polynomial(rng: Random, degree: int) -> str:
    x = sympy().Symbol("x")
    return str(sum(rng.randint(1, 9) * rng.choice((-1, 1)) * x**i for i in range(degree + 1)))


@lru_cache(maxsize=4096)
def _exact(problem: Problem) -> tuple[str, str]:
    """The derivative or antiderivative, and its value."""
    return _insert(problem, _operate(problem, parse(problem.f)))


def _careless(problem: Problem) -> tuple[str, str]:
    """As `_exact`, but factor by factor; and with the integral of a sum forgotten."""
    f = parse(problem.f)
    constant, factors = f.as_coeff_mul()
    if problem.kind == "integral" and len(factors) == 1:
        return _insert(problem, f)
    return _insert(problem, constant * sympy().prod([_operate(problem, factor) for factor in factors]))


def _operate(problem: Problem, f: Any) -> Any:
    x = sympy().Symbol("x")
    if problem.kind == "integral":
        return sympy().integrate(f, x)
    return sympy().diff(f, x, 1 if problem.kind == "derivative" else 2)


def _insert(problem: Problem, general: Any) -> tuple[str, str]:
    x = sympy().Symbol("x")
    value = general.subs(x, problem.a)
    if problem.kind == "integral":
        value = general.subs(x, problem.b) - value
    return str(general), str(sympy().expand(value))
