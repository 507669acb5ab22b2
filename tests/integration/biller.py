"""A model provider over HTTP that books each attempt by its key, and plays every model of `victim`'s graph.

The client says in a header which attempt it sends. What a model answers follows from the request alone, so a run that
was killed anywhere must end with the same answer.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, Self

from tests.openai_server import Answer, Body, OpenAIServer, Refusal, Reply, Usage

HEADER = "x-attempt"
USAGE = Usage(prompt=100, completion=10)
WORDS = ("alpha", "beta", "gamma", "delta-a", "delta-b", "epsilon-a", "epsilon-b", "zeta", "eta")
REFUSED = 8
"""One of so many attempts is refused."""

_VALUE = re.compile(r"value\([\w-]+\)=\d+")


def value_of(word: str) -> str:
    """What an expert finds."""
    return f"value({word})={zlib.crc32(word.encode()) % 1000}"


def answer_from(text: str) -> str:
    """All that was found, in one line: a result that is missing or wrong makes another answer."""
    return " ".join(sorted(set(_VALUE.findall(text))))


EXPECTED = answer_from(" ".join(map(value_of, WORDS)))


@dataclass(frozen=True)
class Booked:
    """A request that came in."""

    attempt: str
    """Key of the attempt, as the client says it: `{call or turn id}#{try}`."""
    step: str
    """What it is in any run: `router 0`, `inner delta 1`, `expert alpha`. Without kills each is billed once."""


class Biller(OpenAIServer):
    """The provider. A request is billed when it has come in, whether or not anybody waits for the reply."""

    def __init__(self) -> None:
        super().__init__(script=self._answered)
        self.billed_attempts: set[str] = set()

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def since(self, first: int) -> list[Booked]:
        """What came in from a request on."""
        return [Booked(request.headers[HEADER], _step(request.body)) for request in self.requests[first:]]

    def _answered(self, body: Body) -> Answer:
        attempt = self.requests[-1].headers[HEADER]
        chance = zlib.crc32(attempt.encode())
        if chance % REFUSED == 0:
            return Refusal(503, retry_after=0.005)
        self.billed_attempts.add(attempt)
        content, calls = _PLAYERS[body["model"]](body["messages"])
        return Reply(content, calls=calls, usage=USAGE, delay=0.003 + (chance % 97) / 97 * 0.02)


Message = dict[str, Any]
Said = tuple[str, list[tuple[str, Body | str]]]


def _step(body: Body) -> str:
    model, messages = body["model"], body["messages"]
    if model == "router":
        return f"router {_turns(messages)}"
    if model == "inner":
        return f"inner {_asked_inside(messages)} {_turns(messages)}"
    return "closer" if model == "closer" else f"{model} {_word(messages)}"


def _router(messages: list[Message]) -> Said:
    """Four turns with calls side by side and nested orchestrators, then an ending that the question names."""
    script: list[list[tuple[str, Body | str]]] = [
        [("expert", {"request": "alpha"}), ("expert", {"request": "beta"}), ("look_up", {"word": "gamma"})],
        [("inner", {"request": "delta"})],
        [("inner", {"request": "epsilon"}), ("expert", {"request": "zeta"})],
        [("look_up", {"word": "eta"})],
        [("closer", {})] if "by a tool" in _texts(messages) else [_final(messages)],
    ]
    return "next", script[_turns(messages)]


def _inner(messages: list[Message]) -> Said:
    if _turns(messages):
        return "done", [_final(messages)]
    word = _asked_inside(messages)
    return "both", [("solver", {"request": f"{word}-a"}), ("solver", {"request": f"{word}-b"})]


def _expert(messages: list[Message]) -> Said:
    return value_of(_word(messages)), []


def _closer(messages: list[Message]) -> Said:
    return f"<answer>{answer_from(_texts(messages))}</answer>", []


_PLAYERS = {"router": _router, "inner": _inner, "expert": _expert, "solver": _expert, "closer": _closer}


def _final(messages: list[Message]) -> tuple[str, Body | str]:
    return "final_answer", {"answer": answer_from(_texts(messages))}


def _asked_inside(messages: list[Message]) -> str:
    """The question of a nested run."""
    return str(next(m["content"] for m in messages if m["role"] == "user").split()[0])


def _word(messages: list[Message]) -> str:
    """What an expert is asked for."""
    return str(re.findall(r"Request:\s+([\w-]+)", _texts(messages))[-1])


def _turns(messages: list[Message]) -> int:
    return sum(bool(message.get("tool_calls")) for message in messages)


def _texts(messages: list[Message]) -> str:
    return "\n".join(str(message["content"]) for message in messages)
