"""The catalog's prices and the user's preferences as text for a model, and back.

Programs that route (`orchestra_graph.routers`) read the same text as a language model does, so both directions
stand here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.preferences import Preferences

HEADER: Final = (
    "Tool | kind | $ per M input tokens | $ per M output tokens | $ per call | $ per second | typical seconds | "
    "ends the run"
)
_WEIGHTS: Final = re.compile(r"^Preferences: (.*)$", re.MULTILINE)
_WISH: Final = "In the user's words: "


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

    def dollars(self, tokens: int = 1000) -> float:
        """Rough price of a call that reads `tokens` tokens and writes a third of that."""
        return (tokens * self.input + tokens / 3 * self.output) / 1e6 + self.per_call + self.seconds * self.per_second


def render_table(specs: Iterable[ToolSpec]) -> str:
    """One line a tool, with the fields that the bill is written from."""
    return "\n".join([HEADER, *map(_row, specs)])


def _row(spec: ToolSpec) -> str:
    price = spec.price
    numbers = (price.input, price.output, price.per_call, price.per_second, spec.latency.p50)
    return " | ".join([spec.name, spec.kind, *(f"{n:.10g}" for n in numbers), "yes" if spec.terminal else "no"])


def read_table(text: str) -> list[Line]:
    """Lines of the table in a text, without descriptions; empty where there is no table."""
    _, found, rest = text.partition(HEADER + "\n")
    lines: list[Line] = []
    for row in rest.split("\n") if found else ():
        cells = row.split(" | ")
        if len(cells) != 8:
            break
        sent, written, call, second, seconds = map(float, cells[2:7])
        lines.append(Line(cells[0], cells[1], sent, written, call, second, seconds, cells[7] == "yes"))
    return lines


def render_preferences(preferences: Preferences) -> str:
    """Weights in one line, then the user's own sentence, if any."""
    weights = [("accuracy", preferences.accuracy), ("cost", preferences.cost), ("latency", preferences.latency)]
    parts = [f"{name} {weight:.4g}" for name, weight in weights]
    parts += [f"prefer {name} {weight:.4g}" for name, weight in preferences.prefer.items() if weight]
    parts += [f"avoid {name} {weight:.4g}" for name, weight in preferences.avoid.items() if weight]
    line = "Preferences: " + ", ".join(parts)
    return f"{line}\n{_WISH}{' '.join(preferences.text.split())}" if preferences.text else line


def read_preferences(text: str) -> Preferences:
    """Preferences from a text that holds them; the default where it holds none."""
    match = _WEIGHTS.search(text)
    if match is None:
        return Preferences()
    single: dict[str, float] = {}
    tools: dict[str, dict[str, float]] = {"prefer": {}, "avoid": {}}
    for part in match[1].split(", "):
        *what, weight = part.split(" ")
        if len(what) == 2:
            tools[what[0]][what[1]] = float(weight)
        else:
            single[what[0]] = float(weight)
    _, _, wish = text[match.end() :].partition("\n" + _WISH)
    return Preferences.model_validate({**single, **tools, "text": wish.split("\n")[0]})
