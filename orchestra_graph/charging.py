"""An attempt under way, and its charge when it has come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langgraph.errors import GraphBubbleUp

from orchestra_graph.billing import describe, is_refusal
from orchestra_graph.catalog import Price
from orchestra_graph.text import estimate_tokens


@dataclass(slots=True)
class Attempt:
    """An attempt that has been sent and has not come back."""

    key: str
    price: Price
    started: float
    model: str | None = None
    prompt: Any = None
    """What is sent, or about how many tokens it is."""
    run_id: UUID | None = None
    """The request's run in a trace, where LangChain tells it."""
    reported_seconds: float | None = None
    reported_dollars: float = 0.0
    inner_seconds: float = 0.0
    """Seconds by the clock of what was called inside."""
    inner_work: float = 0.0
    """Its seconds of work, modelled ones among them."""

    @property
    def tokens(self) -> int:
        """About how many tokens are sent."""
        return self.prompt if isinstance(self.prompt, int) else estimate_tokens(self.prompt)


def stated_usage(stated: dict[str, Any]) -> UsageMetadata:
    """OpenAI's `usage` in LangChain's words."""
    sent, wrote = stated.get("prompt_tokens", 0), stated.get("completion_tokens", 0)
    return {"input_tokens": sent, "output_tokens": wrote, "total_tokens": sent + wrote}


def own_charge(own: Attempt, seconds: float, error: BaseException | None) -> dict[str, Any]:
    """Charge of a try of a call, beside the charges of the model requests inside it.

    Args:
        own: The try.
        seconds: Of its own work.
        error: What ended it, if it failed.
    """
    work = seconds + own.inner_work
    dollars = own.price.dollars(calls=1, seconds=work) + own.reported_dollars
    if error is None:
        return {"status": "paid", "dollars": dollars, "seconds": seconds}
    known = own.reported_dollars + own.price.dollars(seconds=work)
    if dollars == known or is_refusal(error) or isinstance(error, GraphBubbleUp):
        return {"status": "failed", "dollars": known, "seconds": seconds, "error": describe(error)}
    return {"status": "uncertain", "dollars": known, "upper": dollars, "seconds": seconds, "error": describe(error)}


def paid(request: Attempt, message: BaseMessage | None, text: str, clock: float, *, is_whole: bool) -> dict[str, Any]:
    """Charge of an answered request, from the usage that the server states."""
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    seconds = clock if request.reported_seconds is None else request.reported_seconds
    if usage is not None and usage.get("total_cost") == 0:
        # LangChain's own model cache answered: it says so by this field, and nothing was sent.
        return {"status": "cached", "dollars": 0.0, "seconds": seconds}
    if usage is not None and "input_tokens" in usage:
        sent, wrote = usage["input_tokens"], usage["output_tokens"]
        details = usage.get("input_token_details")
        cached = details.get("cache_read", 0) if details else 0
    else:
        sent = request.tokens
        wrote = estimate_tokens(text if message is None else message)
        cached = 0
    dollars = request.price.dollars(
        input_tokens=sent,
        cached_tokens=cached,
        output_tokens=wrote,
        calls=1 if is_whole else 0,
        seconds=seconds if is_whole else 0.0,
    )
    charge = {
        "status": "paid",
        "dollars": dollars + request.reported_dollars,
        "seconds": seconds,
        "input_tokens": sent,
        "cached_tokens": cached,
        "output_tokens": wrote,
    }
    if usage is None:
        charge["estimated"] = True
    return charge
