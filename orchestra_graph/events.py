"""What `stream_mode="custom"` yields: the events of a run, for user interfaces. Each is a plain dictionary with `type`.

    async for event in graph.astream(question, stream_mode="custom"):
        if event["type"] == "outcome":
            print(event["call"]["tool"], event["outcome"]["content"])

A run's events come in this order: a `decision`, then an `outcome` for each of its calls as soon as it is there, and so
on, and at last one `answer`. A decision that calls nothing is followed by the next one. Each charge of the run comes
exactly once with them, by its key: the router's with the decision, those of a call with its outcome, failed tries and
nested runs among them; their sum is the ledger of the answer. Beside them a `charge` tells the same charge beforehand,
as soon as its attempt has come back: sum up one or the other. The fields are those of `orchestra_graph.turns` and
`orchestra_graph.ledger`, as they stand in the state and in the run log.

Nested runs tell events of their own with `subgraphs=True`, which yields pairs of namespace and event. LangGraph's other
modes work as in any graph: `updates` and `values` tell the state, `messages` the replies of the models. A run that
waits for a person, or that fails, has no `answer`; one that is resumed tells only what comes after.
"""

from __future__ import annotations

from typing import Literal

from langgraph.config import get_stream_writer
from typing_extensions import TypedDict

from orchestra_graph.ledger import LedgerTotals
from orchestra_graph.turns import Call, Charge, Decision, Outcome, StoppedBy


class DecisionEvent(TypedDict):
    """The router has decided, or the run's closing has."""

    type: Literal["decision"]
    run: str
    """Id of the run, 32 hexadecimal characters."""
    turn: str
    """Id of the turn."""
    index: int
    """Position of the turn in the run, counted from 0."""
    decision: Decision
    """Calls, reason, who decided, and what was wrong with the reply, if anything."""
    charges: dict[str, Charge]
    """What deciding cost, by key; empty for the run's closing."""
    outcomes: dict[str, Outcome]
    """By call id: of calls that were not sent, and of a final answer. No event of their own follows."""
    seconds: float
    """Seconds that deciding took."""


class OutcomeEvent(TypedDict):
    """A call has come back; one that was not sent is told with its decision."""

    type: Literal["outcome"]
    run: str
    turn: str
    call: Call
    """As it was decided."""
    outcome: Outcome
    """What it brought, or its error."""
    charges: dict[str, Charge]
    """What its tries cost, by key; charges of a nested run as `{call id}/{key}`."""


class ChargeEvent(TypedDict):
    """An attempt has come back, be it one that is tried again; its decision or outcome tells the charge once more."""

    type: Literal["charge"]
    call: str
    """Id of the call, or for the router of the turn; both begin with the first 8 characters of the run's."""
    key: str
    """Of the charge."""
    charge: Charge


class AnswerEvent(TypedDict):
    """The run has ended."""

    type: Literal["answer"]
    run: str
    answer: str
    stopped_by: StoppedBy
    """`answer`; the element of the budget that was used up; or `router`, which called nothing any more."""
    ledger: LedgerTotals
    """Totals of the run, in all and by tool."""


Event = DecisionEvent | OutcomeEvent | ChargeEvent | AnswerEvent


def tell_charge(call_id: str, key: str, charge: Charge) -> None:
    """Stream a charge. Where nobody streams, this is a call of a function that does nothing."""
    try:
        write = get_stream_writer()
    except (RuntimeError, KeyError):  # LangGraph's ways of saying that there is no graph around
        return
    event: ChargeEvent = {"type": "charge", "call": call_id, "key": key, "charge": charge}
    write(event)
