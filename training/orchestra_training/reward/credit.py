"""Which turns of a run its policy chose itself.

What others chose is charged to the run and earns the policy nothing: not the use of a tool that the user prefers, and
not the outcome where such a turn answered.
"""

from __future__ import annotations

from typing import Literal

from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.turns import Turn

NotChosen = Literal["fallback", "closing", "expert", "repaired", "router_error"]
"""Who decided in the policy's place: the last two are its own turns, mended before they could be executed, or empty
because its server gave no reply."""


def not_chosen(turn: Turn) -> NotChosen | None:
    """Why a turn is not the policy's choice, or None where it is."""
    decision = turn["decision"]
    if decision["by"] != "router":
        return decision["by"]
    if decision.get("repaired"):
        return "repaired"
    problem = decision.get("problem")
    return "router_error" if problem is not None and problem["kind"] == "router_error" else None


def answered_by_policy(run: Trajectory) -> bool:
    """Whether the policy chose the turn that answered; an expert's own turns stand for the turn that chose the expert.

    A run that was stopped by its budget, or given up, is answered by nobody whom the policy chose.
    """
    if run.ended != "answered" or run.stopped_by not in ("answer", None):
        return False
    for turn in reversed(run.turns):
        if turn["decision"]["by"] != "expert":
            return not_chosen(turn) is None and bool(turn["decision"]["calls"])
    return False
