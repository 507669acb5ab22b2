"""How every judge of this package writes its verdict."""

from __future__ import annotations

from orchestra_graph.runlog.record import Verdict
from orchestra_graph.text import cut

_REASON_SHOWN = 100
"""Tokens of a reason that are kept: verdicts stand in every line of a log."""


def ruling(outcome: float | None, by: str, reason: str = "") -> Verdict:
    """A verdict.

    Args:
        outcome: From 0, not solved, to 1, solved; None where the judge could not tell.
        by: Who says so.
        reason: Why, for a person; empty where nothing needs saying.
    """
    return Verdict.model_validate(
        {"outcome": outcome, "by": by, **({"reason": cut(reason, _REASON_SHOWN)} if reason else {})}
    )
