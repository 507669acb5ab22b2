"""Number theory: common divisors, powers and inverses modulo m, prime factors; SymPy checks.

Sizes: `digits` of the longest number, beyond which an expert misremembers it, and `bound`, how far divisors have to be
tried; an expert that gives up earlier takes what is left for a prime. Either way the answer is then wrong.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Context
from random import Random
from typing import ClassVar

from orchestra_graph.workbench.symbolic import sympy
from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

_NUMBER = re.compile(r"-?\d+")
_ASKS = {
    "gcd": phrases("number_theory", "gcd", "the largest whole number that divides both {a} and {b}"),
    "power": phrases("number_theory", "power", "what is left when {a}**{b} is divided by {m}"),
    "inverse": phrases("number_theory", "inverse", "the multiplicative inverse of {a} among the remainders modulo {m}"),
    "factor": phrases("number_theory", "factor", "the prime of greatest size in the factorization of {a}"),
    "totient": phrases("number_theory", "totient", "how many numbers up to {a} share no factor with it"),
}
_CODE = {
    "gcd": "import math\nprint(math.gcd({a}, {b}))",
    "power": "print(pow({a}, {b}, {m}))",
    "inverse": "print(pow({a}, -1, {m}))",
    "factor": """n, d, largest = {a}, 2, 1
while d * d <= n:
    if n % d:
        d += 1
    else:
        n, largest = n // d, d
print(max(n, largest))""",
    "totient": """n, d, phi = {a}, 2, {a}
while d * d <= n:
    if n % d == 0:
        phi -= phi // d
        while n % d == 0:
            n //= d
    d += 1
print(phi - phi // n if n > 1 else phi)""",
}


@dataclass(frozen=True)
class Problem:
    """One question about whole numbers; what a kind does not need is 0."""

    kind: str
    a: int
    b: int = 0
    m: int = 0


class NumberTheory(Family[Problem]):
    """Whole-number answers."""

    name: ClassVar[str] = "number_theory"
    frames: ClassVar[Phrases] = phrases(
        "number_theory", "frames", "I would like to know {ask}.", "Please determine {ask}."
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> Problem:
        """Small divisors and remainders first; then products of larger and larger primes."""
        match difficulty:
            case 1:
                common = rng.randint(2, 12)
                return Problem("gcd", common * rng.randint(8, 80), common * rng.randint(8, 80))
            case 2:
                return Problem("power", rng.randint(100, 999), rng.randint(20, 99), rng.randint(200, 9999))
            case 3:
                m = int(sympy().nextprime(rng.randint(10**5, 10**7)))
                return Problem("inverse", rng.randint(1000, m - 1), m=m)
        low, high = (150, 3_000) if difficulty == 4 else (15_000, 150_000)
        p, q = (int(sympy().nextprime(rng.randint(low, high))) for _ in range(2))
        return Problem(rng.choice(("factor", "totient")), p * q)

    def phrase(self, problem: Problem, rng: Random, split: Split) -> str:
        """In words."""
        return _ASKS[problem.kind].draw(rng, split, a=problem.a, b=problem.b, m=problem.m)

    def parse(self, ask: str) -> Problem | None:
        """One of the wordings, with whole numbers."""
        for kind, wordings in _ASKS.items():
            for slots in wordings.matches(ask):
                if all(_NUMBER.fullmatch(value) for value in slots.values()):
                    return Problem(kind, **{name: int(value) for name, value in slots.items()})
        return None

    def sizes(self, problem: Problem) -> Sizes:
        """Digits, and the second largest prime factor where factors are asked for."""
        digits = max(len(str(n)) for n in (problem.a, problem.b, problem.m))
        return {"digits": digits, "bound": _bound(problem.a) if problem.kind in ("factor", "totient") else 0}

    def title(self, problem: Problem) -> str:
        """For example `largest prime factor, 9 digits`."""
        kinds = {"gcd": "common divisor", "power": "power modulo m", "inverse": "inverse modulo m"}
        kinds |= {"factor": "largest prime factor", "totient": "Euler's totient"}
        return f"{kinds[problem.kind]}, {self.sizes(problem)['digits']} digits"

    def solve(self, problem: Problem, limits: Sizes, desk: Desk) -> Working:
        """Compute with as many digits, and try as many divisors, as the expert can."""
        kept = Context(prec=limits["digits"])
        a, b, m = (int(kept.create_decimal(n)) for n in (problem.a, problem.b, problem.m))
        match problem.kind:
            case "gcd":
                return Working(f"By Euclid's algorithm with {a} and {b}.", str(math.gcd(a, b)))
            case "power":
                return Working(f"By repeated squaring of {a} modulo {m}.", str(pow(a, b, m)))
            case "inverse" if math.gcd(a, m) != 1:
                return Working(f"{a} has no inverse modulo {m}.")
            case "inverse":
                return Working(f"By Euclid's extended algorithm with {a} and {m}.", str(pow(a, -1, m)))
        factors = _divide(a, limits["bound"])
        text = " * ".join(f"{p}^{k}" if k > 1 else str(p) for p, k in factors.items())
        value = (
            max(factors) if problem.kind == "factor" else math.prod((p - 1) * p ** (k - 1) for p, k in factors.items())
        )
        return Working(f"Trying divisors up to {limits['bound']}: {a} = {text}.", str(value))

    def reference(self, problem: Problem, world: World) -> str:
        """From SymPy's own functions."""
        a, b, m = problem.a, problem.b, problem.m
        match problem.kind:
            case "gcd":
                return str(sympy().gcd(a, b))
            case "power":
                return str(pow(a, b, m))
            case "inverse":
                return str(sympy().mod_inverse(a, m))
            case "factor":
                return str(max(sympy().factorint(a)))
        return str(sympy().totient(a))

    async def check(self, problem: Problem, answer: str, world: World) -> bool:
        """Equal whole numbers."""
        return re.sub(r"[\s,_]", "", answer) == self.reference(problem, world)

    def code(self, problem: Problem) -> str:
        """A few lines of trial division, or the standard library."""
        return _CODE[problem.kind].format(a=problem.a, b=problem.b, m=problem.m)


def _bound(n: int) -> int:
    """How far divisors of n have to be tried until what is left is a prime."""
    primes = sorted(p for p, k in sympy().factorint(n).items() for _ in range(k))
    return int(primes[-2]) if len(primes) > 1 else 1


def _divide(n: int, bound: int) -> dict[int, int]:
    """Prime factors and their powers by trial division up to `bound`; what is left is taken for a prime."""
    factors: dict[int, int] = {}
    divisor = 2
    while divisor <= bound and divisor * divisor <= n:
        if n % divisor:
            divisor += 1
        else:
            n //= divisor
            factors[divisor] = factors.get(divisor, 0) + 1
    if n > 1:
        factors[n] = factors.get(n, 0) + 1
    return factors
