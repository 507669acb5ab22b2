"""A model provider that keeps its own books, to hold a ledger against, and a tool that may cost more than its price.

Each request is answered, refused or lost as the script says, or the process dies on it; when the script is over, every
request is answered. Usage and prices are round, so that sums can be compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from orchestra_graph.catalog import Limits, Price, ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.meter import current_meter, report
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.turns import Charge, Turn

Event = Literal["answer", "empty", "refused", "invalid", "unsent", "lost", "lost unbilled", "crash", "crash unbilled"]

PRICE = Price(input=10.0, output=100.0)
ANSWERED = 0.002
"""Dollars of one answered request: 100 tokens in, 10 out."""
LIMITS = Limits(timeout=5.0, retries=2, output_tokens=500)


class CrashError(BaseException):
    """The process dies: nothing on the way may catch this."""


@dataclass
class Books:
    """What a provider has billed."""

    requests: int = 0
    answered: int = 0
    """Billed, and the caller knows."""
    lost: int = 0
    """Billed, and the caller never heard."""

    @property
    def known(self) -> float:
        return self.answered * ANSWERED

    @property
    def owed(self) -> float:
        return (self.answered + self.lost) * ANSWERED


class RefusedError(Exception):
    """An error with a status code, as clients of HTTP APIs raise it."""

    def __init__(self, message: str, status_code: int = 429) -> None:
        super().__init__(message)
        self.status_code = status_code


class Provider(BaseChatModel):
    """A chat model of the provider: says `text`, or what the script says happens instead."""

    text: str = "<answer>42</answer>"
    calls: list[tuple[str, dict[str, Any]]] = Field(default_factory=list)
    """Tool calls that each answer makes."""
    script: list[Event] = Field(default_factory=list)
    books: Books = Field(default_factory=Books)

    @property
    def _llm_type(self) -> str:
        return "provider"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.books.requests += 1
        event = self.script.pop(0) if self.script else "answer"
        if event in ("answer", "empty"):
            self.books.answered += 1
            return _result("" if event == "empty" else self.text, self.calls)
        if event in ("lost", "crash"):
            self.books.lost += 1
        raise _error(event)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        await asyncio.sleep(0)
        return self._generate(messages)


class _DyingError(Exception):
    """What a `Mortal` expert dies of. LangChain does not let a BaseException pass through an async model."""


class Mortal(Expert):
    """An expert on whose request the process may die."""

    async def run(self, request: Request) -> Result:
        try:
            return await super().run(request)
        except _DyingError:
            raise CrashError from None


def _error(event: Event) -> BaseException:
    if event == "refused":
        return RefusedError("slow down")
    if event == "invalid":
        return RefusedError("no such model", 400)
    if event == "unsent":
        return httpx.ConnectError("connection refused")
    if event.startswith("crash"):
        return _DyingError()
    return httpx.ReadError("connection reset")


def _result(text: str, calls: Iterable[tuple[str, dict[str, Any]]]) -> ChatResult:
    message = AIMessage(
        text,
        tool_calls=[{"name": name, "args": args, "id": f"call_{i}"} for i, (name, args) in enumerate(calls)],
        usage_metadata={"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


class Paid(Tool):
    """Costs its price a call, and what it reports on top."""

    def __init__(
        self,
        name: str,
        price: float,
        *,
        extra: float = 0.0,
        seconds: float = 0.0,
        fails: bool = False,
        answer: str | None = None,
        **spec: Any,
    ) -> None:
        self.spec = ToolSpec(name=name, price=Price(per_call=price), terminal=answer is not None, **spec)
        self.extra = extra
        self.seconds = seconds
        self.fails = fails
        self.answer = answer
        self.sent = 0
        self.left: list[Any] = []

    async def run(self, request: Request) -> Result:
        self.sent += 1
        meter = current_meter()
        self.left.append(meter.left if meter is not None else None)
        report(dollars=self.extra, seconds=self.seconds)
        if self.fails:
            raise ToolError("broken", retryable=True)
        return Result(f"result of {self.spec.name}", answer=self.answer)


def charges_of(turns: Mapping[str, Turn], tool: str | None = None) -> dict[str, Charge]:
    """Charges of a run by key; only those of one name if it is given."""
    return {
        key: charge
        for turn in turns.values()
        for key, charge in turn["charges"].items()
        if tool is None or charge["tool"] == tool
    }
