"""What a failure means for the bill, and whether the same call may be sent again.

Providers bill answers, not refusals: a status code of 400 or above and a connection that was never made cost
nothing. Whatever broke after the request was sent (a reset, a timeout, a cancelled call, an answer that cannot be
read) may have been billed or not: that is `uncertain`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from langchain_core.exceptions import ContextOverflowError

from orchestra_graph.errors import ToolError
from orchestra_graph.redact import hide_secrets

_NEVER_SENT: Final = (
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ConnectionRefusedError",
    "gaierror",
    "UnsupportedProtocol",
)
"""Names of exceptions of httpx, aiohttp, requests and the standard library raised before a request leaves."""

_SENT: Final = (
    "ReadTimeout",
    "ReadTimeoutError",
    "WriteTimeout",
    "ReadError",
    "WriteError",
    "RemoteProtocolError",
    "ServerDisconnectedError",
    "ConnectionResetError",
    "CancelledError",
)
"""Names of those that are raised after it has left, of the same libraries and of urllib3."""

_TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429})
_PERMANENT_NAMES: Final = frozenset({"UnsupportedProtocol", "InvalidURL"})
_TRANSPORT_NAMES: Final = frozenset(
    {"APIConnectionError", "TransportError", "RequestError", "RequestException", "ClientConnectionError"}
)

_VLLM_OVERFLOW: Final = "This model's maximum context length is"
"""How vLLM words it, which langchain-openai does not take for what it is."""


def is_refusal(error: BaseException) -> bool:
    """Whether the failure shows that nothing was billed."""
    for e in _chain(error):
        name = type(e).__name__
        if status_of(e) is not None or name in _NEVER_SENT:
            return True
        if name in _SENT:  # what comes after it may be the failure of another request, which was handled
            return False
    return False


def is_bad_request(error: BaseException) -> bool:
    """Whether the server understood who asks, but not what (HTTP 400 or 422)."""
    return any(status_of(e) in (400, 422) for e in _chain(error))


def is_overflow(error: BaseException) -> bool:
    """Whether the model was asked to read more than it can."""
    return any(isinstance(e, ContextOverflowError) or _VLLM_OVERFLOW in str(e) for e in _chain(error))


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed when it is sent again."""
    for e in _chain(error):
        if isinstance(e, ToolError):
            return e.retryable
        status = status_of(e)
        if status is not None:
            return may_pass(status)
        names = {c.__name__ for c in type(e).__mro__}
        if names & _PERMANENT_NAMES:
            return False
        if isinstance(e, TimeoutError | ConnectionError | json.JSONDecodeError) or names & _TRANSPORT_NAMES:
            return True
    return False


def may_pass(status: int) -> bool:
    """Whether what this HTTP status tells may be over at the next try."""
    return status >= 500 or status in _TRANSIENT_STATUS


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait, from a `Retry-After` header; None where it says nothing readable."""
    for e in _chain(error):
        headers = getattr(getattr(e, "response", None), "headers", None)
        value = headers.get("retry-after") if headers is not None else None
        if value is not None:
            try:
                return max(0.0, float(value))
            except ValueError:  # an HTTP date: rare, and the ordinary backoff does
                return None
    return None


def status_of(error: BaseException) -> int | None:
    """HTTP status of 400 or above that the error carries, or None."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def describe(error: BaseException) -> str:
    """One line: the error's class and text, and the root cause where it says more; keys in it are hidden."""
    *_, root = _chain(error)
    text = _one_line(error)
    return text if root is error or _one_line(root) in text else f"{text} ({_one_line(root)})"


def _one_line(error: BaseException) -> str:
    text = hide_secrets(" ".join(str(error).split()))
    name = type(error).__name__
    return text if isinstance(error, ToolError) else f"{name}: {text}" if text else name


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    seen: set[int] = set()
    e: BaseException | None = error
    while e is not None and id(e) not in seen:
        seen.add(id(e))
        yield e
        e = e.__cause__ or (None if e.__suppress_context__ else e.__context__)
