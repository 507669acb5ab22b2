"""What runs have journalled so far: one file a run in a folder beside the log.

Each record is appended by one `write` and begins with a newline, so that a record torn by a crash does not spoil the
one after it. The first record of a process says which process it is: `repair` must not fold a run that goes on.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_graph.runlog.encoding import dump, load
from orchestra_graph.runlog.files import open_to_append, write_all

_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")

_MOST_OPEN = 256
"""Files kept open at a time; far below the usual limit of a process, 1,024."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Journal:
    """The records of one run, oldest first."""

    run_id: str
    records: list[Record]
    torn: int = 0
    """Records that cannot be read."""

    def of(self, kind: str) -> list[Record]:
        """The records of one kind."""
        return [record for record in self.records if record.get("kind") == kind]


class Spool:
    """The journals of the runs that have not ended.

    Args:
        folder: Made when the first record is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owner = this_process()
        self._open: dict[str, int] = {}

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def append(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Append one record to a run's journal.

        Raises:
            OSError: It could not be written.
        """
        if self._owner["pid"] != os.getpid():  # a fork: its runs are its own
            self._owner = this_process()
            while self._open:
                os.close(self._open.popitem()[1])
        write_all(self._descriptor(run_id), b"\n" + dump(record))

    def _descriptor(self, run_id: str) -> int:
        """The run's file, kept open between records; a process that opens it says first who it is."""
        descriptor = self._open.get(run_id)
        if descriptor is None:
            while len(self._open) >= _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = self._open[run_id] = open_to_append(self._file(run_id))
            write_all(descriptor, b"\n" + dump({"kind": "owner", "run_id": run_id, **self._owner}))
        return descriptor

    def read(self, run_id: str) -> Journal | None:
        """A run's journal, or None where there is none."""
        try:
            return read_journal(self._file(run_id))
        except FileNotFoundError:
            return None

    def remove(self, run_id: str) -> None:
        """Forget a run."""
        descriptor = self._open.pop(run_id, None)
        if descriptor is not None:
            os.close(descriptor)
        Path(self._file(run_id)).unlink(missing_ok=True)

    def _file(self, run_id: str) -> str:
        """A file name for any run id: the id itself where it can be one."""
        name = run_id if _FILE_NAME.fullmatch(run_id) else hashlib.sha256(run_id.encode("utf-8", "replace")).hexdigest()
        return f"{self.folder}/{name}.jsonl"


def read_journal(path: Path | str) -> Journal:
    """Read one file of a spool.

    Raises:
        FileNotFoundError: There is none.
    """
    records: list[Record] = []
    torn = 0
    for line in Path(path).read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            record = load(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            torn += 1
    owners = [record["run_id"] for record in records if record.get("kind") == "owner"]
    return Journal(run_id=owners[-1] if owners else Path(path).stem, records=records, torn=torn)


def this_process() -> Record:
    """What tells this process from all others: machine, start of the machine, process namespace, number, start."""
    return {"pid": os.getpid(), "started": _start(os.getpid()), **_place()}


def is_running(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process that `this_process` described still runs; None where it cannot be known from here."""
    here = _place()
    if owner["host"] != here["host"]:
        return None
    if owner["boot"] != here["boot"]:
        return False
    if owner["namespace"] != here["namespace"]:
        return None
    if owner["started"] is not None:
        return bool(_start(owner["pid"]) == owner["started"])
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place() -> Record:
    return {
        "host": platform.node(),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
    }


def _start(pid: int) -> str | None:
    """Clock ticks from the machine's start to the process's (field 22 of proc_pid_stat(5)); None for one that ended."""
    stat = _first_line(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().partition("\n")[0]
    except OSError:  # no such process, or a system without /proc
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
