"""The meter: turns every physical attempt of a call into a charge.

One meter belongs to one call (or one decision of the router). Each try of a call is opened with `Meter.attempt`;
model requests made inside are seen by the meter as a LangChain callback handler, however deep they are nested. Keys
of charges are `{call id}#{try}` for the call itself and `{call id}#{try}.{request}` for the model requests inside
it.

Meters nest: a tool may be an orchestrator with meters of its own. Only the innermost meter writes a charge, and hands
it up as soon as it is known, so nothing is counted twice. It tells the meters around it of each attempt before it is
sent, so that the journal of every run around it holds the attempt when the process is killed.

Left out: threads that a tool starts without a copy of its context; `ContextThreadPoolExecutor` of
`langchain_core.runnables.config` copies it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from orchestra_graph import events, spans
from orchestra_graph.billing import describe, is_refusal
from orchestra_graph.catalog import ModelSpec, Price, ToolSpec
from orchestra_graph.charging import Attempt, own_charge, paid, stated_usage
from orchestra_graph.journal import Journal, best_known
from orchestra_graph.state import BudgetLeft
from orchestra_graph.turns import Charge

_current: ContextVar[Meter | None] = ContextVar("orchestra_graph_meter", default=None)

_handler: ContextVar[Meter | None] = ContextVar("orchestra_graph_meter_handler", default=None)
register_configure_hook(_handler, inheritable=True)
# LangChain adds the meter to the callbacks of everything that is called inside a tool, also where a tool calls a model
# without passing its config on.

PriceOf = Callable[[ModelSpec, str | None], Price]
"""Price of a model request by its tool's spec and the name of the model; where that is None, of a call of the tool."""


def report(*, seconds: float = 0.0, dollars: float = 0.0) -> None:
    """Tell the meter what the attempt under way is known to have taken; without a meter this does nothing.

    Args:
        seconds: Seconds of work, for example a vendor's own figure or modelled time: replaces the clock. Adds up.
        dollars: Dollars on top of the catalog's price. Adds up.
    """
    meter = _current.get()
    if meter is not None:
        meter.report(seconds, dollars)


def current_meter() -> Meter | None:
    """The innermost meter of this context."""
    return _current.get()


class Meter(BaseCallbackHandler):
    """Writes the charges of one call.

    Args:
        call_id: Id of the call, or of the turn for the router.
        tool: Name to charge.
        spec: Price and limits of what is charged.
        price_of: Prices the model requests inside.
        journal: Remembers the attempts, for a process that takes the call up again.
        first: Number of the first try; above 0 when a call is taken up again.
        left: What the run may still spend; a nested orchestrator stays within it.
    """

    run_inline = raise_error = True
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(
        self,
        call_id: str,
        tool: str,
        spec: ModelSpec,
        *,
        price_of: PriceOf,
        journal: Journal | None = None,
        first: int = 0,
        left: BudgetLeft | None = None,
    ) -> None:
        self.call_id = call_id
        self.tool = tool
        self.spec = spec
        self.left = left
        self.charges: dict[str, Charge] = {}
        self.shift = 0.0
        """Seconds by which reported time exceeds the clock's: add it to a clock reading to get the run's time."""
        self._price_of = price_of
        self.journal = journal
        self._try = first - 1
        self._own: Attempt | None = None
        self._requests: dict[UUID | str, Attempt] = {}
        self._count = 0
        self.outer = _current.get()

    @property
    def next_try(self) -> int:
        """Number of the try that comes after the ones made."""
        return self._try + 1

    def attempt(self) -> _Try:
        """One try of a tool's call, to be entered: charged by itself, and for every model request made inside."""
        return _Try(self)

    def request(self, tokens: int) -> _Request:
        """One request of the router to its own model, to be entered; hand the reply to what entering gives.

        The same charge as that of a model request inside a tool, without a detour through callbacks.

        Args:
            tokens: About how many are sent.
        """
        return _Request(self, tokens)

    @contextmanager
    def call_of(self, spec: ToolSpec) -> Iterator[None]:
        """A call of another tool that this one makes by itself: a charge beside its own, at the other tool's price.

        Args:
            spec: The other tool's own line; the catalog's of that name says the price, where there is one.
        """
        key = f"{self.call_id}#{self._try}.{self._count}"
        self._count += 1
        call = self._requests[key] = Attempt(key, self._price_of(spec, None), time.perf_counter())
        if self.journal or self.outer:
            self._tell(key, self.tool, call.price.dollars(calls=1, seconds=spec.limits.timeout))
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            del self._requests[key]
            clock = time.perf_counter() - call.started
            seconds = clock if call.reported_seconds is None else call.reported_seconds
            self._record_request(call, own_charge(call, seconds, failure), clock)

    def report(self, seconds: float, dollars: float) -> None:
        """See `report`: goes to the newest model request under way, else to the call itself."""
        target = next(reversed(self._requests.values()), None) or self._own
        if target is not None:
            target.reported_dollars += dollars
            if seconds:
                target.reported_seconds = (target.reported_seconds or 0.0) + seconds

    def absorb(self, charges: dict[str, Charge], clock: float = 0.0) -> None:
        """Take over the charges of a nested orchestrator's call; the same key is counted once.

        Args:
            charges: Under the nested run's own keys and names.
            clock: Seconds that they took by the clock, which are then no work of this call itself.
        """
        mine: dict[str, Charge] = {
            f"{self.call_id}/{key}": {**charge, "tool": f"{self.tool}/{charge['tool']}"}
            for key, charge in charges.items()
        }
        self.charges |= mine
        if self.journal:
            self.journal.came_back(mine)
        if self._own is not None:
            self._own.inner_seconds += clock
            self._own.inner_work += clock
        if self.outer is not None:
            self.outer.absorb(mine, clock)

    def earlier(self) -> dict[str, Charge]:
        """Charges of nested runs from tries of this call before this meter, under their own keys and names.

        A nested run that goes on after a crash numbers its tries after these, also where it has no log of its own.
        """
        around = {} if self.outer is None else self.outer.earlier()
        known = best_known(around, self.journal.earlier(self.call_id)) if self.journal else around
        mark = f"{self.call_id}/"
        return {
            key.removeprefix(mark): {**charge, "tool": charge["tool"].partition("/")[2]}
            for key, charge in known.items()
            if key.startswith(mark)
        }

    # LangChain's callbacks. A meter that is not the innermost one of its context leaves the request to that one.

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a charge for a request to a chat model."""
        self._start(run_id, messages, metadata)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a charge for a request to a completion model."""
        self._start(run_id, prompts, metadata)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Close a request that was answered."""
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        message = getattr(generation, "message", None)
        stated = (response.llm_output or {}).get("token_usage")
        if message is None and stated:
            # A reply without a choice was billed all the same; its usage is told beside it.
            message = AIMessage("", usage_metadata=stated_usage(stated))
        self._answered(run_id, message, getattr(generation, "text", ""))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Close a request that failed."""
        self._failed(run_id, error)

    def _start(self, run_id: UUID, prompt: Any, metadata: dict[str, Any] | None) -> None:
        if _current.get() is self:
            key = f"{self.call_id}#{self._try}.{self._count}"
            self._count += 1
            request = self._open_request(key, (metadata or {}).get("ls_model_name"), prompt)
            request.run_id = run_id
            self._requests[run_id] = request

    def _open_try(self) -> None:
        key = self._next_key()
        self._own = Attempt(key, self.spec.price, time.perf_counter())
        if self.journal or self.outer:
            self._tell(key, self.tool, self.spec.price.dollars(calls=1, seconds=self.spec.limits.timeout))

    def _next_key(self) -> str:
        self._try += 1
        self._count = 0
        return f"{self.call_id}#{self._try}"

    def _open_request(self, key: str, model: str | None, prompt: Any) -> Attempt:
        request = Attempt(key, self._price_of(self.spec, model), time.perf_counter(), model, prompt)
        if self.journal or self.outer:
            self._tell(key, self.tool, self._upper(request))
        return request

    def _tell(self, key: str, tool: str, upper: float) -> None:
        """Tell this run's journal and those of the runs around it of an attempt that is about to be sent."""
        if self.journal:
            self.journal.sent(key, tool, upper)
        outer = self.outer
        if outer is not None:
            outer._tell(f"{outer.call_id}/{key}", f"{outer.tool}/{tool}", upper)

    def _answered(self, request_id: UUID | str, message: BaseMessage | None, text: str) -> None:
        request = self._requests.pop(request_id, None)
        if request is not None:
            clock = time.perf_counter() - request.started
            charge = paid(request, message, text, clock, is_whole=self._is_whole(request))
            self._record_request(request, charge, clock)

    def _failed(self, request_id: UUID | str, error: BaseException) -> None:
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._fail(request, error)

    def _close(self, error: BaseException | None) -> None:
        for run_id in list(self._requests):
            # A request that is cancelled may not be told to its handlers. What ended the call is another one's failure.
            self._fail(self._requests.pop(run_id), TimeoutError("the call ended before the request came back"))
        own, self._own = self._own, None
        if own is not None:
            clock = max(0.0, time.perf_counter() - own.started - own.inner_seconds)
            seconds = clock if own.reported_seconds is None else own.reported_seconds
            self.shift += seconds - clock
            self._record(own, own_charge(own, seconds, error), clock)

    def _record_request(self, request: Attempt, charge: dict[str, Any], clock: float) -> None:
        if self._own is not None:
            self._own.inner_seconds += clock
            self._own.inner_work += charge["seconds"]
        self.shift += charge["seconds"] - clock
        self._record(request, charge, clock)

    def _record(self, attempt: Attempt, charge: dict[str, Any], clock: float) -> None:
        if attempt.model:
            charge["model"] = attempt.model
        if attempt.price.source != "catalog":
            charge["price"] = attempt.price.source
        done = self.charges[attempt.key] = cast(Charge, {"tool": self.tool, **charge})
        spans.charged(attempt.key, attempt.run_id, done)
        events.tell_charge(self.call_id, attempt.key, done)
        if self.outer is not None:
            self.outer.absorb({attempt.key: done}, clock)

    def _fail(self, request: Attempt, error: BaseException) -> None:
        clock = time.perf_counter() - request.started
        seconds = clock if request.reported_seconds is None else request.reported_seconds
        known = request.price.dollars(seconds=seconds) if self._is_whole(request) else 0.0
        charge = {"status": "failed", "dollars": known, "seconds": seconds, "error": describe(error)}
        if not is_refusal(error):
            charge |= {"status": "uncertain", "upper": max(known, self._upper(request))}
        self._record_request(request, charge, clock)

    def _is_whole(self, request: Attempt) -> bool:
        """Whether calls and seconds are charged to the request: for the router, and for a model with a line of its own.

        Otherwise they are charged to the call around it, once.
        """
        return self._own is None or request.price is not self.spec.price

    def _upper(self, request: Attempt) -> float:
        limits = self.spec.limits
        sent, wrote = (request.tokens, limits.output_tokens) if request.price.has_tokens else (0, 0)
        calls, seconds = (1, limits.timeout) if self._is_whole(request) else (0, 0.0)
        return request.price.dollars(input_tokens=sent, output_tokens=wrote, calls=calls, seconds=seconds)


class _Try:
    """A try of a tool's call under way."""

    __slots__ = ("_handling", "_meter", "_metering")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._meter._open_try()
        self._metering, self._handling = _current.set(self._meter), _handler.set(self._meter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._meter._close(error)
        finally:
            _current.reset(self._metering)
            _handler.reset(self._handling)


class _Request:
    """A request of the router under way."""

    __slots__ = ("_key", "_meter", "_metering", "_tokens")

    def __init__(self, meter: Meter, tokens: int) -> None:
        self._meter = meter
        self._tokens = tokens

    def __enter__(self) -> Callable[[AIMessage], None]:
        meter = self._meter
        request = meter._open_request(meter._next_key() + ".0", meter.spec.model, self._tokens)
        self._key = request.key
        meter._requests[request.key] = request
        self._metering = _current.set(meter)
        return self._answered

    def _answered(self, reply: AIMessage) -> None:
        self._meter._answered(self._key, reply, "")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._meter._failed(self._key, error)
        finally:
            _current.reset(self._metering)
