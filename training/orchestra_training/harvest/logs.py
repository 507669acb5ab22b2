"""Run logs as a source: a file, plain or compressed.

Runs that have not ended are in the spool beside the log: they are counted and left there. A nested run that shares the
log with the run around it has a line of its own and is in that run's line, which stands for both; where that run has
no line, since it has not ended, the nested one stands for itself.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestra_graph.runlog.read import ReadReport, read_lines, run_ids
from orchestra_graph.runlog.spool import is_running, read_journal, spool_folder
from orchestra_training.harvest.source import Found, SourceReport

SUFFIXES = (".jsonl", ".jsonl.zst")

_IN_CALLS: Final = 8
"""Characters of a run's id that the ids of its turns and calls begin with."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """One run log."""

    path: Path

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.path)

    @property
    def asked(self) -> Mapping[str, str]:
        """Nothing: it is read whole."""
        return {}

    def read(self, report: SourceReport, known: Container[str]) -> Iterator[Found]:
        """See `Source.read`.

        Raises:
            RunLogError: The file cannot be opened.
        """
        found = ReadReport()
        # The call that a nested run is in begins with the first part of the id of the run around it.
        around = {run_id[:_IN_CALLS] for run_id in run_ids(self.path)}
        for logged in read_lines(self.path, report=found, known=known):
            report.expected = found.lines
            if logged.run.parent is not None and logged.run.parent[:_IN_CALLS] in around:
                report.noted["nested"] += 1
                continue
            report.runs += 1
            yield Found(logged.run, logged.line, logged.is_judged_later)
        for problem in found.problems:
            report.tell(problem)
        report.read += found.lines
        report.known += found.known
        report.skipped.update(found.faults)
        for kind, count in (("superseded", found.superseded), ("verdicts", found.verdicts)):
            if count:
                report.noted[kind] += count
        self._count_unended(report)

    def _count_unended(self, report: SourceReport) -> None:
        for file in sorted(spool_folder(self.path).glob("*.jsonl")):
            try:
                journal = read_journal(file)
            except FileNotFoundError:  # it ended meanwhile
                continue
            owners = journal.of("owner")
            if not owners:  # its process has not written yet, or died before
                continue
            if is_running(owners[-1]):
                report.skip("running", str(file), f"run {journal.run_id} goes on; fix: harvest again when it has ended")
            else:
                fix = f"fix: orchestra runs repair {self.path}"
                report.skip("not_ended", str(file), f"run {journal.run_id} waits or was abandoned; {fix}")


def logs_in(folder: Path) -> list[LogSource]:
    """The run logs of a folder and of those below it, by name."""
    spools = {f"{name}.spool" for name in SUFFIXES}
    return [
        LogSource(path)
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(SUFFIXES) and not any(part.endswith(tuple(spools)) for part in path.parts)
    ]
