"""Sends one request until it is answered: timeouts, retries and pauses, each try under the meter.

This is done inside a node and not by LangGraph's retry policy, which clears the writes of a failed try and with them
its charge.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from langgraph.errors import GraphBubbleUp
from pydantic import ValidationError

from orchestra_graph.billing import is_transient, may_pass, retry_after
from orchestra_graph.catalog import Limits
from orchestra_graph.deadlines import within
from orchestra_graph.errors import ToolError
from orchestra_graph.meter import Meter

T = TypeVar("T")

ChatModel = Runnable[LanguageModelInput, AIMessage]
Ask = Callable[[list[BaseMessage]], Awaitable[AIMessage]]

FIRST_PAUSE: Final = 0.5
"""Seconds before the second try; doubled for each further one, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE: Final = 30.0
"""A server that asks for a longer one is not asked again, by this request."""
_PASSING: Final = frozenset({"rate_limit_exceeded", "server_error", "timeout"})
"""Names by which servers tell an error that may pass."""


class DeadlineError(ToolError):
    """The run's time was used up before the call came back."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"cancelled after {seconds:.1f} s: the run's time is used up")


async def ask(model: Ask, messages: list[BaseMessage]) -> AIMessage:
    """Ask a chat model; callbacks and tracing come from the context of the node, as everywhere below it.

    Args:
        model: `ainvoke` of a chat model, with whatever is bound to it.
        messages: What it reads.

    Raises:
        ToolError: The server's reply is no message, see `unreadable`.
    """
    try:
        return await model(messages)
    except Exception as error:
        fault = unreadable(error)
        if fault is None:
            raise
        raise fault from error


def unreadable(error: Exception) -> ToolError | None:
    """What is wrong with a reply that is no message, or an error below HTTP 200; None for any other failure.

    LangChain lets these pass as a bare IndexError (no choices), TypeError (null in their place), ValidationError, or
    ValueError with the server's error as it stood.
    """
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        return ToolError(f"the server's reply is no message: {place}: {problem['msg']}", retryable=True)
    if isinstance(error, IndexError) or (isinstance(error, TypeError) and "choices" in str(error)):
        return ToolError("the server's reply has no choices", retryable=True)
    body = error.args[0] if type(error) is ValueError and error.args else None
    if not isinstance(body, dict):
        return None
    code = str(body.get("code"))
    passing = code in _PASSING or (code.isdigit() and may_pass(int(code)))
    return ToolError(f"the server's reply is an error: {body.get('message') or body}", retryable=passing)


async def send(
    request: Callable[[], Awaitable[T]],
    *,
    meter: Meter,
    limits: Limits,
    may_retry: Callable[[], bool],
    seconds: float = math.inf,
) -> T:
    """Send a request, and again after a pause when it failed in a way that may pass.

    Args:
        request: Makes one try, under `meter`.
        meter: Tells by how much reported time differs from the clock's.
        limits: Timeout and retries of one call.
        may_retry: Whether the budget pays for one more try.
        seconds: Time that the run has left.

    Raises:
        DeadlineError: The run's time is used up.
        Exception: The last try's failure.
    """
    started = time.perf_counter()
    tries = 0
    while True:
        left = seconds - (time.perf_counter() - started) - meter.shift
        try:
            result = await within(min(limits.timeout, max(0.0, left)), request)
        except GraphBubbleUp:  # an interrupt of the graph, not a failure, whatever the tool failed at before it asks
            raise
        except Exception as error:
            elapsed = time.perf_counter() - started + meter.shift
            if elapsed >= seconds:
                raise DeadlineError(seconds) from error
            if tries == limits.retries or not is_transient(error) or not may_retry():
                raise
            pause = _pause(error, tries)
            if elapsed + pause >= seconds:
                raise
            if pause > LONGEST_PAUSE:
                raise ToolError(
                    f"the server asks to wait {pause:g} s before another try; expected at most {LONGEST_PAUSE:g} s",
                    retryable=True,
                ) from error
            await asyncio.sleep(pause)
            tries += 1
        else:
            if meter.shift and time.perf_counter() - started + meter.shift > seconds:
                # Modelled time cannot be cancelled while it passes; a late result counts as none.
                raise DeadlineError(seconds)
            return result


def _pause(error: Exception, tries: int) -> float:
    asked = retry_after(error)
    if asked is not None:
        return asked
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tries) * random.uniform(0.75, 1.25)
