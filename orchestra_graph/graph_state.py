"""The state of a graph that somebody else wrote: our private channels beside its own, and its changes in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import isclass
from typing import Annotated, Any, Final, cast, get_type_hints

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage, convert_to_messages
from langgraph.channels import EphemeralValue
from langgraph.channels.base import BaseChannel
from langgraph.graph import StateGraph
from langgraph.types import Command, Overwrite
from pydantic import BaseModel
from typing_extensions import TypedDict

from orchestra_graph.ledger import LedgerTotals
from orchestra_graph.state import CallTask, OrchestratorState, RunHeader
from orchestra_graph.turns import Call, Charge, Outcome, StoppedBy, Turn, merge_turns

MESSAGES: Final = "messages"
"""Channel that is read where the user says nothing else."""

NOTHING: Final = "(it changed nothing)"


class Report(TypedDict, total=False):
    """What a destination hands back to the router; empty where the router hands over to itself."""

    call: Call
    outcome: Outcome
    charges: dict[str, Charge]


class RouterChannels(TypedDict, total=False):
    """Channels that the router adds to a graph, absent from its input and output."""

    orchestra_run: RunHeader
    orchestra_turns: Annotated[dict[str, Turn], merge_turns]
    orchestra_answer: str | None
    """What ended the run, in words."""
    orchestra_stopped_by: StoppedBy | None
    orchestra_ledger: LedgerTotals | None
    orchestra_call: Annotated[CallTask, EphemeralValue(dict, guard=False)]
    """For the destination that runs next; gone when it has run, so that nothing else takes itself for called."""
    orchestra_report: Annotated[Report, EphemeralValue(dict, guard=False)]
    """For the router, in the next step only: without it, the router is entered from outside and begins a run."""


RUN: Final = "orchestra_run"
TURNS: Final = "orchestra_turns"
ANSWER: Final = "orchestra_answer"
STOPPED_BY: Final = "orchestra_stopped_by"
LEDGER: Final = "orchestra_ledger"
CALL: Final = "orchestra_call"
REPORT: Final = "orchestra_report"
OURS: Final = frozenset(RouterChannels.__annotations__)


def widened(builder: StateGraph[Any, Any, Any, Any], schema: type[Any]) -> type[Any]:
    """An input schema of the graph with our channels beside its own.

    Args:
        builder: The graph, which knows the schema.
        schema: TypedDict, dataclass or pydantic model.
    """
    # A channel that the graph has is not declared anew by an annotation without a reducer; a managed value must be.
    own = {
        name: Any if isinstance(channel, BaseChannel) else Annotated[Any, channel]
        for name, channel in builder.schemas[schema].items()
    }
    ours = get_type_hints(RouterChannels, include_extras=True)
    return TypedDict(f"{schema.__name__}WithRouter", {**own, **ours})  # type: ignore[operator, no-any-return]


def users_state(values: Mapping[str, Any], schema: type[Any]) -> Any:
    """What a node of the graph reads: the values without ours, in the type that it was written for."""
    own = {name: value for name, value in values.items() if name not in OURS}
    return schema(**own) if is_class_state(schema) else own


def is_class_state(schema: type[Any]) -> bool:
    """Whether nodes get an object of the schema, not a dictionary."""
    return isclass(schema) and (issubclass(schema, BaseModel) or is_dataclass(schema))


def value_of(state: Any, channel: str) -> Any:
    """A channel's value, or None."""
    return state.get(channel) if isinstance(state, Mapping) else getattr(state, channel, None)


def as_orchestrator(run: RunHeader, turns: dict[str, Turn], history: Sequence[BaseMessage] = ()) -> OrchestratorState:
    """The run as the nodes of an orchestrator know it."""
    return {
        "messages": cast("list[AnyMessage]", [*history, HumanMessage(run["question"], id=run["message"])]),
        "run": run,
        "turns": turns,
        "answer": None,
        "stopped_by": None,
        "ledger": None,
    }


def changes(result: Any, before: Any) -> dict[str, Any]:
    """What a node brought that the state did not hold already, by channel; messages always as a list of them.

    Args:
        result: What the node returned.
        before: The state that it read.
    """
    found: dict[str, Any] = {}
    for channel, value in writes_of(result).items():
        new = value.value if isinstance(value, Overwrite) else value
        old = value_of(before, channel)
        messages = _messages(channel, new)
        if messages is not None:
            new = _new(messages, _messages(channel, old) or [])
        if (messages is None and not _same(new, old)) or (messages is not None and new):
            found[channel] = new
    return found


def writes_of(result: Any) -> dict[str, Any]:
    """What a node returned as writes by channel: a dictionary, an object of a schema, commands, or lists of these."""
    if isinstance(result, Command):
        return writes_of(result.update)
    if isinstance(result, dict):
        return result
    if isinstance(result, BaseModel):
        return {name: getattr(result, name) for name in type(result).model_fields if name in result.model_fields_set}
    if is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in fields(result)}
    writes: dict[str, Any] = {}
    if isinstance(result, list | tuple):
        for part in result:
            pairs = {part[0]: part[1]} if _is_pair(part) else writes_of(part)
            for channel, value in pairs.items():
                old = writes.get(channel)
                writes[channel] = [*old, *value] if isinstance(old, list) and isinstance(value, list) else value
    return writes


def in_words(changed: Mapping[str, Any]) -> str:
    """Changes as the router reads them: what messages say, and other channels by name."""
    lines: list[str] = []
    for channel, value in changed.items():
        if isinstance(value, list) and value and all(isinstance(item, BaseMessage) for item in value):
            lines += map(_said, value)
        else:
            lines.append(f"{channel}: {value}")
    return "\n".join(lines) or NOTHING


def _said(message: BaseMessage) -> str:
    said = message.text if isinstance(message, AIMessage) else f"{message.type}: {message.text}"
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    return " ".join([*([said] if said else ()), *(f"[calls {call['name']} with {call['args']}]" for call in calls)])


def _messages(channel: str, value: Any) -> list[BaseMessage] | None:
    """The value as messages, or None where it holds something else."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, BaseMessage) or (channel == MESSAGES and _is_message(item)) for item in items):
        return None
    try:
        return convert_to_messages(items) if items else None
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError):  # a format of the graph's own
        return None


def _is_message(item: Any) -> bool:
    """Whether it is one of the short forms in which LangChain takes a message."""
    return isinstance(item, str) or _is_pair(item) or (isinstance(item, dict) and {"role", "content"} <= set(item))


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def _new(messages: list[BaseMessage], old: list[BaseMessage]) -> list[BaseMessage]:
    """Those that were not there: a graph inside a node hands back all that it was given."""
    known = {message.id: message.content for message in old if message.id}
    return [m for m in messages if not isinstance(m, RemoveMessage) and (m.id is None or known.get(m.id) != m.content)]


def _same(new: Any, old: Any) -> bool:
    try:
        return bool(new == old)
    except (RuntimeError, ValueError):  # tensors and arrays compare element by element
        return False
