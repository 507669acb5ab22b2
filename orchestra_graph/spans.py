"""Parts of a trace that are ours, and the client through which all that happens in them is sent.

A `Span` stands over one run of LangChain's tracer: a turn of the router, a call. What is called inside is traced
through a client of ours, which holds back the end of each request to a model until the meter knows its dollars, cuts
long texts, and hides keys in errors. See `orchestra_graph.tracing`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from math import fsum
from types import TracebackType
from typing import Any, Final
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import LangChainTracer
from langgraph.types import Command, Send
from langsmith.run_helpers import get_current_run_tree
from langsmith.run_trees import RunTree

from orchestra_graph.redact import hide_secrets
from orchestra_graph.turns import Charge

LONGEST: Final = 4_000
"""Characters of a text in a trace; of a longer one the beginning and the end."""

_KEPT: Final = LONGEST // 2
_LEFT_OUT: Final = re.compile(r" \[\.\.\. [\d,]+ characters left out \.\.\.\] ")
_PLAIN: Final = frozenset({int, float, bool, type(None)})

_span: ContextVar[Span | None] = ContextVar("orchestra_graph_span", default=None)


def current() -> Span | None:
    """The span that is open here; None where tracing is off."""
    return _span.get()


def enter() -> Span | None:
    """The part of the trace that begins here, to be entered; None where tracing is off or the part has begun."""
    run = get_current_run_tree()
    if run is None:
        return None
    span = _span.get()
    if span is not None and span.run.id == run.id:
        return None
    return Span(run, _client(run), span)


def charged(key: str, run_id: UUID | None, charge: Charge) -> None:
    """Note a charge.

    Args:
        key: `{call}#{try}` for a call, `{call}#{try}.{request}` for a request to a model.
        run_id: The request's run; None for the router's, which is the newest one of its turn.
        charge: What it came to.
    """
    span = _span.get()
    if span is not None:
        span.charged("." in key.rpartition("#")[2], run_id, charge)


def shortened(value: Any) -> Any:
    """A JSON-like value, which may hold messages and commands, with its long texts cut."""
    kind = type(value)
    if kind is str or isinstance(value, str):
        return value if len(value) <= LONGEST else _cut(value)
    if kind is dict:
        return {key: shortened(inner) for key, inner in value.items()}
    if kind is list or kind is tuple:
        return [shortened(inner) for inner in value]
    return value if kind in _PLAIN else _mapped(value, shortened)


def is_cut(text: str) -> bool:
    """Whether a text lost its middle on the way into a trace."""
    return _LEFT_OUT.search(text) is not None


def _cut(text: str) -> str:
    return f"{text[:_KEPT]} [... {len(text) - 2 * _KEPT:,} characters left out ...] {text[-_KEPT:]}"


def _without_secrets(value: Any) -> Any:
    return hide_secrets(value) if isinstance(value, str) else _mapped(value, _without_secrets)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy with its parts changed."""
    if isinstance(value, dict):
        return {key: change(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [change(inner) for inner in value]
    if isinstance(value, BaseMessage):
        return value.model_copy(update={"content": change(value.content)})
    if isinstance(value, Command):
        return {"update": change(value.update), "goto": change(value.goto)}
    if isinstance(value, Send):
        return {"node": value.node, "arg": change(value.arg)}
    return value


class Span:
    """One run of the trace that is ours: a turn of the router, a call.

    Args:
        run: The run, which the tracer ends after this is left.
        client: Everything in it goes through here.
        outer: The part that this is in.
    """

    def __init__(self, run: RunTree, client: _Client, outer: Span | None) -> None:
        self.run = run
        self.client = client
        self.outer = outer
        self._requests: dict[UUID, _Request] = {}
        self._own: list[Charge] = []
        self._has_costs_inside = False
        self.has_tool_run = False
        """Whether a LangChain tool in it has a run of its own."""
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span:
        self._token = _span.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _span.reset(self._token)
        for request in self._requests.values():
            request.end_by_force()
        dollars = fsum(charge["dollars"] for charge in self._own)
        if dollars and self._has_costs_inside:
            fee = self.run.create_child("fee", "tool", end_time=datetime.now(UTC))
            fee.extra = {"metadata": {"dollars": dollars}}
            _set_cost(fee, dollars)
            fee.post()
        elif dollars:
            _set_cost(self.run, dollars)
        if self.outer is not None:
            self.outer._has_costs_inside |= bool(dollars) or self._has_costs_inside

    def owns_graph(self) -> None:
        """Send the run of the graph around it through our client as well: the graph is an orchestrator's."""
        graph = graph_of(self.run)
        if graph is not None:
            graph.ls_client = self.client

    def began(self, run: Mapping[str, Any]) -> None:
        """Note a run that begins inside."""
        if run["run_type"] == "llm":
            self._requests[run["id"]] = self.client.requests[run["id"]] = _Request(self.client, run)
        elif run["run_type"] == "tool" and run.get("parent_run_id") == self.run.id:
            self.has_tool_run = True

    def charged(self, is_request: bool, run_id: UUID | None, charge: Charge) -> None:
        """Note a charge: for a request with a run of its own there, else for the call."""
        request = self._newest() if run_id is None else self._requests.get(run_id)
        if is_request and request is not None:
            self._has_costs_inside = True
            request.settle(charge)
        else:
            self._own.append(charge)

    def _newest(self) -> _Request | None:
        """The newest request of the router that has not been charged."""
        for request in reversed(self._requests.values()):
            if request.parent == self.run.id:
                return None if request.charge is not None else request
        return None


class _Request:
    """The run of one request to a model; it is sent off when both its end and its charge are known."""

    def __init__(self, client: _Client, run: Mapping[str, Any]) -> None:
        self._client = client
        self._run = run
        self.parent = run.get("parent_run_id")
        self.charge: Charge | None = None
        self._end: dict[str, Any] | None = None

    def ended(self, update: dict[str, Any]) -> None:
        """Take what the tracer says of its end."""
        self._end = {**update, "inputs": None}  # they were sent at its beginning
        if self.charge is not None:
            self._send()

    def settle(self, charge: Charge) -> None:
        """Take what it cost."""
        self.charge = charge
        if self._end is not None:
            self._send()

    def end_by_force(self) -> None:
        """End a request that was cancelled, which the tracer is not told, or that nobody charged."""
        if self._run["id"] not in self._client.requests:
            return
        if self._end is None:
            known = (
                "name",
                "run_type",
                "start_time",
                "parent_run_id",
                "dotted_order",
                "trace_id",
                "session_name",
                "extra",
            )
            why = "cancelled" if self.charge is None else self.charge.get("error", "cancelled")
            self._end = {**{key: self._run.get(key) for key in known}, "run_id": self._run["id"], "error": why}
        self._send()

    def _send(self) -> None:
        del self._client.requests[self._run["id"]]
        update = self._end or {}
        charge = self.charge
        if charge is not None:
            extra = dict(update.get("extra") or {})
            metadata = dict(extra.get("metadata") or {})
            usage = metadata.get("usage_metadata") or _usage(charge)
            metadata["usage_metadata"] = {**usage, "total_cost": charge["dollars"]}
            metadata |= figures([charge])
            extra["metadata"] = metadata
            update = {**update, "extra": extra}
        self._client.forward(update)


class _Client:
    """A LangSmith client that cuts long texts, hides keys in errors, and sends requests off with their dollars."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.requests: dict[UUID, _Request] = {}
        """Requests to models that have begun and have not been sent off, by their runs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_run(self, **run: Any) -> None:
        """Send the beginning of a run."""
        span = _span.get()
        if span is not None:
            span.began(run)
        self._client.create_run(**{**run, "inputs": shortened(run["inputs"])})

    def update_run(self, **update: Any) -> None:
        """Send the end of a run, or hold it back until its dollars are known."""
        request = self.requests.get(update["run_id"])
        if request is None:
            self.forward(update)
        else:
            request.ended(update)

    def forward(self, update: dict[str, Any]) -> None:
        """Send the end of a run."""
        error, outputs = update.get("error"), update.get("outputs")
        if outputs and outputs.keys() >= {"turns", "ledger", "answer"}:
            # An orchestrator's, whose steps show them; an agent's have no answer beside them, and its steps show less.
            outputs = {**outputs, "turns": len(outputs["turns"])}
        if error:  # the outputs may hold what the server said of it
            error, outputs = hide_secrets(error), _without_secrets(outputs)
        self._client.update_run(
            **{**update, "error": error, "inputs": shortened(update.get("inputs")), "outputs": shortened(outputs)}
        )


def figures(charges: Collection[Charge]) -> dict[str, Any]:
    """Charges summed up as metadata."""
    found: dict[str, Any] = {
        "dollars": fsum(charge["dollars"] for charge in charges),
        "seconds": fsum(charge["seconds"] for charge in charges),
    }
    uncertain = fsum(charge.get("upper", charge["dollars"]) - charge["dollars"] for charge in charges)
    if uncertain:
        found["uncertain_dollars"] = uncertain
    sources = {charge["price"] for charge in charges if "price" in charge}
    if sources:
        found["price"] = ", ".join(sorted(sources))
    return found


def _usage(charge: Charge) -> dict[str, int]:
    sent, wrote = charge.get("input_tokens", 0), charge.get("output_tokens", 0)
    return {"input_tokens": sent, "output_tokens": wrote, "total_tokens": sent + wrote}


def _set_cost(run: RunTree, dollars: float) -> None:
    annotate(run, {"usage_metadata": {"total_cost": dollars}})


def annotate(
    run: RunTree, metadata: Mapping[str, Any], tags: Sequence[str] = (), outputs: dict[str, Any] | None = None
) -> None:
    """Add metadata and tags to a run, and say what it is to show as its output."""
    # Not `add_metadata`: the dictionary is shared with other runs.
    run.extra = {**run.extra, "metadata": {**run.extra.get("metadata", {}), **metadata}}
    if tags:
        run.tags = list(dict.fromkeys([*(run.tags or ()), *tags]))
    if outputs is not None:
        run.set(outputs=outputs)


def graph_of(step: RunTree) -> RunTree | None:
    """The run of the graph that a run is a step of."""
    tracer = _tracer()
    return None if tracer is None else tracer.run_map.get(str(step.parent_run_id))


def _tracer() -> LangChainTracer | None:
    """The tracer that the context hands on to what is called in it."""
    config = var_child_runnable_config.get()
    callbacks = None if config is None else config.get("callbacks")
    for handler in getattr(callbacks, "handlers", ()):
        if isinstance(handler, LangChainTracer):
            return handler
    return None


def _client(run: RunTree) -> _Client:
    """Have everything that is called in this context, and the run itself, sent through a client of ours."""
    tracer = _tracer()
    client: Any = run.client if tracer is None else tracer.client
    ours = client if isinstance(client, _Client) else _Client(client)
    if tracer is not None and client is not ours:
        through: Any = tracer.copy_with_metadata_defaults()
        through.client = ours
        manager: Any = (var_child_runnable_config.get() or {}).get("callbacks")
        for name in ("handlers", "inheritable_handlers"):
            setattr(manager, name, [through if each is tracer else each for each in getattr(manager, name)])
    run.ls_client = ours
    return ours
