"""Folds runs that never ended into lines of the log: `orchestra runs repair`.

A run whose process died, or that failed, leaves its spool. Its turns are merged from what was journalled; an attempt
that was started and never came back becomes an uncertain charge with its upper bound. The line says `abandoned`, or
`failed` where the last record is an error. A run that is resumed after it was folded knows what its line holds, and
writes a later one when it finishes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from orchestra_graph.errors import RunLogError
from orchestra_graph.journal import best_known, owner_of
from orchestra_graph.ledger import totals
from orchestra_graph.runlog.files import Appender
from orchestra_graph.runlog.log import captures_named, captures_of, charges_of, runs_of, write_run
from orchestra_graph.runlog.read import find_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.runlog.spool import SPARE, Journal, Record, is_running, read_journal, spool_folder
from orchestra_graph.turns import Charge, Decision, Turn, merge_turns

_EMPTY_SECONDS = 60
NO_REPLY = "the run ended before the router's reply came back"


@dataclass(slots=True)
class RepairReport:
    """Run ids by what became of them."""

    folded: list[str] = field(default_factory=list)
    """Written to the log as abandoned or failed."""
    finished: list[str] = field(default_factory=list)
    """Answered in the log already: the leftover spool was dropped, and what it knew of payments added to the line."""
    running: list[str] = field(default_factory=list)
    """Their process still runs."""
    waiting: list[str] = field(default_factory=list)
    """They wait for a person."""
    unclear: list[str] = field(default_factory=list)
    """Written on another machine: give `older_than` to fold them by age."""
    torn: int = 0
    """Records that could not be read."""


def repair(path: str | Path, *, older_than: float | None = None) -> RepairReport:
    """Fold the spools of runs that will not go on.

    Args:
        path: The log.
        older_than: Seconds. Spools untouched for longer are folded even if the run waits for a person, or its process
            cannot be checked from here. A run of a process that runs on this machine is never folded.

    Raises:
        RunLogError: The log or a spool cannot be read or written.
    """
    log = Path(path)
    report = RepairReport()
    folder = spool_folder(log)
    if not folder.is_dir():
        if not log.exists():
            raise RunLogError(f"{log}: no such run log, and no spool beside it")
        return report
    with _only_one(folder):
        for file in folder.glob(f"*{SPARE}"):  # a process that still runs makes new ones
            file.unlink(missing_ok=True)
        dead = [leftover for leftover in _leftovers(folder) if _is_over(leftover, older_than, report)]
        logged = find_runs(log, {leftover.journal.run_id for leftover in dead}) if dead and log.exists() else {}
        lines = Appender(log)
        for leftover in dead:
            report.torn += leftover.journal.torn
            _fold(lines, leftover.journal, logged.get(leftover.journal.run_id), report)
            leftover.file.unlink(missing_ok=True)
    return report


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time repair."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Leftover:
    file: Path
    age: float
    """Seconds since the last record."""
    journal: Journal


def _leftovers(folder: Path) -> list[_Leftover]:
    """The journals of runs that have not ended."""
    found = []
    for file in sorted(folder.glob("*.jsonl")):
        try:
            stat = file.stat()
            age = time.time() - stat.st_mtime
            if stat.st_size == 0 and age > _EMPTY_SECONDS:
                file.unlink()  # its process died before it wrote; one that was just made may be written yet
            else:
                found.append(_Leftover(file, age, read_journal(file)))
        except FileNotFoundError:  # the run ended meanwhile
            continue
    return found


def _is_over(leftover: _Leftover, older_than: float | None, report: RepairReport) -> bool:
    journal = leftover.journal
    owners = journal.of("owner")
    running = is_running(owners[-1]) if owners else None
    if running:
        report.running.append(journal.run_id)
        return False
    if older_than is not None and leftover.age > older_than:
        return True
    if running is None:
        report.unclear.append(journal.run_id)
        return False
    if _waiting(journal):
        report.waiting.append(journal.run_id)
        return False
    return True


def _waiting(journal: Journal) -> set[str]:
    """The calls that wait for a person; others of the same reply may have come back since they began to."""
    calls: set[str] = set()
    for record in journal.records:
        match record["kind"]:
            case "waiting":
                calls.add(record.get("call", ""))  # earlier releases did not say which
            case "attempt":
                calls.discard(owner_of(record["key"]))
            case "turn":
                calls.difference_update(record["turn"].get("outcomes", ()))
            case "error":
                calls.clear()
    return calls


def _fold(log: Appender, journal: Journal, logged: Trajectory | None, report: RepairReport) -> None:
    """Write the run's line, on top of what an earlier line of the same run holds."""
    before: dict[str, Any] = {} if logged is None else logged.model_dump(mode="json", exclude_unset=True)
    is_answered = logged is not None and logged.ended == "answered"
    (report.finished if is_answered else report.folded).append(journal.run_id)
    run = folded(journal, before)
    if is_answered and run["turns"] == before["turns"]:
        return
    write_run(log, journal.run_id, run, run["captures"])


def folded(journal: Journal, before: Record | None = None) -> Record:
    """The trajectory of a run that will not go on, from what it has journalled.

    Args:
        journal: Its records.
        before: What an earlier line of the same run holds.
    """
    before = before or {}
    turns: dict[str, Any] = {turn["id"]: turn for turn in before.get("turns", ())}
    # A step that was taken again after the answer: what it decided was never an answer, but it was paid.
    is_answered = before.get("ended") == "answered"
    for record in [] if is_answered else journal.of("turn"):
        turns = merge_turns(turns, {record["turn"]["id"]: record["turn"]})
    merged = _with_charges(turns, charges_of(journal), journal.run_id)
    whole = {id: _whole(turn) for id, turn in merged.items()}
    nested = before.get("runs", {}) | runs_of(journal)
    captures = before.get("captures", {}) | ({} if is_answered else captures_of(journal))
    return {
        "run_id": journal.run_id,
        "task": {"question": ""},
        **before,
        **_header(journal),
        **({} if is_answered else _ending(journal)),
        "turns": sorted(whole.values(), key=lambda turn: turn["index"]),
        "totals": totals(whole),
        **({"runs": nested} if nested else {}),
        "captures": {id: captures[id] for id in captures_named(whole.values()) if id in captures},
    }


def _header(journal: Journal) -> Record:
    header: Record = {}
    for record in journal.of("header"):
        header |= {key: value for key, value in record.items() if key != "kind"}
    return header


def _ending(journal: Journal) -> Record:
    last = journal.records[-1] if journal.records else {}
    failed = last.get("kind") == "error"
    return {
        "answer": None,
        "stopped_by": None,
        "ended": "failed" if failed else "abandoned",
        "error": last.get("error") if failed else None,
        "ended_at": datetime.now(UTC).isoformat(),
    }


def _with_charges(turns: dict[str, Any], charges: dict[str, Charge], run_id: str) -> dict[str, Any]:
    """Add each charge to the turn that it belongs to, unless a turn holds it already."""
    places = {key: id for id, turn in turns.items() for key in turn.get("charges", ())}
    for key, charge in charges.items():
        turn_id = places.get(key) or _turn_of(owner_of(key), turns, run_id)
        held = turns.get(turn_id, {}).get("charges", {})
        turns = merge_turns(turns, {turn_id: {"id": turn_id, "charges": best_known(held, {key: charge})}})
    return turns


def _turn_of(owner: str, turns: dict[str, Any], run_id: str) -> str:
    """The turn to which an attempt belongs.

    Args:
        owner: A turn's id, or a call's, which begins with its turn's.
        turns: The turns known so far.
        run_id: Names the first turn of a run that has none.
    """
    if owner in turns:
        return owner
    around = [id for id in turns if owner.startswith(f"{id}-")]
    if around:
        return max(around, key=len)
    if owner.rpartition("-")[0] == run_id[:8]:
        return owner
    return next(reversed(turns), f"{run_id[:8]}-0")


def _whole(turn: Record) -> Turn:
    """A turn of which perhaps only parts were written."""
    nothing: Decision = {
        "calls": [],
        "reason": "",
        "by": "router",
        "problem": {"kind": "router_error", "detail": NO_REPLY},
    }
    index = turn["id"].rpartition("-")[2]
    empty = {"index": int(index) if index.isdecimal() else 0, "decision": nothing, "seconds": 0.0}
    return cast(Turn, {**empty, "charges": {}, "outcomes": {}, **turn})
