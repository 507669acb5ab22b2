"""A router of hand-written rules: it reads question, catalog and preferences, and learns nothing.

1. The question's field is guessed from its words: mathematics, programming, look-up, records.
2. A tool suits the question as far as its description speaks of that field, and shares words with the question.
3. A search that suits a look-up is called first, up to twice; it and code tools are only ever a step on the way.
4. Among the tools that end the run and have not been tried, the one with the best score is called: suitability, less cost
   and latency (each relative to the dearest and slowest of them), plus preference, less avoidance, by the user's weights.
5. When all have been tried, it gives up with the newest result.
"""

from __future__ import annotations

import re
from typing import Final

from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.protocols.table import Line
from orchestra_graph.routers.base import Choice, ProgramRouter, Scene
from orchestra_graph.routers.programs import enders, give_up

_FIELDS: Final[dict[str, tuple[re.Pattern[str], re.Pattern[str]]]] = {
    "mathematics": (
        re.compile(
            r"[0-9]\s*[-+*/^=×÷]\s*[0-9(x]|\b(calculate|compute|solve|sum|product|derivative|differentiate|integral|integrate|"
            r"prime|gcd|divisor|remainder|modulo|equation|root|factor\w*|evaluate|simplify)\b",
            re.IGNORECASE,
        ),
        re.compile(r"\b(math\w*|arithmetic|algebra\w*|calculus|calculat\w*|number\w*|symbolic|equation\w*)\b", re.IGNORECASE),
    ),
    "programming": (
        re.compile(r"\b(function|program|python|code|implement|script|algorithm)\b", re.IGNORECASE),
        re.compile(r"\b(program\w*|python|cod(?:e|es|er|ing)|software|function\w*)\b", re.IGNORECASE),
    ),
    "records": (
        re.compile(r"\b(customer|account|record|database|subscription|update|change|refund|cancel)\b", re.IGNORECASE),
        re.compile(r"\b(record\w*|database\w*|customer\w*|account\w*|clerk)\b", re.IGNORECASE),
    ),
    "look-up": (
        re.compile(r"\b(who|where|when|which|whose|name the|look up|find out|according to|what is the \w+ of)\b", re.IGNORECASE),
        re.compile(r"\b(look\w*|search\w*|find\w*|document\w*|fact\w*|encyclop\w*|reader?|reads|knowledge)\b", re.IGNORECASE),
    ),
}
_WORDS: Final = re.compile(r"[a-z]{4,}")
_MOST_SEARCHES: Final = 2


class Rules(ProgramRouter):
    """Hand-written rules; see the module's text."""

    def choose(self, scene: Scene) -> Choice:
        """The call that the rules lead to."""
        field = field_of(scene.question)
        if field == "look-up":
            search = self._search(scene)
            if search is not None:
                return Choice(search.name, f"a {field} question: search before answering")
        tried = {past.tool for past in scene.past}
        left = [line for line in enders(scene) if line.name not in tried]
        if not left:
            return give_up(scene)
        best = max(left, key=lambda line: _score(line, scene, field, left))
        return Choice(best.name, f"{best.name} scores best for {'a ' + field if field else 'this'} question")

    def _search(self, scene: Scene) -> Line | None:
        """The cheapest search that is not avoided and has been called less than twice without an error."""
        counts = {line.name: sum(p.tool == line.name for p in scene.past) for line in scene.lines}
        failed = {past.tool for past in scene.past if past.error}
        searches = [
            line
            for line in scene.lines
            if (line.kind == "search" or (line.kind != "code" and not line.terminal and suits(line, "look-up")))
            and line.name not in failed
            and line.name != FINAL_ANSWER
            and not scene.preferences.avoid.get(line.name)
        ]
        if not searches or sum(counts[line.name] for line in searches) >= _MOST_SEARCHES:
            return None
        return min(searches, key=Line.dollars)


def field_of(question: str) -> str | None:
    """The field whose words the question uses most, or None."""
    counts = {field: len(asks.findall(question)) for field, (asks, _) in _FIELDS.items()}
    best = max(counts, key=lambda field: counts[field])
    return best if counts[best] else None


def suits(line: Line, field: str) -> bool:
    """Whether a tool's description speaks of a field."""
    return bool(_FIELDS[field][1].search(line.description))


def _score(line: Line, scene: Scene, field: str | None, among: list[Line]) -> float:
    weights = scene.preferences
    fits = 1.0 if field and suits(line, field) else 0.0
    shared = set(_WORDS.findall(line.description.lower())) & set(_WORDS.findall(scene.question.lower()))
    dearest = max(other.dollars() for other in among) or 1.0
    slowest = max(other.seconds for other in among) or 1.0
    return (
        weights.accuracy * (fits + 0.1 * min(5, len(shared)))
        - weights.cost * line.dollars() / dearest
        - weights.latency * line.seconds / slowest
        + weights.prefer.get(line.name, 0.0)
        - 2.0 * weights.avoid.get(line.name, 0.0)
    )
