"""The memory of a run: decisions, outcomes, charges and turns as plain JSON values, and how they merge.

Everything that a protocol shows, the ledger sums, a trajectory stores and a reward scores is derived from turns.
They live in the graph's state, so they hold JSON values only; `merge_turns` is their reducer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

TurnBy = Literal["router", "fallback", "closing", "expert"]
StoppedBy = Literal["answer", "dollars", "seconds", "turns", "router"]
Purpose = Literal["train", "evaluate", "serve"]
"""What a run is for."""
ChargeStatus = Literal["paid", "failed", "uncertain", "cached"]
ProblemKind = Literal[
    "no_call", "unknown_tool", "bad_arguments", "too_many_calls", "truncated", "unreadable", "router_error"
]


class Call(TypedDict):
    """A valid call of one tool."""

    id: str
    """`{turn id}-{position}`, unique within all runs."""
    tool: str
    args: dict[str, Any]
    tool_call_id: NotRequired[str]
    """Id that an agent's expert gave the call: its result is told by it."""


class Problem(TypedDict):
    """Why a reply, or a part of it, was not executed as it stands."""

    kind: ProblemKind
    detail: str
    """Told to the router as it stands: the value, what was expected, the fix."""


class Decision(TypedDict):
    """The router's reply after validation."""

    calls: list[Call]
    """Calls to execute; empty for a reply that was not a valid call."""
    reason: str
    """The text that the router gave beside its calls."""
    by: TurnBy
    """Who decided: turns that the policy did not choose earn it no reward. `expert`: its reply held the calls."""
    problem: NotRequired[Problem]
    """What of the reply could not be executed; with no calls beside it the reply was malformed."""
    repaired: NotRequired[list[str]]
    """What was mended before execution, one sentence each."""
    thought: NotRequired[str]
    """The router's reasoning, where its server returns it apart."""


class Outcome(TypedDict):
    """What a call brought back."""

    content: str
    """Text for the router; for an error its message."""
    error: bool
    answer: NotRequired[str]
    """Final answer, where the tool stated one."""
    artifacts: NotRequired[list[Any]]
    by: NotRequired[str]
    """Fallback tool that answered in place of the one called."""
    cached: NotRequired[bool]
    unsent: NotRequired[bool]
    """The call was not sent: it did not fit the budget."""
    rejected: NotRequired[bool]
    """A person did not let the call be sent."""
    args: NotRequired[dict[str, Any]]
    """The arguments that were sent, where a person changed them."""
    seconds: NotRequired[float]
    """Wall seconds from the call to its outcome, pauses between attempts among them."""


class Charge(TypedDict):
    """Dollars and seconds of one physical attempt."""

    tool: str
    """`router`, or the tool's name; `outer/inner` for tools of a nested orchestrator."""
    status: ChargeStatus
    dollars: float
    """What is known to be owed; for an uncertain attempt the least it can be."""
    upper: NotRequired[float]
    """For an uncertain attempt: the most that it can cost."""
    seconds: float
    """Seconds of work."""
    model: NotRequired[str]
    input_tokens: NotRequired[int]
    cached_tokens: NotRequired[int]
    output_tokens: NotRequired[int]
    price: NotRequired[str]
    """Source of the price where it is not the catalog: `genai-prices`, `reported` or `unknown`."""
    estimated: NotRequired[bool]
    """The server stated no usage: tokens are estimated from the lengths of the texts."""
    error: NotRequired[str]


class Turn(TypedDict):
    """One decision, what deciding cost, and what its calls brought back."""

    id: str
    """`{first 8 characters of the run id}-{index}`."""
    index: int
    decision: Decision
    charges: dict[str, Charge]
    """By `{turn or call id}#{attempt}`: the router's and those of the calls."""
    outcomes: dict[str, Outcome]
    """By call id."""
    seconds: float
    """Wall seconds of the decision."""
    captures: NotRequired[list[str]]
    """Names the token captures of the router's replies in the run log; one a request of the protocol."""


class TurnUpdate(TypedDict, total=False):
    """A part of a turn, as one task writes it."""

    id: str
    index: int
    decision: Decision
    charges: dict[str, Charge]
    outcomes: dict[str, Outcome]
    seconds: float
    captures: list[str]


Turns = dict[str, Turn]


def merge_turns(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Reducer of the `turns` channel: merge by turn id, and within a turn by call id and by charge.

    A write that is replayed changes nothing. Neither argument is changed.
    """
    merged = dict(left)
    for turn_id, update in right.items():
        turn = merged.get(turn_id)
        if turn is None:
            merged[turn_id] = update
            continue
        turn = merged[turn_id] = {**turn, **update}
        old = left.get(turn_id, {})
        for part in ("charges", "outcomes"):
            if part in update and part in old:
                turn[part] = {**old[part], **update[part]}
    return merged


def sent_calls(turn: Turn) -> Iterator[tuple[Call, Outcome]]:
    """The calls of a turn that were sent and came back: none that no budget paid for, or that a person refused."""
    for call in turn["decision"]["calls"]:
        outcome = turn["outcomes"].get(call["id"])
        if outcome is not None and not (outcome.get("unsent") or outcome.get("rejected")):
            yield call, outcome


def args_sent(call: Call, outcome: Outcome | None) -> dict[str, Any]:
    """The arguments that a call was sent with: a person may have had others sent than were decided."""
    return call["args"] if outcome is None else outcome.get("args", call["args"])
