"""The graph's state: plain JSON beside LangChain's own messages, and what a run is when it starts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Final, NotRequired

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.graph.message import add_messages
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from orchestra_graph.errors import ConfigError
from orchestra_graph.ledger import LedgerTotals
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.text import clean
from orchestra_graph.turns import Call, Purpose, StoppedBy, Turn, merge_turns

NO_ANSWER: Final = "No answer: the run ended before one was found."

STAMP: Final = "orchestra_graph"
"""Key of a tool message's response metadata that holds what the call cost, so that it is written with its result."""


class About(BaseModel):
    """What a caller may say of a run's task; other fields are kept with the task as they stand.

    A row of a data set may be given whole: its `question` is not kept, since what was asked stands there.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str | None = None
    """Name of the task in its data set."""
    group_id: str | None = None
    """Rollouts of one task that are compared with each other share it."""
    rollout: int | None = None
    """Position in the group, counted from 0."""
    split: str | None = None
    purpose: Purpose = "serve"
    seeds: dict[str, int] = Field(default_factory=dict)


def header_of(question: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a trajectory says of its task: `task`, and beside it what is the run's own.

    Args:
        question: What was asked.
        about: Fields of `About`, and others.
    """
    own = {key: value for key, value in about.items() if key in _OF_THE_RUN}
    others = {key: value for key, value in about.items() if key not in own and key != "question"}
    return {"task": {"question": question, **others}, **own}


_OF_THE_RUN: Final = frozenset(About.model_fields) - {"id"}


class RunHeader(TypedDict):
    """Written when a run starts, so that a resumed run never depends on the graph's context."""

    id: str
    """32 hexadecimal characters."""
    question: str
    message: str | None
    """Id of the message that asks."""
    conversation: str
    """What was said before it, for experts."""
    preferences: dict[str, Any]
    budget: dict[str, Any]
    catalog_hash: str
    started: str
    """ISO time, UTC."""
    policy: NotRequired[dict[str, Any]]
    """Who decides: `name`, and where they are known `weights_hash` and `step`. Absent in runs of earlier releases."""
    protocol: NotRequired[str]
    """Name of the protocol that it reads and replies by."""
    task: NotRequired[dict[str, Any]]
    """What the context says of the task: fields of `About`, and others."""
    parent: NotRequired[str]
    """The call of another run in which this one runs."""
    answer: NotRequired[str]
    """Of an agent that has ended: its messages go on with the next question."""
    traced: NotRequired[bool]
    """Tracing was on: nodes then record what `tracing.POLICY` leaves of their inputs."""


class OrchestratorContext(TypedDict, total=False):
    """What may be given with each run, as the graph's context; of that of a graph around it, these keys are read."""

    preferences: Preferences | dict[str, Any]
    budget: Budget | dict[str, Any]
    task: About | dict[str, Any]
    """What the run log says of the task beside its question."""


class OrchestratorInput(TypedDict):
    """Input of an orchestrator graph."""

    messages: Annotated[list[AnyMessage], add_messages]
    """The newest message of a person is the question."""


class OrchestratorOutput(TypedDict):
    """Output of an orchestrator graph."""

    messages: Annotated[list[AnyMessage], add_messages]
    answer: str | None
    stopped_by: StoppedBy | None
    """`answer`; the element of the budget that was used up; or `router`: it and its fallback called nothing."""
    ledger: LedgerTotals | None
    turns: Annotated[dict[str, Turn], merge_turns]


class OrchestratorState(OrchestratorOutput):
    """State of an orchestrator graph; `run` stays inside."""

    run: RunHeader


class BudgetLeft(TypedDict):
    """What a call may spend, as JSON; null means no limit."""

    dollars: float | None
    seconds: float | None
    turns: int


class CallTask(TypedDict):
    """What one call's task is sent: everything it needs, since it does not see the state."""

    run: RunHeader
    turn: str
    """Id of the turn that the call belongs to."""
    call: Call
    evidence: NotRequired[list[dict[str, Any]]]
    """Findings, for tools that read them."""
    brief: NotRequired[list[dict[str, Any]]]
    """In their place: messages that the protocol wrote for the tool."""
    left: BudgetLeft


def question_of(messages: Sequence[BaseMessage]) -> tuple[Sequence[BaseMessage], BaseMessage]:
    """The conversation before the newest message of a person, and that message.

    Raises:
        ConfigError: No message of a person is there.
    """
    for i in range(len(messages) - 1, -1, -1):
        if isinstance(messages[i], HumanMessage):
            return messages[:i], messages[i]
    raise ConfigError(f"messages = {messages!r}; expected a message of a person, the question, among them")


def is_new(state: OrchestratorState) -> bool:
    """Whether no run has taken up the newest question: there was none, it has ended, or it was asked another one.

    A message may be edited under its own id.
    """
    run = state.get("run")
    if run is None or state.get("answer") is not None:
        return True
    _, asked = question_of(state["messages"])
    return run["message"] != asked.id or run["question"] != clean(asked.text)


def answer_of(turn: Turn, terminals: Collection[str]) -> str | None:
    """The final answer that a turn brought, or None."""
    for call in turn["decision"]["calls"]:
        outcome = turn["outcomes"].get(call["id"])
        if outcome is not None and call["tool"] in terminals and not outcome["error"] and "answer" in outcome:
            return outcome["answer"]
    return None


def is_malformed(turn: Turn) -> bool:
    """Whether the reply held nothing that could be executed."""
    return not turn["decision"]["calls"]


def agent_answer(messages: Sequence[BaseMessage]) -> str:
    """The answer of an agent that has ended with these messages: what was said last, unless a person said it.

    A tool may have said it, whose result ends the run. What comes of no tool is the confirmation of an answer in a form
    of its own, which stands in the arguments of the call: they are the answer, as JSON.
    """
    last = messages[-1] if messages else None
    if isinstance(last, ToolMessage):
        is_form = STAMP not in last.response_metadata and last.status != "error"
        asked = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
        args = next((call["args"] for call in reversed(asked) if call["id"] == last.tool_call_id), None)
        return json.dumps(args, ensure_ascii=False) if is_form and args is not None else clean(last.text)
    return clean(last.text) if isinstance(last, AIMessage) else NO_ANSWER
