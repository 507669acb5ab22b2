"""The messages of a service conversation: written from turns, kept for later runs, and cut to the router's input.

The same messages are written for the view of a run and for what the run leaves in the conversation, so that later runs
show byte for byte what this one did. What is shown is neutralised here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.text import clean, neutralise, neutralise_values
from orchestra_graph.tokens import Tokenizer
from orchestra_graph.turns import Outcome, Turn, args_sent

GAP: Final = "[... {n} earlier messages of this conversation are left out here ...]"
"""A message of its own between the first and the last part of a conversation that is too long."""

CUT: Final = "\n[... the rest of this message is left out ...]"
"""Ends a message that is too long by itself."""

NO_RESULT: Final = "(no result)"

_FRAME: Final = 5
"""Tokens that a chat template puts around a message: its role, and the marks of its beginning and end."""

_MOST_COUNTED: Final = 65_536
"""Texts whose number of tokens is remembered."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Messages that stand or fall together: calls with all their results, or any other message alone."""

    messages: list[BaseMessage]
    tokens: int


class Counter:
    """Counts the tokens of messages; of texts that were counted before it remembers how many."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        text = clean(text)
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        known = self._known.pop(key, None)
        self._known[key] = tokens = self._tokenizer.count(text) if known is None else known
        if len(self._known) > _MOST_COUNTED:
            self._known.popitem(last=False)
        return tokens

    def unit(self, messages: list[BaseMessage]) -> Unit:
        """Messages that stand or fall together, counted."""
        return Unit(messages, self.count("\n".join(map(_text, messages))) + _FRAME * len(messages))

    def shorten(self, unit: Unit, tokens: int) -> Unit:
        """A unit whose messages share so many tokens, each cut to its part."""
        share = max(1, tokens // len(unit.messages) - _FRAME)
        return self.unit([self._shorten(message, share) for message in unit.messages])

    def _shorten(self, message: BaseMessage, tokens: int) -> BaseMessage:
        if self.count(message.text) <= tokens:
            return message
        text = self._tokenizer.first(message.text, max(0, tokens - self.count(CUT)))
        return message.model_copy(update={"content": f"{text}{CUT}"})


def turn_messages(turn: Turn, experts: Collection[str]) -> list[BaseMessage]:
    """Calls and results of a turn as they came; nothing of experts, whose replies are turns of their own."""
    calls = [c for c in turn["decision"]["calls"] if c["tool"] != FINAL_ANSWER and c["tool"] not in experts]
    if not calls:
        return []
    pairs = [(c, turn["outcomes"].get(c["id"])) for c in calls]
    tool_calls = [{"name": c["tool"], "args": args_sent(c, o), "id": c["id"], "type": "tool_call"} for c, o in pairs]
    results = [_result(c["id"], c["tool"], o) for c, o in pairs]
    return [AIMessage(turn["decision"]["reason"], tool_calls=tool_calls), *results]


def _result(call_id: str, tool: str, outcome: Outcome | None) -> ToolMessage:
    if outcome is None:
        return ToolMessage(NO_RESULT, tool_call_id=call_id, name=tool, status="error")
    text = outcome["content"]
    if outcome["error"] and not text.startswith("Error"):
        text = f"Error: {text}"
    return ToolMessage(text, tool_call_id=call_id, name=tool, status="error" if outcome["error"] else "success")


def shown(messages: Iterable[BaseMessage]) -> Iterator[list[BaseMessage]]:
    """What stands or falls together, as the router reads it.

    System messages are left out, since the policy is the protocol's; so are results that nothing shown has called for.
    """
    rest = deque(messages)
    while rest:
        message = rest.popleft()
        if isinstance(message, HumanMessage):
            yield [HumanMessage(neutralise(message.text))]
        elif isinstance(message, AIMessage) and message.tool_calls:
            results: dict[str, str] = {}
            while rest and isinstance(rest[0], ToolMessage):
                result = cast(ToolMessage, rest.popleft())
                results[result.tool_call_id] = result.text
            yield _called(message, results)
        elif isinstance(message, AIMessage) and message.text:
            yield [AIMessage(neutralise(message.text))]


def _called(message: AIMessage, results: dict[str, str]) -> list[BaseMessage]:
    calls = [{**call, "id": call["id"] or "", "args": neutralise_values(call["args"])} for call in message.tool_calls]
    answers = [
        ToolMessage(neutralise(results.get(call["id"], NO_RESULT)), tool_call_id=call["id"], name=call["name"])
        for call in calls
    ]
    return [AIMessage(neutralise(message.text), tool_calls=calls), *answers]


def fit(system: Unit, units: Sequence[Unit], room: int, counter: Counter) -> list[BaseMessage]:
    """The messages of a conversation within so many tokens, the mark of a gap not counted.

    What is too long keeps the units that lie wholly in the first half of the room, the system text among them, and
    those wholly in the last half. The newest unit is always there, and cut if it has no room beside the system text.
    """
    if system.tokens + sum(unit.tokens for unit in units) <= room:
        return [*system.messages, *(m for unit in units for m in unit.messages)]
    newest = units[-1]
    if newest.tokens > room - system.tokens:
        newest = counter.shorten(newest, max(room - system.tokens, room // 4))
    half = room // 2
    head, used = 0, system.tokens
    while head < len(units) - 1 and used + units[head].tokens <= min(half, room - newest.tokens):
        used += units[head].tokens
        head += 1
    tail, kept = len(units) - 1, newest.tokens
    while tail > head and kept + units[tail - 1].tokens <= min(half, room - used):
        tail -= 1
        kept += units[tail].tokens
    gap = sum(len(unit.messages) for unit in units[head:tail])
    marks: list[BaseMessage] = [HumanMessage(GAP.format(n=gap))] if gap else []
    parts = [*units[:head], Unit(marks, 0), *units[tail:-1], newest]
    return [*system.messages, *(message for unit in parts for message in unit.messages)]


def _text(message: BaseMessage) -> str:
    """The text of a message as a chat template writes it, calls among it, without the marks around it."""
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    written = [json.dumps({"name": c["name"], "arguments": c["args"]}, ensure_ascii=False) for c in calls]
    return "\n".join([message.text, *(f"<tool_call>\n{call}\n</tool_call>" for call in written)])
