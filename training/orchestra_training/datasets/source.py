"""Run logs to build from: files, or what `orchestra harvest` wrote. They are read as often as needed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.harvest.gather import REPORT, TEST

SUFFIXES: Final = (".jsonl", ".jsonl.zst")
_SPLITS: Final = ("train", "test")
"""Of a harvest; its logs are named by them."""


@dataclass(slots=True)
class Logs:
    """Run logs, one after the other; of runs with the same id the first is given."""

    paths: list[Path]
    read: ReadReport = field(default_factory=ReadReport)
    """What the last reading found."""
    duplicates: int = 0
    """Runs of the last reading that another log had, too."""

    def __iter__(self) -> Iterator[Trajectory]:
        self.read, self.duplicates = ReadReport(), 0
        seen: set[str] = set()
        for path in self.paths:
            for run in read_runs(path, report=self.read):
                if run.run_id in seen:
                    self.duplicates += 1
                else:
                    seen.add(run.run_id)
                    yield run

    @property
    def are_set_aside(self) -> bool:
        """Whether these are the runs that a harvest keeps to test: it splits by task, whatever a run states."""
        return [path.name for path in self.paths] == [TEST]

    def skipped(self) -> Counter[str]:
        """What harvests left out on the way into these logs and those of the other split, by kind."""
        reports = [folder / REPORT for folder in {path.parent for path in self.paths}]
        found: Counter[str] = Counter()
        for report in reports:
            if report.is_file():
                found.update(orjson.loads(report.read_bytes()).get("skipped", {}))
        return found

    def described(self) -> list[dict[str, Any]]:
        """Name, size and SHA-256 of each file."""
        return [{"file": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)} for path in self.paths]


def logs_of(path: str | Path, split: str | None = "train") -> Logs:
    """The run logs at a path.

    Args:
        path: A log, or a folder of logs.
        split: Of a harvest, and of a folder with nothing but logs of splits, that of this one is taken; of any other
            folder, and where it is None, all logs.

    Raises:
        ConfigError: There is none, or logs of splits are among others.
    """
    place = Path(path)
    if place.is_file():
        return Logs([place])
    found = sorted(file for file in place.glob("*") if file.name.endswith(SUFFIXES) and file.is_file())
    if not found:
        raise ConfigError(f"{place}: expected a run log, *.jsonl or *.jsonl.zst, or a folder with some")
    others = [file for file in found if _split(file) not in _SPLITS]
    if split is None or others == found:
        return Logs(found)
    if others and not (place / REPORT).is_file():
        named = next(file for file in found if file not in others)
        raise ConfigError(
            f"{place} holds {named.name}, named as a split of a harvest, beside {others[0].name}; expected logs of "
            "splits only, or none; fix: name one file, or move the others"
        )
    wanted = [file for file in found if _split(file) == split]
    if not wanted:
        raise ConfigError(f"split = {split!r}; {place} has {', '.join(dict.fromkeys(map(_split, found)))}")
    return Logs(wanted)


def _split(log: Path) -> str:
    return log.name.partition(".")[0]


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
