"""Prices, preferences and budget as text for a model, and back.

Programs that route (`orchestra_graph.routers`) read the same text as a language model does, so both directions
stand here. What a user writes stands in one line behind a prefix, so that it is never read as a table or as weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from orchestra_graph.catalog import NAME_PATTERN, ToolSpec
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.text import neutralise

HEADER: Final = (
    "Tool | kind | $ per M input tokens | $ per M output tokens | $ per call | $ per second | typical seconds | "
    "ends the run"
)
UNKNOWN: Final = "?"
"""Stands for a price or a time that nobody has stated."""

_NUMBER = r"[0-9.e+-]+"
_NAME = NAME_PATTERN.strip("^$")
_ROW: Final = re.compile(rf"({_NAME}) \| (\w+) " + rf"\| ({_NUMBER}|\?) " * 5 + r"\| (yes|no)")
_WEIGHTS: Final = re.compile(
    rf"^Preferences: (accuracy {_NUMBER}, cost {_NUMBER}, latency {_NUMBER}(?:, (?:prefer|avoid) {_NAME} {_NUMBER})*)$",
    re.MULTILINE,
)
_WISH: Final = "In the user's words: "
_NOTE: Final = re.compile(r"\n\n\(Budget (?:left: [^()\n]*|used up\.)\)\Z")


@dataclass(frozen=True, slots=True)
class Line:
    """One tool as the router reads it."""

    name: str
    kind: str
    input: float
    """Dollars per million input tokens."""
    output: float
    """Dollars per million output tokens."""
    per_call: float
    per_second: float
    seconds: float
    """Typical seconds of work."""
    terminal: bool
    description: str = ""
    required: tuple[str, ...] = ()
    """Names of the required arguments."""
    textual: bool = True
    """Whether each required argument takes a text, so that a program can fill it with the question."""

    def dollars(self, tokens: int = 1000) -> float:
        """Rough price of a call that reads `tokens` tokens and writes a third of that."""
        return (tokens * self.input + tokens / 3 * self.output) / 1e6 + self.per_call + self.seconds * self.per_second


def render_table(specs: Iterable[ToolSpec]) -> str:
    """One line a tool, with the fields that the bill is written from."""
    return "\n".join([HEADER, *map(_row, specs)])


def _row(spec: ToolSpec) -> str:
    price = spec.price
    numbers = [_number(value) for value in (price.input, price.output, price.per_call, price.per_second)]
    if spec.is_unpriced:
        numbers = [UNKNOWN] * len(numbers)
    seconds = _number(spec.latency.p50) if spec.latency.p50 else UNKNOWN
    return " | ".join([spec.name, spec.kind, *numbers, seconds, "yes" if spec.terminal else "no"])


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")


def read_table(text: str) -> list[Line]:
    """Lines of the last table in a text, without descriptions; empty where there is no table.

    What is unknown counts as the dearest price and the longest time that the table shows: nobody saves by a guess.
    """
    _, found, rest = f"\n{text}".rpartition(f"\n{HEADER}\n")
    lines: list[Line] = []
    for row in rest.split("\n") if found else ():
        match = _ROW.fullmatch(row)
        if match is None:
            break
        name, kind, *numbers, ends = match.groups()
        sent, written, call, second, seconds = (math.nan if n == UNKNOWN else float(n) for n in numbers)
        lines.append(Line(name, kind, sent, written, call, second, seconds, ends == "yes"))
    return _completed(lines)


def _completed(lines: list[Line]) -> list[Line]:
    slowest = max((line.seconds for line in lines if not math.isnan(line.seconds)), default=0.0)
    timed = [replace(line, seconds=slowest) if math.isnan(line.seconds) else line for line in lines]
    priced = [line for line in timed if not math.isnan(line.input)]
    dearest = max(priced, key=Line.dollars, default=Line("", "", 0.0, 0.0, 0.0, 0.0, 0.0, terminal=False))
    prices = {name: getattr(dearest, name) for name in ("input", "output", "per_call", "per_second")}
    return [replace(line, **prices) if math.isnan(line.input) else line for line in timed]


def render_preferences(preferences: Preferences) -> str:
    """Weights in one line, then the user's own sentence, if any."""
    weights = [("accuracy", preferences.accuracy), ("cost", preferences.cost), ("latency", preferences.latency)]
    parts = [f"{name} {_number(weight)}" for name, weight in weights]
    parts += [f"prefer {name} {_number(weight)}" for name, weight in preferences.prefer.items() if weight]
    parts += [f"avoid {name} {_number(weight)}" for name, weight in preferences.avoid.items() if weight]
    line = "Preferences: " + ", ".join(parts)
    wish = " ".join(neutralise(preferences.text).split())
    return f"{line}\n{_WISH}{wish}" if wish else line


def read_preferences(text: str) -> Preferences:
    """The last preferences in a text; the default where it holds none."""
    found = list(_WEIGHTS.finditer(text))
    if not found:
        return Preferences()
    single: dict[str, float] = {}
    tools: dict[str, dict[str, float]] = {"prefer": {}, "avoid": {}}
    for part in found[-1][1].split(", "):
        *what, weight = part.split(" ")
        if len(what) == 2:
            tools[what[0]][what[1]] = float(weight)
        else:
            single[what[0]] = float(weight)
    wish, _, _ = text[found[-1].end() + 1 :].partition("\n")
    words = wish.removeprefix(_WISH) if wish.startswith(_WISH) else ""
    return Preferences.model_validate({**single, **tools, "text": words})


def render_budget(budget: Budget, spent: Spent) -> str:
    """A note of what is left; empty where only the number of turns is bounded."""
    if math.isinf(budget.dollars) and math.isinf(budget.seconds):
        return ""
    left = spent.left(budget)
    if left is None:
        return "\n\n(Budget used up.)"
    parts = [f"{left.turns} turns"]
    if not math.isinf(left.seconds):
        parts.insert(0, f"{left.seconds:.0f} s")
    if not math.isinf(left.dollars):
        parts.insert(0, f"${left.dollars:.5f}")
    return f"\n\n(Budget left: {', '.join(parts)})"


def without_budget(text: str) -> str:
    """A message's text without the note at its end."""
    return _NOTE.sub("", text)
