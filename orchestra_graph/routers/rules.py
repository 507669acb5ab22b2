"""A router of hand-written rules: it reads question, catalog and preferences, and learns nothing.

1. The question's field is guessed from its words: mathematics, programming, look-up, records.
2. A tool suits the question when its description speaks of that field; one that speaks of other fields only does not.
   Tools that call themselves small are kept from questions that look hard.
3. Steps are the tools that suit and do not end the run: searches, code runners. A look-up begins with one; otherwise
   one is called when a tool that could have ended the run has not. A look-up takes at most three, others one.
4. Among the tools that end the run and have not been tried since the last step, the one with the best score is called:
   suitability, less cost and latency (relative to the dearest and slowest), plus preference, less avoidance, by the
   user's weights.
5. When all have been tried, it gives up with the newest result. Where no tool ends the run, the first result is enough.
"""

from __future__ import annotations

import re
from typing import Final

from orchestra_graph.protocols.table import Line
from orchestra_graph.routers.base import Choice, ProgramRouter, Scene
from orchestra_graph.routers.programs import candidates, enders, give_up

LOOK_UP: Final = "look-up"


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


_ASKS: Final[dict[str, re.Pattern[str]]] = {
    "mathematics": re.compile(
        r"[0-9]\s*[-+*/^=\u00d7\u00f7]\s*[0-9(x]|\b(?:calculate|compute|solve|sum|product|derivative|differentiate|"
        r"integral|integrate|"
        r"primes?|gcd|divisor|divides|divided|remainders?|modulo|equations?|unknowns?|roots?|factor\w*|evaluate|simplify|"
        r"slope|area under)\b",
        re.IGNORECASE,
    ),
    "programming": _words(r"functions?|program|python|code|implement|script|algorithm"),
    "records": _words(r"customers?|accounts?|records?|orders?|database|subscription|update|change|refund|cancel"),
    LOOK_UP: _words(
        r"who|whose|where|when|which|name the|look up|find out|according to|what is the \w+ of|city|person"
    ),
}
"""Words of a question that belong to a field."""

_SPEAKS: Final[dict[str, re.Pattern[str]]] = {
    "mathematics": _words(
        r"math\w*|arithmetic|algebra\w*|calcul\w*|computes?|numbers|numeric|symbolic|equations?|sums?|formulas?|factor\w*"
    ),
    "programming": _words(r"programming|python function|cod(?:e|er|ing)|software|functions?|scripts?|algorithms?"),
    "records": _words(r"records?|database|sql|customers?|accounts?|clerk"),
    LOOK_UP: _words(
        r"look\w*|search\w*|finds?|documents?|facts?|encyclop\w*|readers?|reads|reading|knowledge|retriev\w*"
    ),
}
"""Words of a description that belong to a field."""

_GENERAL: Final = _words(r"general\w*|all-?round\w*|all-purpose|broad|everything|assistant|of every sort|anything")
_SMALL: Final = _words(r"small|tiny|compact|light\w*|entry-level|simple (?:requests|things|questions)|easy")
_PARTS: Final = re.compile(r";|=|\bthen\b|\bwho\b|\bof\b|\b(?:in|from) the\b")
_DEEP: Final = re.compile(r"[0-9]{7,}|\*\*\s*[3-9]|\^\s*[3-9]|\b(?:exp|sin|cos|tan|log|ln|sqrt)\b")
_NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")

_MOST_STEPS: Final = {LOOK_UP: 3}


class Rules(ProgramRouter):
    """Hand-written rules; see the module's text."""

    def choose(self, scene: Scene) -> Choice:
        """The call that the rules lead to."""
        if not any(line.terminal for line in candidates(scene)) and any(not past.error for past in scene.past):
            return give_up(scene)
        field = field_of(scene.question)
        steps = _steps(scene, field)
        if steps and _wants_step(scene, field, {line.name for line in steps}):
            step = min(steps, key=Line.dollars)
            return Choice(step.name, f"{step.name} brings what {_kind(field)} question needs")
        tried = _tried(scene, {line.name for line in steps})
        left = [line for line in enders(scene) if line.name not in tried]
        if not left:
            return give_up(scene)
        best = max(left, key=lambda line: _score(line, scene, field, left))
        return Choice(best.name, f"{best.name} scores best for {_kind(field)} question")


def field_of(question: str) -> str | None:
    """The field whose words the question uses most; a look-up where it only names somebody or something; or None."""
    counts = {field: len(asks.findall(question)) for field, asks in _ASKS.items()}
    best = max(counts, key=lambda field: counts[field])
    if counts[best]:
        return best
    return LOOK_UP if _NAME.search(question) else None


def suitability(line: Line, field: str | None, *, hard: bool) -> float:
    """From 0 (speaks of other fields only) to 1 (speaks of this one)."""
    fields = [name for name, speaks in _SPEAKS.items() if speaks.search(line.description)]
    general = bool(_GENERAL.search(line.description))
    if field is None:
        fit = 1.0 if general or not fields else 0.5
    elif field in fields:
        fit = 1.0
    else:
        fit = 0.8 if general else 0.0 if fields else 0.6
    return fit - 0.6 if hard and _SMALL.search(line.description) else fit


def looks_hard(question: str) -> bool:
    """Whether a question holds long numbers, high powers, functions, or several parts."""
    return bool(_DEEP.search(question)) or len(_PARTS.findall(question)) >= 2


def _steps(scene: Scene, field: str | None) -> list[Line]:
    """Tools that suit the field, do not end the run, are not unwanted, and have not failed."""
    failed = {past.tool for past in scene.past if past.error}
    steps = [line for line in candidates(scene) if not line.terminal and line.name not in failed]
    return [
        line
        for line in steps
        if field and _SPEAKS[field].search(line.description) and not scene.preferences.avoid.get(line.name)
    ]


def _wants_step(scene: Scene, field: str | None, steps: set[str]) -> bool:
    done = sum(past.tool in steps for past in scene.past)
    if done >= _MOST_STEPS.get(field or "", 1):
        return False
    if not scene.past:
        return field == LOOK_UP
    return scene.past[-1].tool not in steps


def _tried(scene: Scene, steps: set[str]) -> set[str]:
    """Tools called since the last step: what it brought, those called before it have not seen."""
    tried: set[str] = set()
    for past in reversed(scene.past):
        if past.tool in steps:
            break
        tried.add(past.tool)
    return tried


def _score(line: Line, scene: Scene, field: str | None, among: list[Line]) -> float:
    weights = scene.preferences
    dearest = max(other.dollars() for other in among) or 1.0
    slowest = max(other.seconds for other in among) or 1.0
    return (
        weights.accuracy * suitability(line, field, hard=looks_hard(scene.question))
        - weights.cost * line.dollars() / dearest
        - weights.latency * line.seconds / slowest
        + weights.prefer.get(line.name, 0.0)
        - 2.0 * weights.avoid.get(line.name, 0.0)
    )


def _kind(field: str | None) -> str:
    return f"a {field}" if field else "this"
