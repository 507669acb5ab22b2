"""Custom stream events, as `stream_mode="custom"` yields them. Each is a plain dictionary with `type` and `run`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from orchestra_graph.ledger import LedgerTotals
from orchestra_graph.turns import Call, Charge, Decision, Outcome, StoppedBy


class DecisionEvent(TypedDict):
    """The router has decided."""

    type: Literal["decision"]
    run: str
    turn: str
    index: int
    decision: Decision
    charges: dict[str, Charge]
    outcomes: dict[str, Outcome]
    """Of calls that were not sent."""
    seconds: float


class OutcomeEvent(TypedDict):
    """A call has come back; one that was not sent is told with its decision."""

    type: Literal["outcome"]
    run: str
    turn: str
    call: Call
    outcome: Outcome
    charges: dict[str, Charge]


class AnswerEvent(TypedDict):
    """The run has ended."""

    type: Literal["answer"]
    run: str
    answer: str
    stopped_by: StoppedBy
    ledger: LedgerTotals


Event = DecisionEvent | OutcomeEvent | AnswerEvent
