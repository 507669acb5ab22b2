"""Writes the run log: journals what happens during a run, and makes one line of it at the end.

A run's spool holds what must survive a crash: the header, each attempt before it is sent, each capture, each write to a
turn. `finish` replaces it by one line in the log. A run that never finishes leaves its spool to `repair`.

Records are dictionaries with a `kind`:

    header    {...}: fields of `record.Trajectory`; a later header adds to the earlier ones
    attempt   {"key": "<turn or call id>#<n>", "tool": ..., "upper": dollars}: written before the attempt is sent
    capture   {"id": ..., "turn": ..., "prompt_token_ids": [...], "token_ids": [...], "logprobs": [...]}
    turn      {"turn": {...}}: a `TurnUpdate`, merged by `merge_turns`
    waiting   {}: the run waits for a person; `repair` leaves it alone
    error     {"error": text}: the run failed

The log is a plain file; a machine that is switched off may lose its last lines. Works where `flock` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestra_graph.errors import RunLogError
from orchestra_graph.runlog.encoding import TRAJECTORY_VERSION, dump
from orchestra_graph.runlog.files import COMPRESSED, Appender
from orchestra_graph.runlog.spool import Record, Spool
from orchestra_graph.turns import Charge, Turn


class RunLog:
    """A log that any number of runs, threads and processes may write at the same time.

    Args:
        path: The log, usually `*.jsonl`. Made, with its folder, when the first run writes.
        compress: Compress each line with zstd; the name then ends in `.zst`, which also asks for it by itself.
    """

    def __init__(self, path: str | Path, *, compress: bool = False) -> None:
        name = str(path)
        self.path = Path(f"{name}{COMPRESSED}" if compress and not name.endswith(COMPRESSED) else name)
        self._lines = Appender(self.path)
        self._spool = Spool(spool_folder(self.path))

    def journal(self, run_id: str, record: Mapping[str, Any], *, hold: bool = False) -> None:
        """Keep one record of a run that goes on; a few microseconds.

        Args:
            run_id: The run.
            record: What has happened.
            hold: It tells what came back; let it wait for the record of what is sent next.

        Raises:
            RunLogError: It could not be written.
        """
        try:
            self._spool.append(run_id, record, hold=hold)
        except OSError as error:
            raise RunLogError(f"{self._spool.folder}: cannot be written: {error.strerror}") from error

    def attempts(self, run_id: str) -> dict[str, Record]:
        """Attempts that were started, by key, as journalled by any process; empty for a run without a spool."""
        journal = self._spool.read(run_id)
        return {} if journal is None else {record["key"]: record for record in journal.of("attempt")}

    def charges(self, run_id: str) -> dict[str, Charge]:
        """Charges that were journalled, by key, as written by any process; empty for a run without a spool."""
        journal = self._spool.read(run_id)
        parts = [] if journal is None else [record["turn"].get("charges", {}) for record in journal.of("turn")]
        return {key: charge for part in parts for key, charge in part.items()}

    def finish(self, run_id: str, trajectory: Mapping[str, Any]) -> None:
        """Write the run's line and drop its spool.

        Args:
            run_id: Readers take the last line of a run id.
            trajectory: The fields of `record.Trajectory`. Captures that its turns name are taken from the spool; others
                are dropped.

        Raises:
            RunLogError: It could not be written; the spool is kept.
        """
        named = captures_named(trajectory["turns"])
        journal = self._spool.read(run_id) if named else None
        captures = {} if journal is None else {record["id"]: record for record in journal.of("capture")}
        write_run(self._lines, run_id, trajectory, {id: captures[id] for id in named if id in captures})
        self._spool.remove(run_id)


def spool_folder(path: Path) -> Path:
    """Folder in which the runs of a log are journalled."""
    return Path(f"{path}.spool")


def captures_named(turns: Iterable[Turn]) -> list[str]:
    """Ids of the captures that turns name."""
    return [id for turn in turns for id in turn.get("captures", ())]


def write_run(log: Appender, run_id: str, trajectory: Mapping[str, Any], captures: Mapping[str, Record]) -> None:
    """Append one run's line.

    Raises:
        RunLogError: It could not be written.
    """
    # Version and run id come first: readers find them without decoding the line.
    head = {"version": TRAJECTORY_VERSION, "run_id": run_id}
    plain = {id: {key: value for key, value in record.items() if key != "kind"} for id, record in captures.items()}
    try:
        log.append(dump({**head, **trajectory, **head, "captures": plain}))
    except OSError as error:
        raise RunLogError(f"{log.path}: cannot be written: {error.strerror}") from error
