"""What a harvest writes: a run log, each line of which says where it is from and how faithful it is.

A line begins with version and run id, like any other, and then has `harvest`: a `Provenance`. Lines are appended, so
what was written before an interruption stands, and says which runs need not be read again. A line that was cut off is
cut away.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from orchestra_graph.errors import RunLogError
from orchestra_graph.runlog.encoding import TRAJECTORY_VERSION, dump
from orchestra_graph.runlog.files import COMPRESSED, Appender, lines, size_between_writes
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_training.harvest.fidelity import ORDER, Fidelity, Shortfall
from orchestra_training.harvest.source import Found
from orchestra_training.reward.measures import is_solved

_HEAD: Final = re.compile(rb'\{"version":1,"run_id":"[^"\\]+",')
_OWN_HEAD: Final = re.compile(r'\{"version":1,"run_id":("(?:[^"\\]|\\.)*"),"(harvest|verdict)":')
_HEAD_CHARACTERS: Final = 16_384
"""More than any provenance takes."""
_REASON_CHARACTERS: Final = 300


class Provenance(BaseModel):
    """Where a harvested run is from."""

    model_config = ConfigDict(frozen=True)

    source: str
    task: str
    """From `split.task_hash`."""
    fidelity: Fidelity
    shortfall: Shortfall | None = None
    """What keeps it from being exact."""
    reason: str = ""
    """The same in words."""
    is_answered: bool
    is_judged: bool
    is_skewed: bool = False
    """Whether it ended before it started: the clock was set meanwhile."""


def provenance(run: Trajectory) -> Provenance | None:
    """Where a run is from; None where it was not harvested."""
    told = (run.model_extra or {}).get("harvest")
    return None if told is None else Provenance.model_validate(told)


class Entry(NamedTuple):
    """What is remembered of a run that was written."""

    source: str
    task: str
    fidelity: Fidelity
    shortfall: Shortfall | None
    is_answered: bool
    is_skewed: bool
    verdict: bytes | None
    """As JSON."""
    is_test: bool

    def is_better_than(self, other: Entry) -> bool:
        """Whether training should rather have this one."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[int, bool]:
        return ORDER.index(self.fidelity), not self.is_answered


class Output:
    """One of the files of a harvest.

    Args:
        path: Made by the first line.
        is_test: Whether its tasks test.
    """

    def __init__(self, path: Path, *, is_test: bool) -> None:
        self.path = path
        self._is_test = is_test
        self._lines = Appender(path)
        self._verdicts: dict[bytes, bytes] = {}

    def restore(self) -> Iterator[tuple[str, Entry]]:
        """What was written before, the later of a run's lines after the earlier; cuts away a torn end.

        Raises:
            RunLogError: The file is not one that a harvest wrote.
        """
        if not self.path.exists():
            return
        entries: dict[str, Entry] = {}
        with self.path.open("rb") as file:
            end = size_between_writes(file)
            for line in lines(file, end=end, compressed=self.path.suffix == COMPRESSED):
                if line.data is None or not line.data.endswith(b"}\n"):
                    os.truncate(self.path, line.offset)
                    break
                run_id, entry = self._read(line.data, entries, f"{self.path}:{line.number}")
                entries[run_id] = entry
        yield from entries.items()

    def _read(self, data: bytes, entries: dict[str, Entry], place: str) -> tuple[str, Entry]:
        text = data[:_HEAD_CHARACTERS].decode("utf-8", "replace")
        head = _OWN_HEAD.match(text)
        if head is None:
            raise RunLogError(f"{place}: no line of a harvest; fix: harvest into a folder of its own")
        run_id = json.loads(head[1])
        if head[2] == "verdict":
            return run_id, entries[run_id]._replace(verdict=self._verdict_in(data))
        told = Provenance.model_validate(json.JSONDecoder().raw_decode(text, head.end())[0])
        return run_id, self.entry(told, self._verdict_in(data) if told.is_judged else None)

    def _verdict_in(self, data: bytes) -> bytes:
        return self._kept(orjson.dumps(orjson.loads(data)["verdict"]))

    def _kept(self, verdict: bytes) -> bytes:
        """The same object for the same verdict: most runs have one of a few."""
        return self._verdicts.setdefault(verdict, verdict) if len(verdict) < _REASON_CHARACTERS else verdict

    def entry(self, told: Provenance, verdict: bytes | None) -> Entry:
        """What is remembered of a run."""
        return Entry(
            source=sys.intern(told.source),
            task=told.task,
            fidelity=told.fidelity,
            shortfall=told.shortfall,
            is_answered=told.is_answered,
            is_skewed=told.is_skewed,
            verdict=None if verdict is None else self._kept(verdict),
            is_test=self._is_test,
        )

    def write(self, found: Found, told: Provenance) -> Entry:
        """Append a run.

        Raises:
            RunLogError: It could not be written.
        """
        self._append(_line(found, told))
        return self.entry(told, verdict_of(found.run))

    def judge(self, run_id: str, verdict: bytes) -> None:
        """Append a verdict on a run that was written, as JSON.

        Raises:
            RunLogError: It could not be written.
        """
        head = dump({"version": TRAJECTORY_VERSION, "run_id": run_id})
        self._append(b"".join((head[:-2], b',"verdict":', verdict, b"}\n")))

    def _append(self, line: bytes) -> None:
        try:
            self._lines.append(line)
        except OSError as error:
            raise RunLogError(f"{self.path}: cannot be written: {error.strerror}") from error


def verdict_of(run: Trajectory) -> bytes | None:
    """A run's verdict as JSON; None where its judge could not tell, so that one of another source stands."""
    if run.verdict is None or is_solved(run.verdict) is None:
        return None
    return run.verdict.model_dump_json().encode()


def judged(run: Trajectory, verdict: bytes) -> Found:
    """A run with a verdict that is given as JSON."""
    return Found(run.model_copy(update={"verdict": Verdict.model_validate_json(verdict)}))


def _line(found: Found, told: Provenance) -> bytes:
    """The run's line. One that a run log holds is taken as it stands, with what is new put behind its head."""
    new = {"harvest": told.model_dump(exclude_defaults=True)}
    line = found.line
    head = None if line is None else _HEAD.match(line)
    if line is not None and head is not None and b'"harvest":' not in line:
        if not found.is_judged_later:
            return b"".join((head[0], orjson.dumps(new)[1:-1], b",", line[head.end() :]))
        if b'"verdict":' not in line and found.run.verdict is not None:
            verdict = found.run.verdict.model_dump_json().encode()
            return b"".join((head[0], orjson.dumps(new)[1:-1], b',"verdict":', verdict, b",", line[head.end() :]))
    record = found.run.model_dump(mode="json", exclude_unset=True)
    ids = {"version": TRAJECTORY_VERSION, "run_id": found.run.run_id}
    return dump({**ids, **new, **record, **ids, **new})
