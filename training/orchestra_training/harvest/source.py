"""What a source of trajectories is, and how it tells what it could not give.

Every source is streamed: it holds one run at a time, and beside it no more than ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from orchestra_graph.runlog.record import Trajectory

PROBLEMS_KEPT: Final = 100
"""Texts of one source that its report holds; what is beyond is counted."""


@dataclass(frozen=True, slots=True)
class Found:
    """A run, and its line where a run log holds it."""

    run: Trajectory
    line: bytes | None = None
    """All that `run` says, unless its verdict came later; None where the source is no run log."""
    is_judged_later: bool = False


@dataclass(slots=True)
class SourceReport:
    """What came of reading one source."""

    name: str
    read: int = 0
    """Records: lines of a log, traces of a project, rows of an export, checkpoints."""
    runs: int = 0
    """Runs that were given."""
    known: int = 0
    """Runs passed over, since an interrupted harvest has them already."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Records and runs that gave nothing, by kind."""
    noted: Counter[str] = field(default_factory=Counter)
    """What is odd about runs that were given, and records that others stand in for, by kind."""
    problems: list[str] = field(default_factory=list)
    """The first ones in words: place, kind and reason."""
    expected: int | None = None
    """How many runs are to come, where the source knows."""

    def skip(self, kind: str, place: str, reason: str) -> None:
        """Note a record or a run that gives nothing."""
        self.skipped[kind] += 1
        self.tell(f"{place}: {kind}: {reason}")

    def note(self, kind: str, place: str, reason: str) -> None:
        """Note something odd about a run that is given all the same."""
        self.noted[kind] += 1
        self.tell(f"{place}: {kind}: {reason}")

    def tell(self, problem: str) -> None:
        """Keep a text, as far as there is room."""
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "read": self.read,
            "runs": self.runs,
            "known": self.known,
            "skipped": dict(self.skipped),
            "noted": dict(self.noted),
            "problems": self.problems,
        }


class Source(Protocol):
    """Where trajectories come from."""

    @property
    def name(self) -> str:
        """Tells it from others, in reports and in what is written."""

    @property
    def asked(self) -> Mapping[str, str]:
        """What decides beside its name which runs it gives, and who judges them."""

    def read(self, report: SourceReport, known: Container[str]) -> Iterator[Found]:
        """Give each run once.

        Args:
            report: Counts what was read, and what was skipped with its reason.
            known: Ids of runs that are not wanted; they are counted.

        Raises:
            OrchestraError: The source cannot be read at all.
        """
