"""Arithmetic of growing size: sums, differences and products of whole numbers.

An expert works with a fixed number of significant digits, like a calculator: what does not fit is rounded, and the
answer is then wrong. Size: `digits`, the most significant digits of any number on the way.
"""

from __future__ import annotations

import ast
import re
from decimal import Context, Decimal
from random import Random
from typing import ClassVar

from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

DIGITS = {1: (3, 5), 2: (6, 8), 3: (9, 12), 4: (13, 16), 5: (20, 36)}
"""Fewest and most significant digits, by difficulty."""
OPERANDS = {1: 3, 2: 3, 3: 4, 4: 5, 5: 6}
"""Most operands, by difficulty; there are at least two."""

_EXPRESSION = re.compile(r"[\d+*() -]+")
_EXACT = Context(prec=200)
_OPERATIONS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "add"),
    ast.Sub: ("-", "subtract"),
    ast.Mult: ("*", "multiply"),
}


class Arithmetic(Family[str]):
    """A problem is an expression in digits, `+ - *` and parentheses."""

    name: ClassVar[str] = "arithmetic"
    frames: ClassVar[Phrases] = phrases(
        "arithmetic",
        "frames",
        "Could you tell me what {ask} comes to?",
        "Calculate this to the last digit: {ask}",
        "The result of {ask}, please.",
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> str:
        """Draw operands until the numbers on the way have the digits of the difficulty."""
        low, high = DIGITS[difficulty]
        while True:
            expression = _expression(rng, rng.randint(2, OPERANDS[difficulty]), high)
            if low <= self.sizes(expression)["digits"] <= high:
                return expression

    def phrase(self, problem: str, rng: Random, split: Split) -> str:
        """The expression itself."""
        return problem

    def parse(self, ask: str) -> str | None:
        """Any expression that can be evaluated."""
        if not _EXPRESSION.fullmatch(ask):
            return None
        try:
            _steps(ask, _EXACT)
        except (SyntaxError, ValueError):
            return None
        return ask

    def sizes(self, problem: str) -> Sizes:
        """Significant digits of the longest number on the way."""
        values = [value for _, value in _steps(problem, _EXACT)]
        return {"digits": max(len(str(abs(int(value))).rstrip("0")) for value in values)}

    def title(self, problem: str) -> str:
        """For example `arithmetic, 12 digits`."""
        return f"arithmetic, {self.sizes(problem)['digits']} digits"

    def solve(self, problem: str, limits: Sizes, desk: Desk) -> Working:
        """Step by step, each number rounded to the digits that the expert keeps."""
        steps = _steps(problem, Context(prec=limits["digits"]))
        lines = [f"{text} = {value:f}" for text, value in steps if text]
        return Working("\n".join(lines), f"{steps[-1][1]:f}")

    def reference(self, problem: str, world: World) -> str:
        """The exact value."""
        return f"{_steps(problem, _EXACT)[-1][1]:f}"

    async def check(self, problem: str, answer: str, world: World) -> bool:
        """Equal whole numbers; spaces and thousands separators are passed over."""
        return re.sub(r"[\s,_]", "", answer) == self.reference(problem, world)

    def code(self, problem: str) -> str:
        """Python's own whole numbers are exact."""
        return f"print({problem})"


def _expression(rng: Random, operands: int, digits: int) -> str:
    """Operands joined by operators, some pairs in parentheses."""
    longest = max(2, digits // 2)
    terms = [str(rng.randrange(10, 10 ** rng.randint(2, longest))) for _ in range(operands)]
    while len(terms) > 1:
        at = rng.randrange(len(terms) - 1)
        joined = f"{terms[at]} {rng.choice('++-**')} {terms[at + 1]}"
        terms[at : at + 2] = [joined if len(terms) == 2 else f"({joined})"]
    return terms[0]


def _steps(expression: str, context: Context) -> list[tuple[str, Decimal]]:
    """Every number on the way, in the order of evaluation: how it came about (empty for a given one), and its value.

    Raises:
        SyntaxError: The text is no expression.
        ValueError: It holds something else than whole numbers, `+ - *` and parentheses.
    """
    steps: list[tuple[str, Decimal]] = []
    _evaluate(ast.parse(expression.strip(), mode="eval").body, context, steps)
    return steps


def _evaluate(node: ast.expr, context: Context, steps: list[tuple[str, Decimal]]) -> Decimal:
    match node:
        case ast.Constant(value=int() as number):
            text, value = "", context.create_decimal(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            a, b = _evaluate(left, context, steps), _evaluate(right, context, steps)
            sign, operation = _OPERATIONS[type(op)]
            text, value = f"{a:f} {sign} {b:f}", getattr(context, operation)(a, b)
        case _:
            raise ValueError(f"{ast.unparse(node)!r}: expected whole numbers, + - * and parentheses")
    value = context.plus(value)  # -0, of 0 times a negative number, is 0
    steps.append((text, value))
    return value
