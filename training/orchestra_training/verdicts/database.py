"""The verdict on a task that changes a database: the three criteria of ToolScale (arXiv 2511.21689, appendix K)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra_graph.runlog.record import Verdict
from orchestra_training.verdicts.ruling import ruling
from orchestra_training.verdicts.text import says
from orchestra_training.verdicts.values import difference

Entry = tuple[str, str]
"""Table and key."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What a sequence of calls left of a database, and what of it they looked at or changed."""

    content: Mapping[str, Any]
    """By table; plain JSON values below that."""
    touched: frozenset[Entry] = frozenset()
    """Entries read or written."""


def same_database(run: Visit, golden: Visit, *, said: str = "", required: Sequence[str] = ()) -> Verdict:
    """Whether a run did to a database what the golden calls do to a fresh one.

    1. The database afterwards equals the database after the golden calls.
    2. The required information was said, each piece as whole words.
    3. The entries that the golden calls touch were touched; others may be touched as well.

    Args:
        run: The run's calls.
        golden: The golden calls.
        said: All that the user was told.
        required: Short pieces of information that the user must be told.

    Raises:
        ConfigError: A required piece is empty.

    >>> golden = Visit({"orders": {"o1": {"status": "cancelled"}}}, frozenset({("orders", "o1")}))
    >>> same_database(golden, golden, said="Order o1 is cancelled.", required=["cancelled"]).outcome
    1.0
    >>> same_database(Visit({"orders": {"o1": {"status": "open"}}}), golden).reason
    "orders/o1/status = 'open'; expected 'cancelled'; never touched: orders/o1"
    """
    different = difference(run.content, golden.content)
    unsaid = [part for part in required if not says(said, part)]
    untouched = sorted(golden.touched - run.touched)
    faults = [
        *([different] if different else []),
        *([f"never said: {', '.join(unsaid)}"] if unsaid else []),
        *([f"never touched: {', '.join('/'.join(entry) for entry in untouched)}"] if untouched else []),
    ]
    return ruling(not faults, "database", "; ".join(faults))
