"""A protocol for very small routers: the tools one by one, the best bargain first, and one word for each.

For each line of the catalog the router reads one short prompt and replies with one token, `take` or `skip`. The first
`take` is the call; where all lines are skipped, it is the one that was skipped least surely, by the logprobs of the
words (the last one where the router tells none). So nothing is copied out of the prompt, nothing needs to be
constrained, and a name that was never seen costs nothing. Any reply but the two words is a malformed turn.

The order is by what the user's own weights make of a call: its dollars, its seconds, whether the tool is preferred or
to be avoided. By default that is the cheapest first. So what is left to the router is what no number tells: whether a
tool can bring this task forward. A tool that the user wants avoided is asked about when the last one of the others has
been tried, and from then on.

A tool that has brought the same result twice is passed over for the rest of the run: a small router replies alike to
what looks alike, and would call it until the budget is gone.

What a small model cannot read is written so that it can: a long number as how many digits it has, prices and times as
shares of the greatest, what is left of the budget as the calls that it pays for, a tool's name in the user's wish as
`this tool` or `another tool`. It does not count either, so what a question asks in several parts, with semicolons
between them, is told with their number. What is not the case (a wish, a limit, an earlier call) takes no words.

Left out: arguments. Experts read question and evidence by themselves, so a tool that needs arguments is refused, and a
catalog needs a tool that ends the run. What was said before the question is not shown.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import median
from types import MappingProxyType
from typing import Any, ClassVar, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from orchestra_graph.captures import logprob_of
from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Preferences, thrift
from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.text import clean, estimate_tokens, neutralise
from orchestra_graph.turns import Decision, Outcome

TAKE: Final = "take"
SKIP: Final = "skip"

TYPICAL_TOKENS: Final = (300, 100)
"""Tokens in and out of the call by whose price lines are put in order."""

_QUESTION_SHOWN: Final = 900
_DESCRIPTION_SHOWN: Final = 280
_RESULT_SHOWN: Final = 140
"""Characters, for the beginning and the end together."""
_RESULTS_SHOWN: Final = 4
_COUNTS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10)
"""What is counted in calls, turns or parts is told as the greatest of these that it reaches."""

_LONG_NUMBER: Final = re.compile(r"\d{3,}")
_SPACES: Final = re.compile(r"\s+")


class ScanProtocol(Protocol):
    """Reads the catalog line by line."""

    name: ClassVar[str] = "scan"
    sampling = MappingProxyType({"max_tokens": 1})

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        """A view a line, until one is taken."""
        scan = _Scan(situation)
        skipped: dict[str, float | None] = {}
        for spec in scan.asked:
            reply = yield scan.view(spec)
            word = clean(reply.text).strip()
            if word == TAKE:
                return scan.decision(spec)
            if word != SKIP:
                return _malformed(word)
            skipped[spec.name] = logprob_of(reply)
        return scan.decision(scan.resort(skipped))

    def replies(self, situation: Situation, decision: Decision) -> Iterator[tuple[View, AIMessage]]:
        """The views and words that lead to the decision; none where no words do."""
        scan, called = _Scan(situation), [call["tool"] for call in decision["calls"]]
        if len(called) != 1 or called[0] not in {spec.name for spec in scan.asked}:
            return
        for spec in scan.asked:
            taken = spec.name == called[0]
            yield scan.view(spec), AIMessage(TAKE if taken else SKIP)
            if taken:
                return

    def views(self, situation: Situation) -> Iterator[tuple[ToolSpec, View]]:
        """What the router reads of each line that it can be asked about, in order, also behind one that it takes."""
        scan = _Scan(situation)
        for spec in scan.asked:
            yield spec, scan.view(spec)

    def check(self, catalog: Catalog) -> None:
        """Every tool can be called without arguments, and one of them ends the run.

        Raises:
            ConfigError: Names the tools that cannot.
        """
        needing = [spec.name for spec in catalog.tools.values() if spec.required]
        if needing:
            raise ConfigError(
                f"the protocol scan calls tools without arguments, which {', '.join(map(repr, needing))} "
                "would need; make them experts, leave them out with .restrict(...), or use another protocol"
            )


@lru_cache(maxsize=128)
def in_order(catalog: Catalog, preferences: Preferences) -> tuple[ToolSpec, ...]:
    """The lines in the order in which they are read: the best bargain first, then by price, latency and name.

    What a call is worth is `cost * M_0 / (M_0 + M)` for its dollars, the same with `latency` for its seconds, plus the
    weight of a preferred tool, less that of one to be avoided; M is of a typical call, M_0 the catalog's median. A
    tool whose price nobody knows is no bargain.
    """
    lines = catalog.tools.values()
    known = [price for spec in lines if (price := _dollars(spec)) < math.inf]
    dollars = median(known) if known else 0.0
    seconds = median(spec.latency.p50 for spec in lines)

    def bargain(spec: ToolSpec) -> float:
        wished = preferences.prefer.get(spec.name, 0.0) - preferences.avoid.get(spec.name, 0.0)
        if math.isinf(_dollars(spec)):
            return wished
        cost, latency = thrift(dollars, _dollars(spec)), thrift(seconds, spec.latency.p50)
        return wished + preferences.cost * cost + preferences.latency * latency

    return tuple(sorted(lines, key=lambda spec: (-bargain(spec), _dollars(spec), spec.latency.p50, spec.name)))


def dearest(lines: Iterable[ToolSpec]) -> float:
    """Dollars of a typical call of the dearest line, of which the prompts state shares; 0 where no price is known."""
    return max((price for spec in lines if (price := _dollars(spec)) < math.inf), default=0.0)


def _dollars(spec: ToolSpec) -> float:
    if spec.is_unpriced:
        return math.inf
    sent, wrote = TYPICAL_TOKENS
    return spec.price.dollars(input_tokens=sent, output_tokens=wrote, calls=1, seconds=spec.latency.p50)


@dataclass(frozen=True)
class _Scan:
    """One decision's views."""

    situation: Situation

    @property
    def _catalog(self) -> tuple[ToolSpec, ...]:
        return in_order(self.situation.catalog, self.situation.preferences)

    @property
    def lines(self) -> tuple[ToolSpec, ...]:
        """The lines that could bring something new; all of them where none could."""
        return tuple(spec for spec in self._catalog if spec.name not in self._repeating) or self._catalog

    @property
    def open(self) -> tuple[ToolSpec, ...]:
        """The lines that may be called."""
        wanted = [spec for spec in self._catalog if not self._is_unwanted(spec)]
        tried = any(tool == spec.name for spec in wanted[-1:] for tool, _ in self._results)
        new = tuple(spec for spec in self.lines if not self._is_unwanted(spec))
        return self.lines if tried or not new else new

    @property
    def asked(self) -> tuple[ToolSpec, ...]:
        """The lines that the router is asked about; none where there is but one."""
        return self.open if len(self.open) > 1 else ()

    def resort(self, skipped: Mapping[str, float | None]) -> ToolSpec:
        """What is called where all are skipped: one that is not to be avoided, if there is one.

        Args:
            skipped: Logprob of each `skip`. The last of those that are about equally sure is called, and the last of
                all where it is not known of each.
        """
        lines = tuple(spec for spec in self.open if not self._is_unwanted(spec)) or self.open
        # To three digits: what is beyond depends on how a server batches its requests.
        sure = [float(f"{logprob:.3g}") for spec in lines if (logprob := skipped.get(spec.name)) is not None]
        if len(sure) < len(lines):
            return lines[-1]
        return lines[max(range(len(lines)), key=lambda place: (-sure[place], place))]

    def _is_unwanted(self, spec: ToolSpec) -> bool:
        return bool(self.situation.preferences.avoid.get(spec.name))

    def view(self, spec: ToolSpec) -> View:
        """What the router reads about one line; all lines of a decision begin with the same text."""
        text = "\n".join(filter(None, [self._beginning, self._wish(spec), self._findings(spec), *self._line(spec)]))
        messages: list[BaseMessage] = [HumanMessage(text)]
        return View(messages, _NO_FUNCTIONS, estimate_tokens(text))

    def decision(self, spec: ToolSpec) -> Decision:
        """The call of a line, without arguments."""
        lines = self._catalog
        place = lines.index(spec) + 1
        reason = f"{spec.name}: line {place} of {len(lines)}"
        call_id = f"{self.situation.turn_id}-0"
        return {"calls": [{"id": call_id, "tool": spec.name, "args": {}}], "reason": reason, "by": "router"}

    @cached_property
    def _beginning(self) -> str:
        preferences = self.situation.preferences
        weights = f"accuracy {_tenths(preferences.accuracy)} cost {_tenths(preferences.cost)}"
        question = _shown(self.situation.question, _QUESTION_SHOWN)
        parts = self.situation.question.count(";") + 1
        told = f" of {_count(parts)} parts" if parts > 1 else ""
        return f"Task{told}: {question}\nWeights: {weights} latency {_tenths(preferences.latency)}"

    @cached_property
    def _left(self) -> Spent:
        return self.situation.left

    @cached_property
    def _repeating(self) -> set[str]:
        """The tools that have brought the same result twice."""
        times = Counter((tool, outcome["content"]) for tool, outcome in self._results)
        return {tool for (tool, _), count in times.items() if count > 1}

    @cached_property
    def _results(self) -> list[tuple[str, Outcome]]:
        """Tools and what they brought, oldest first."""
        return [
            (call["tool"], turn["outcomes"][call["id"]])
            for turn in self.situation.turns.values()
            for call in turn["decision"]["calls"]
            if call["id"] in turn["outcomes"]
        ]

    def _wish(self, spec: ToolSpec) -> str:
        text = _shown(self.situation.preferences.text, _QUESTION_SHOWN)
        return f"Wish: {_anonymous(text, spec.name, self.situation.catalog)}" if text else ""

    def _findings(self, spec: ToolSpec) -> str:
        results = self._results
        lines = [f"Found: {_count(len(results))}"]
        for tool, outcome in results[-_RESULTS_SHOWN:]:
            whose = "this" if tool == spec.name else "other"
            failed = " failed" if outcome["error"] else ""
            lines.append(f"{whose}{failed}: {_shown(outcome['content'], _RESULT_SHOWN)}")
        return "\n".join(lines)

    def _line(self, spec: ToolSpec) -> Iterator[str]:
        lines = self._catalog
        most = dearest(lines)
        slowest = max(line.latency.p50 for line in lines)
        used = sum(tool == spec.name for tool, _ in self._results)
        yield f"Tool {lines.index(spec) + 1} of {len(lines)}: {_shown(spec.description, _DESCRIPTION_SHOWN)}"
        yield (
            f"cost {_share(_dollars(spec), most)} time {_share(spec.latency.p50, slowest)} "
            f"{'ends' if spec.terminal else 'goes on'}" + (f" used {_count(used)}" if used else "")
        )
        yield _told(pays=_calls(self._left.dollars, _dollars(spec)), fits=_calls(self._left.seconds, spec.latency.p50))
        yield _told(turns=_count(self._left.turns) if self._left.turns < _COUNTS[-1] else "")
        yield _wanted(self.situation.preferences, spec.name, {tool for tool, _ in self._results})


_NO_FUNCTIONS: Final[list[dict[str, Any]]] = []


def _malformed(word: str) -> Decision:
    detail = f"the reply is {word[:40]!r}; expected {TAKE!r} or {SKIP!r}"
    return {"calls": [], "reason": "", "by": "router", "problem": {"kind": "no_call", "detail": detail}}


def _wanted(preferences: Preferences, name: str, used: set[str]) -> str:
    """What the user's weights say of this tool, and of others that are still to be used."""
    others = [weight for tool, weight in preferences.prefer.items() if tool != name and tool not in used]
    weights = {
        "prefer": preferences.prefer.get(name, 0.0),
        "avoid": preferences.avoid.get(name, 0.0),
        "others": max(others, default=0.0),
    }
    return _told(**{word: str(_tenths(weight)) if weight else "" for word, weight in weights.items()})


def _told(**facts: str) -> str:
    """The facts that are known, in one line."""
    return " ".join(f"{name} {fact}" for name, fact in facts.items() if fact)


def _tenths(weight: float) -> int:
    return round(10 * weight)


def _count(number: float) -> str:
    """The greatest known count that a number reaches."""
    reached = max(count for count in _COUNTS if count <= number)
    return f"{reached}+" if reached == _COUNTS[-1] else str(reached)


def _calls(left: float, each: float) -> str:
    """How many calls at a price what is left pays for; nothing where it pays for any number."""
    return "" if math.isinf(left) or not each else _count(left / each)


def _share(part: float, whole: float) -> str:
    """A share as the power of two it is nearest to, from 0, the whole, to 9 and less."""
    if not whole or math.isinf(part):
        return "unknown"
    return str(min(9, round(-math.log2(part / whole)))) if part else "none"


def _shown(text: str, characters: int) -> str:
    """A text on one line, without control tokens, long numbers as their lengths, the middle cut out if it is long."""
    text = _LONG_NUMBER.sub(lambda number: f"#{len(number[0])}", _SPACES.sub(" ", neutralise(text))).strip()
    if len(text) <= characters:
        return text
    head = characters * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (characters - head) :]}"


def _anonymous(text: str, name: str, catalog: Catalog) -> str:
    """A wish with each tool's name replaced by what it is to the line that is read."""
    for other in sorted(catalog.tools, key=len, reverse=True):
        said = "this tool" if other == name else "another tool"
        text = re.sub(rf"(?<![\w-]){re.escape(other)}(?![\w-])", said, text, flags=re.IGNORECASE)
    return text
