"""Writes the run log: journals what happens during a run, and makes one line of it at the end.

A run's spool holds what must survive a crash: the header, each attempt before it is sent, each capture, each write to a
turn. `finish` replaces it by one line in the log. A run that never finishes leaves its spool to `repair`. Where a run
goes on after its line was written, what the line knows of payments is journalled again.

Records are dictionaries with a `kind`:

    header    {...}: fields of `record.Trajectory`; a later header adds to the earlier ones
    attempt   {"key": "<turn or call id>#<n>", "tool": ..., "upper": dollars}: written before the attempt is sent
    capture   {"id": ..., "turn": ..., "prompt_token_ids": [...], "token_ids": [...], "logprobs": [...]}: of this
              run, or of one nested in it that has no log of its own
    turn      {"turn": {...}}: a `TurnUpdate`, merged by `merge_turns`
    charges   {"charges": {...}}: by key, those of nested runs, which come before their call's outcome
    run       {"run": {...}}: the trajectory of a run nested in one of its calls, when that has ended
    waiting   {"call": id}: the call waits for a person, and `repair` leaves the run alone
    error     {"error": text}: the run failed

Who judges a run after its end appends a line of its own, `{"version", "run_id", "verdict"}`, which readers add to the
run's: `RunLog.judge`.

The log is a plain file; a machine that is switched off may lose its last lines. Works where `flock` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra_graph.errors import RunLogError
from orchestra_graph.journal import best_known, lost
from orchestra_graph.runlog.encoding import TRAJECTORY_VERSION, dump
from orchestra_graph.runlog.files import COMPRESSED, Appender
from orchestra_graph.runlog.spool import Journal, Record, Spool, spool_folder
from orchestra_graph.turns import Charge, Turn

if TYPE_CHECKING:
    from orchestra_graph.runlog.record import Verdict


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

    def take_up(self, run_id: str) -> dict[str, Charge]:
        """What the attempts of a run that goes on have cost, by key, as written by any process.

        An attempt that never came back is uncertain, with its upper bound. The first time after the run's line was
        written, the whole log is read.

        Raises:
            RunLogError: The log cannot be read, or the journal not written.
        """
        journal = self._spool.read(run_id)
        if journal is None or not journal.of("header"):
            self._restore(run_id)
            journal = self._spool.read(run_id)
        return {} if journal is None else charges_of(journal)

    def _restore(self, run_id: str) -> None:
        """Journal again what the run's line holds: `finish` and `repair` drop the spool that says so."""
        from orchestra_graph.runlog.read import find_runs  # noqa: PLC0415  (its models take 20 ms, and this is rare)

        line = find_runs(self.path, {run_id}).get(run_id) if self.path.exists() else None
        for turn in [] if line is None else line.turns:
            self.journal(run_id, {"kind": "charges", "charges": turn["charges"]})
        for id, capture in ({} if line is None else line.captures).items():
            self.journal(run_id, {"kind": "capture", **capture.model_dump(exclude_unset=True), "id": id})
        for nested in ({} if line is None else line.runs).values():
            self.journal(run_id, {"kind": "run", "run": nested.model_dump(mode="json", exclude_unset=True)})
        self.journal(run_id, {"kind": "header"})  # at last, since it says that the journal is whole

    def finish(self, run_id: str, trajectory: Mapping[str, Any]) -> dict[str, Record]:
        """Write the run's line and drop its spool.

        Args:
            run_id: Readers take the last line of a run id.
            trajectory: The fields of `record.Trajectory`. Captures that its turns name are taken from the spool; others
                are dropped. Runs nested in its calls are taken from there as well, and so is a catalog that it lacks.

        Returns:
            The captures, by id.

        Raises:
            RunLogError: It could not be written; the spool is kept.
        """
        named = captures_named(trajectory["turns"])
        captures = self._captures(run_id, named) if named else {}
        captures = {id: captures[id] for id in named if id in captures}
        if "catalog" not in trajectory:
            trajectory = {**trajectory, **_catalog_of(self._spool.read(run_id))}
        nested = runs_of(self._spool.read(run_id)) if has_nested(trajectory["turns"]) else {}
        write_run(self._lines, run_id, {**trajectory, "runs": nested} if nested else trajectory, captures)
        self._spool.remove(run_id)
        return captures

    def judge(self, run_id: str, verdict: Verdict) -> None:
        """Say whether a run that has ended solved its task; of several verdicts readers take the last.

        A line of a few bytes: the run's own is neither read nor written again. A run that goes on afterwards is to be
        judged again.

        Args:
            run_id: A run whose line is in the log.
            verdict: Who says so is in it.

        Raises:
            RunLogError: It could not be written.
        """
        record = {"version": TRAJECTORY_VERSION, "run_id": run_id, "verdict": verdict.model_dump(mode="json")}
        append(self._lines, record)

    def _captures(self, run_id: str, named: list[str]) -> dict[str, Record]:
        captures = captures_of(self._spool.read(run_id))
        if not all(id in captures for id in named):  # the run's line was written before
            self._restore(run_id)
            captures = captures_of(self._spool.read(run_id)) | captures
        return captures


def _catalog_of(journal: Journal | None) -> Record:
    """The catalog that a run began with, as a field of its line."""
    headers = [] if journal is None else journal.of("header")
    return next(({"catalog": header["catalog"]} for header in headers if "catalog" in header), {})


def charges_of(journal: Journal) -> dict[str, Charge]:
    """All charges in a journal by key, with uncertain ones for attempts that never came back."""
    known = [record["turn"].get("charges", {}) for record in journal.of("turn")]
    known += [record["charges"] for record in journal.of("charges")]
    sent = {record["key"]: lost(record["tool"], record["upper"]) for record in journal.of("attempt")}
    return best_known(sent, *reversed(known))


def captures_of(journal: Journal | None) -> dict[str, Record]:
    """The captures in a journal, by id; of a decision that was made again the last one."""
    found = [] if journal is None else journal.of("capture")
    return {record["id"]: {key: value for key, value in record.items() if key != "kind"} for record in found}


def runs_of(journal: Journal | None) -> dict[str, Record]:
    """The nested runs in a journal, by id, each with its captures: those without a log of their own left them here."""
    runs = [] if journal is None else [record["run"] for record in journal.of("run")]
    found = captures_of(journal)
    named = [{id: found[id] for id in captures_named(run["turns"]) if id in found} for run in runs]
    return {
        run["run_id"]: {**run, "captures": {**captures, **run.get("captures", {})}}
        for run, captures in zip(runs, named, strict=True)
    }


def has_nested(turns: Iterable[Turn]) -> bool:
    """Whether runs were nested in the calls of these turns: they have charges under `{call id}/{key}`."""
    return any("/" in key for turn in turns for key in turn["charges"])


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
    append(log, {**head, **trajectory, **head, "captures": captures})


def append(log: Appender, record: Mapping[str, Any]) -> None:
    """Append one record as a line.

    Raises:
        RunLogError: It could not be written.
    """
    try:
        log.append(dump(record))
    except OSError as error:
        raise RunLogError(f"{log.path}: cannot be written: {error.strerror}") from error
