"""Sees every model request of a run, also those that other middleware makes in nodes of its own.

A meter sees what is called inside its attempt. A summary is asked for elsewhere: in the node of the middleware that
makes it, before the agent's model is called. So each run has one handler from its start on, that of whatever is
outermost, and notes each request with what it was called in; the agents inside claim theirs.

LangChain adds the handler by itself, to whatever is run once this module is imported: it takes no line in the user's
code, survives a resumed run, and holds nothing beyond the run that it belongs to; of that only what is billed, since a
run of any graph may be long, and whether an agent with the middleware is in it shows only when that claims.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook
from langgraph.config import get_config

from orchestra_graph.meter import Meter, current_meter
from orchestra_graph.text import estimate_tokens


@dataclass(slots=True, eq=False)
class Seen:
    """One request to a model."""

    id: UUID
    model: str | None
    """The model's name, where it tells it."""
    node: str
    """Node of the graph in which it was made."""
    within: frozenset[UUID]
    """Ids of the runs around it."""
    meter: Meter | None
    """The meter that charges it."""
    tokens: int
    """About how many were sent."""
    started: float
    seconds: float = 0.0
    result: AIMessage | BaseException = field(default_factory=lambda: TimeoutError("no reply"))
    """The reply, of which nothing is kept but its usage where it states that, or why there is none."""


class RunWatch(BaseCallbackHandler):
    """Notes the model requests of one run, whatever is nested in it."""

    run_inline = True
    raise_error = True
    ignore_retry = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self._parents: dict[UUID, UUID | None] = {}
        self._open: dict[UUID, Seen] = {}
        self._done: dict[UUID, Seen] = {}

    def parent_of(self, run_id: UUID) -> UUID:
        """The run around a run that goes on; the run itself where nothing is around it."""
        return self._parents.get(run_id) or run_id

    def claim(self, run_id: UUID) -> list[Seen]:
        """Take the requests that were made inside a run; those that a meter of its own has charged are dropped.

        To be called while nothing else goes on inside that run; beside it, in threads of their own, others may go on.
        """
        meter = current_meter()
        inside = [seen for seen in list(self._done.values()) if run_id in seen.within]
        taken = [seen for seen in inside if self._done.pop(seen.id, None)]
        return [seen for seen in taken if seen.meter is meter]

    # LangChain's callbacks.

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember what a run was called in."""
        self._parents[run_id] = kwargs.get("parent_run_id")

    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember what a tool was called in."""
        self._parents[run_id] = kwargs.get("parent_run_id")

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember what a retriever was called in."""
        self._parents[run_id] = kwargs.get("parent_run_id")

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that has ended."""
        self._parents.pop(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that has failed."""
        self._parents.pop(run_id, None)

    on_tool_end = on_retriever_end = on_chain_end  # type: ignore[assignment]  # they differ in a name
    on_tool_error = on_retriever_error = on_chain_error

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note a request to a chat model."""
        self._note(run_id, messages, **kwargs)

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        """Note a request to a completion model."""
        self._note(run_id, prompts, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Note its reply."""
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        message = getattr(generation, "message", None)
        reply = message if isinstance(message, AIMessage) else AIMessage(getattr(generation, "text", ""))
        usage = reply.usage_metadata
        self._close(run_id, reply if usage is None else AIMessage("", usage_metadata=usage))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note its failure."""
        self._close(run_id, error)

    def _note(
        self,
        run_id: UUID,
        prompt: Any,
        *,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        known = metadata or {}
        within = frozenset(self._around(parent_run_id))
        model, node = known.get("ls_model_name"), known.get("langgraph_node", "")
        sent, meter = estimate_tokens(prompt), current_meter()
        self._open[run_id] = Seen(run_id, model, node, within, meter, sent, time.perf_counter())

    def _close(self, run_id: UUID, result: AIMessage | BaseException) -> None:
        seen = self._open.pop(run_id, None)
        if seen is not None:
            seen.seconds, seen.result = time.perf_counter() - seen.started, result
            self._done[run_id] = seen

    def _around(self, run_id: UUID | None) -> Iterator[UUID]:
        while run_id is not None:
            yield run_id
            run_id = self._parents.get(run_id)


# Not None, so that LangChain adds a handler of the class; nothing, so that it makes one for each run.
_each_run: ContextVar[Any] = ContextVar("orchestra_graph_run_watch", default=False)
register_configure_hook(_each_run, inheritable=True, handle_class=RunWatch)


def watch_here() -> tuple[RunWatch, UUID]:
    """The watch of the run that the calling node belongs to, and the id of the node's graph in it."""
    manager: Any = get_config()["callbacks"]
    watch: RunWatch = next(handler for handler in manager.handlers if isinstance(handler, RunWatch))
    return watch, watch.parent_of(manager.parent_run_id)
