"""Tells LangSmith how a run turned out: outcome, cost, latency, and how well the user's preferences were kept.

    client = langsmith.Client()
    project = client.read_project(project_name="mine")
    send_feedback(client, trace_id, trajectory, project_id=project.id)

Costs are told in US cents, since LangSmith keeps four decimals of a score.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING
from uuid import UUID

from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.turns import sent_calls

if TYPE_CHECKING:
    from langsmith import Client


def send_feedback(
    client: Client, trace_id: UUID | str, trajectory: Trajectory, *, project_id: UUID | str
) -> dict[str, float]:
    """Send the scores of a run; what is not known of it is left out.

    Args:
        client: Of LangSmith.
        trace_id: The trace of the run; its metadata has the trajectory's id under `run`.
        trajectory: The run, as `read_runs` gives it; `outcome` comes from its verdict.
        project_id: The project that it was traced to.

    Returns:
        What was sent: `outcome` from 0 to 1, `cost_cents`, `latency_seconds`, `preference` from 0 to 1.
    """
    scores = scores_of(trajectory)
    for key, score in scores.items():
        client.create_feedback(key=key, score=score, trace_id=trace_id, session_id=project_id)
    return scores


def scores_of(trajectory: Trajectory) -> dict[str, float]:
    """The scores by their feedback keys."""
    totals, verdict = trajectory.totals, trajectory.verdict
    found = {
        "outcome": None if verdict is None else verdict.outcome,
        "cost_cents": None if totals is None else 100 * totals["dollars"],
        "latency_seconds": None if totals is None else totals["wall_seconds"],
        "preference": preference_score(trajectory),
    }
    return {key: score for key, score in found.items() if score is not None}


def preference_score(trajectory: Trajectory) -> float | None:
    """The share of the wishes that were kept, by their weights; None where there was no wish for or against a tool.

    A tool that is preferred was called, one to be avoided was not; one that answered in another's place was called too.
    How often does not matter, so that no calls are made for the score's sake.
    """
    preferences = trajectory.preferences
    sent = [pair for turn in trajectory.turns for pair in sent_calls(turn)]
    called = {name for call, outcome in sent for name in (call["tool"], outcome.get("by", call["tool"]))}
    kept = [
        *((weight, name in called) for name, weight in preferences.prefer.items()),
        *((weight, name not in called) for name, weight in preferences.avoid.items()),
        *((1.0, name not in called) for name in preferences.never),
    ]
    whole = fsum(weight for weight, _ in kept)
    return fsum(weight for weight, is_kept in kept if is_kept) / whole if whole else None
