"""What runs have journalled so far: one file a run in a folder beside the log.

Each record begins with a newline, so that a record torn by a crash does not spoil the one after it. The first record
of a process says which process it is: `repair` must not fold a run that goes on. A process that takes up another's run
appends to the same file. Two that go on with one run at once are not kept apart.

Records that only tell what came back are held and written with the next one, which tells what is sent. A process that
is killed in between, which are microseconds, leaves an attempt without its charge, as if it had not come back.

To make and delete a file costs more than all the writes of a run: ext4, for one, passes by each file that was deleted
in the last seconds when it makes one. So a process keeps its files. Each has a name of its own, `*.spare`; a run's name
is a hard link to it, made when the run has its first record and dropped at its end, when the file is emptied for the
next run. Whoever finds a spare name may delete it: a process that misses one makes another.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestra_graph.runlog.encoding import dump, load
from orchestra_graph.runlog.files import Forkable, is_at, open_to_append, write_all

SPARE = ".spare"
"""Suffix of the names under which processes keep files for their next runs."""

SPOOL = ".spool"
"""Suffix of the folder beside a log."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")

_MOST_OPEN = 256
"""Files kept open at a time, by runs and for the next ones; far below the usual limit of a process, 1,024."""

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


def spool_folder(path: Path) -> Path:
    """Folder in which the runs of a log are journalled."""
    return Path(f"{path}{SPOOL}")


class Spool(Forkable):
    """The journals of the runs that have not ended.

    Args:
        folder: Made when the first record is written.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._lock = threading.Lock()  # a thread may close the file of another one's run
        self._owner = this_process()
        self._open: dict[str, int] = {}
        """Descriptors by run."""
        self._free: list[int] = []
        """Descriptors of empty files."""
        self._spares: dict[int, str] = {}
        """Names that this process gave to its files, by descriptor."""
        self._held: dict[str, bytes] = {}
        """Records by run that will be written with its next one."""
        weakref.finalize(self, _leave, folder, self._spares, self._held, self._owner)

    def __del__(self) -> None:
        for descriptor in (*self._open.values(), *self._free):
            os.close(descriptor)

    def append(self, run_id: str, record: Mapping[str, Any], *, hold: bool = False) -> None:
        """Append one record to a run's journal.

        Args:
            run_id: The run.
            record: What has happened.
            hold: Write it together with the run's next record that is not held, or when the process ends.

        Raises:
            OSError: It could not be written.
        """
        line = b"\n" + dump(record)
        with self._lock:
            if hold and len(self._held) < _MOST_OPEN:
                self._held[run_id] = self._held.get(run_id, b"") + line
            else:
                self._write(run_id, line)

    def _write(self, run_id: str, line: bytes) -> None:
        """Write what was held of a run, and a line."""
        descriptor = self._open.get(run_id)
        if descriptor is not None and not is_at(descriptor, _file(self.folder, run_id)):
            # Another process has ended the run, and the file may be another run's by now.
            self._recycle(self._open.pop(run_id))
            descriptor = None
        if descriptor is None:
            descriptor = self._take(run_id)
        write_all(descriptor, self._held.pop(run_id, b"") + line)

    def read(self, run_id: str) -> Journal | None:
        """A run's journal, or None where there is none."""
        with self._lock:
            if run_id in self._held:
                self._write(run_id, b"")
        try:
            return read_journal(_file(self.folder, run_id))
        except FileNotFoundError:
            return None

    def remove(self, run_id: str) -> None:
        """Forget a run."""
        with self._lock:
            self._held.pop(run_id, None)
            _unlink(_file(self.folder, run_id))
            descriptor = self._open.pop(run_id, None)
            if descriptor is not None:
                self._recycle(descriptor)

    def start_over(self) -> None:
        """Close all files and forget what was held for them: a child's runs are its own."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._owner.update(this_process())
        self._spares.clear()
        self._held.clear()
        while self._open:
            os.close(self._open.popitem()[1])
        while self._free:
            os.close(self._free.pop())

    def _take(self, run_id: str) -> int:
        """Open a file for the run, kept open between records. It says first whose it is."""
        owner = b"\n" + dump({"kind": "owner", "run_id": run_id, **self._owner})
        descriptor = self._free.pop() if self._free else self._make()
        while len(self._open) + len(self._free) >= _MOST_OPEN:
            self._close(self._free.pop() if self._free else self._open.pop(next(iter(self._open))))
        try:
            write_all(descriptor, owner)
            os.link(self._spares[descriptor], _file(self.folder, run_id))
        except FileNotFoundError:  # the spare name was deleted
            self._close(descriptor)
            descriptor = self._by_name(run_id, owner)
        except OSError:  # the run has a file already, or there are no hard links here
            self._recycle(descriptor)
            descriptor = self._by_name(run_id, owner)
        self._open[run_id] = descriptor
        return descriptor

    def _by_name(self, run_id: str, owner: bytes) -> int:
        descriptor = open_to_append(_file(self.folder, run_id))
        try:
            write_all(descriptor, owner)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _make(self) -> int:
        name = f"{self.folder}/{uuid4().hex}{SPARE}"
        descriptor = open_to_append(name)
        self._spares[descriptor] = name
        return descriptor

    def _recycle(self, descriptor: int) -> None:
        """Keep one of our own files for the next run."""
        if descriptor in self._spares:
            os.ftruncate(descriptor, 0)
            self._free.append(descriptor)
        else:
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        """Close a file; what a run has written stays under the run's name."""
        name = self._spares.pop(descriptor, None)
        if name is not None:
            _unlink(name)
        os.close(descriptor)


def _file(folder: Path, run_id: str) -> str:
    """A file name for any run id: the id itself where it can be one."""
    name = run_id if _FILE_NAME.fullmatch(run_id) else hashlib.sha256(run_id.encode("utf-8", "replace")).hexdigest()
    return f"{folder}/{name}.jsonl"


def _leave(folder: Path, spares: dict[int, str], held: dict[str, bytes], owner: Record) -> None:
    """Write what a spool that is gone held, and delete its spare names, unless they are of a process that forked."""
    if owner["pid"] == os.getpid():
        for run_id, lines in list(held.items()):  # a daemon thread may go on
            descriptor = open_to_append(_file(folder, run_id))
            try:
                write_all(descriptor, lines)
            finally:
                os.close(descriptor)
        for name in list(spares.values()):
            _unlink(name)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:  # somebody deleted it before
        return


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
