"""The vector M of a run (arXiv 2511.21689, section 3.2), its elements by name.

Each attempt of each turn is charged, the router's own and the final answer's among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.ledger import wall_seconds
from orchestra_graph.protocols.scan import dearest
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.turns import Turn, sent_calls
from orchestra_training.reward.credit import answered_by_policy, not_chosen

SOLVED_FROM: Final = 1.0
"""Outcome of a verdict from which on a task counts as solved: half a solution is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What one run comes to, all of it as positive magnitudes."""

    solved: bool
    """Whether the task was solved, by whatever turn."""
    earned: bool
    """Whether it was solved by a turn that the policy chose: the outcome that a reward counts."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """Calls sent to each tool, whoever chose them; a tool that answered in the place of another counts as called."""
    chosen: Mapping[str, int] = field(default_factory=dict)
    """Those of them that the policy chose."""
    dollars: float = 0.0
    """What is known to be owed."""
    relative_dollars: float = 0.0
    """The same in typical calls of the catalog's dearest tool; 0 where no price is known."""
    seconds: float = 0.0
    """Seconds of work, pauses between attempts not among them."""
    wall_seconds: float = 0.0
    """Seconds from question to answer; calls of one turn overlap, and waiting for a person is not in it."""


def is_solved(verdict: Verdict | None) -> bool | None:
    """Whether a verdict says that the task was solved; None where nobody judged."""
    return None if verdict is None or verdict.outcome is None else verdict.outcome >= SOLVED_FROM


def measure(run: Trajectory) -> Measures:
    """Measure a run.

    Raises:
        ConfigError: It was not judged.
    """
    solved = is_solved(run.verdict)
    if solved is None:
        raise ConfigError(
            f"run {run.run_id}: verdict = None; expected an outcome from 0 to 1; fix: judge the run first"
        )
    calls: dict[str, int] = {}
    chosen: dict[str, int] = {}
    dollars: list[float] = []
    seconds: list[float] = []
    for turn in run.turns:
        for charge in turn["charges"].values():
            dollars.append(charge["dollars"])
            seconds.append(charge["seconds"])
        _count(turn, calls, chosen)
    spent, most = fsum(dollars), 0.0 if run.catalog is None else dearest(run.catalog.tools.values())
    return Measures(
        solved=solved,
        earned=solved and answered_by_policy(run),
        calls=calls,
        chosen=chosen,
        dollars=spent,
        relative_dollars=spent / most if most else 0.0,
        seconds=fsum(seconds),
        wall_seconds=fsum(map(wall_seconds, run.turns)),
    )


def _count(turn: Turn, calls: dict[str, int], chosen: dict[str, int]) -> None:
    """Add the calls that were sent; the ledger counts the same ones."""
    is_own = not_chosen(turn) is None
    for call, outcome in sent_calls(turn):
        tool = call["tool"]
        calls[tool] = calls.get(tool, 0) + 1
        if "by" in outcome and outcome["by"] != tool:
            calls[outcome["by"]] = calls.get(outcome["by"], 0) + 1
        if is_own:
            chosen[tool] = chosen.get(tool, 0) + 1
