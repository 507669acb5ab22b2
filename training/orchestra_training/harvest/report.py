"""What came of a harvest, in numbers: of the runs that were written, and of each source."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from orchestra_training.harvest.source import SourceReport


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """One of the files."""

    file: str
    sha256: str | None
    """Of the file; None where there was nothing to write."""
    runs: int
    tasks: int
    judged: int
    """Runs with a verdict."""


@dataclass(frozen=True, slots=True)
class HarvestReport:
    """All that was harvested, before an interruption as well."""

    splits: dict[str, SplitCounts]
    """`train` and `test`."""
    fidelity: Counter[str]
    """Runs by fidelity."""
    shortfalls: Counter[str]
    """Runs that are not exact, by fidelity and by what they lack."""
    clock_skew: int
    """Runs that ended before they started."""
    written: Counter[str]
    """Runs by the source that stands for them."""
    sources: list[SourceReport]

    @property
    def runs(self) -> int:
        """Runs that were written."""
        return sum(split.runs for split in self.splits.values())

    @property
    def skipped(self) -> Counter[str]:
        """Records and runs that gave nothing, by kind."""
        return sum((source.skipped for source in self.sources), Counter[str]())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "runs": self.runs,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "fidelity": dict(self.fidelity),
            "shortfalls": dict(self.shortfalls),
            "clock_skew": self.clock_skew,
            "written": dict(self.written),
            "skipped": dict(self.skipped),
            "sources": [source.to_json() for source in self.sources],
        }
