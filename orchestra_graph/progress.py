"""Tells what has happened in a run: to its log, which must survive a crash, and to whoever reads the stream.

What came back is held in the log until the next attempt is written; see `orchestra_graph.runlog.spool`.
"""

from __future__ import annotations

from langgraph.config import get_stream_writer

from orchestra_graph.engine import Engine
from orchestra_graph.events import DecisionEvent, OutcomeEvent
from orchestra_graph.turns import Call, Charge, Outcome, Turn


def tell_decision(engine: Engine, run_id: str, turn: Turn) -> None:
    """A turn has been decided; calls that were not sent have their outcomes already."""
    if engine.run_log is not None:
        engine.run_log.journal(run_id, {"kind": "turn", "turn": turn}, hold=True)
    event: DecisionEvent = {
        "type": "decision",
        "run": run_id,
        "turn": turn["id"],
        "index": turn["index"],
        "decision": turn["decision"],
        "charges": turn["charges"],
        "outcomes": turn["outcomes"],
        "seconds": turn["seconds"],
    }
    get_stream_writer()(event)


def tell_outcome(
    engine: Engine, run_id: str, turn_id: str, call: Call, outcome: Outcome, charges: dict[str, Charge]
) -> None:
    """A call has come back."""
    if engine.run_log is not None:
        update = {"id": turn_id, "outcomes": {call["id"]: outcome}, "charges": charges}
        engine.run_log.journal(run_id, {"kind": "turn", "turn": update}, hold=True)
    event: OutcomeEvent = {
        "type": "outcome",
        "run": run_id,
        "turn": turn_id,
        "call": call,
        "outcome": outcome,
        "charges": charges,
    }
    get_stream_writer()(event)
