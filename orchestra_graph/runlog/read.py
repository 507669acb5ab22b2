"""Reads run logs, plain or compressed, also while they are written.

Only the last line of a run id counts, with the verdict of a later line that only judges the run. The first pass notes
where lines begin, the second decodes one at a time, so memory does not grow with the length of lines. A line that
cannot be read is reported with its place and reason, and the line of the same run before it stands in for it.

A line repeats the whole catalog, which is most of it and costs more to validate than the rest: one that was read
before, to the byte, is not read again. Runs share the object.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal

from pydantic import BaseModel, ValidationError

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import RunLogError
from orchestra_graph.runlog.encoding import TRAJECTORY_VERSION, load
from orchestra_graph.runlog.files import COMPRESSED, Line, lines, read_line, size_between_writes
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.runlog.spool import spool_folder

_LOGGER = logging.getLogger(__name__)
_HEAD = re.compile(rb'\{"version":(\d+),"run_id":"([^"\\]+)",')

_CATALOG: Final = b'"catalog":'
_AFTER_CATALOG: Final = b',"catalog_hash":"'
_STAND_IN: Final = b'"\\u0000 the catalog"'
_STAND_IN_TEXT: Final = "\0 the catalog"
"""No catalog, and no text that anybody writes in its place."""
_BUFFER: Final = 1 << 18
"""Bytes that are read at a time: dozens of lines."""
_MOST_CATALOGS: Final = 256
"""Catalogs that are kept: some ten megabytes."""

Fault = Literal["torn", "foreign", "version", "invalid", "alone"]
"""Cut short or no JSON; JSON of something else; another format version; a run with a wrong field; a verdict of a run
that has no line before it."""


@dataclass(slots=True)
class ReadReport:
    """What a reader found beside the runs it gave."""

    lines: int = 0
    runs: int = 0
    superseded: int = 0
    """Earlier lines of runs that have a later one."""
    known: int = 0
    """Runs that the reader asked to pass over."""
    verdicts: int = 0
    """Lines that only judge a run; the last one of a run is its verdict."""
    faults: Counter[Fault] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    """One text a line that could not be read: file, line number, reason."""

    def add(self, path: Path, number: int, fault: Fault, reason: str) -> None:
        """Note a line that cannot be read."""
        self.faults[fault] += 1
        self.problems.append(f"{path}:{number}: {fault}: {reason}")


class _UnreadableError(Exception):
    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


_Places = tuple[tuple[int, int], ...]
"""Offset and number of each line of a run, oldest first; in tuples, which a garbage collector soon passes over."""


class _Judged(BaseModel):
    """What a line holds that only judges a run."""

    version: int
    run_id: str
    verdict: Verdict


_JUDGED: Final = frozenset(_Judged.model_fields)


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """A run of a log, and the line that holds it."""

    run: Trajectory
    line: bytes
    is_judged_later: bool
    """Whether the verdict is from another line."""


def read_runs(path: str | Path, *, report: ReadReport | None = None) -> Iterator[Trajectory]:
    """All runs of a log, in the order of their last lines.

    Args:
        path: The log.
        report: Filled while reading. Without one, lines that cannot be read are logged as warnings.

    Raises:
        RunLogError: The file cannot be opened.
    """
    found = ReadReport() if report is None else report
    for logged in read_lines(path, report=found):
        yield logged.run
    if report is None:
        for problem in found.problems:
            _LOGGER.warning("%s", problem)


def read_lines(path: str | Path, *, report: ReadReport, known: Container[str] = ()) -> Iterator[LoggedRun]:
    """All runs of a log with their lines, in the order of their last lines.

    Args:
        path: The log.
        report: Filled while reading.
        known: Ids of runs that are not wanted; their lines are counted and not decoded.

    Raises:
        RunLogError: The file cannot be opened.
    """
    catalogs, log = _Catalogs(), Path(path)
    with _open(log) as file:
        places = _index(log, file, report)
        for run_id, run_places in sorted(places.items(), key=lambda run: run[1][-1]):
            if run_id in known:
                report.known += 1
                continue
            found = _last_readable(log, file, run_places, report, catalogs)
            if found is not None:
                report.runs += 1
                yield found


def read_run(path: str | Path, run_id: str) -> Trajectory:
    """One run of a log.

    Raises:
        RunLogError: The file cannot be opened, or no line of the run can be read.
    """
    run = find_runs(Path(path), {run_id}).get(run_id)
    if run is None:
        raise RunLogError(f"{path}: no run {run_id!r} that can be read; `orchestra runs list` shows what is there")
    return run


def find_runs(path: Path, run_ids: set[str]) -> dict[str, Trajectory]:
    """Those of the runs that the log has.

    Raises:
        RunLogError: The file cannot be opened.
    """
    report = ReadReport()
    with _open(path) as file:
        places = _index(path, file, report)
        catalogs = _Catalogs()
        found = {id: _last_readable(path, file, places[id], report, catalogs) for id in run_ids if id in places}
    return {id: logged.run for id, logged in found.items() if logged is not None}


def run_ids(path: Path) -> set[str]:
    """The ids of all runs of a log, without reading more of them.

    Raises:
        RunLogError: The file cannot be opened.
    """
    with _open(path) as file:
        return set(_index(path, file, ReadReport()))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=_BUFFER)
    except FileNotFoundError as error:
        left = (
            f"; runs that did not end are beside it; fix: orchestra runs repair {path}"
            if spool_folder(path).is_dir()
            else ""
        )
        raise RunLogError(f"{path}: no such run log{left}") from error
    except OSError as error:
        raise RunLogError(f"{path}: cannot be read: {error.strerror}") from error


def _index(path: Path, file: BinaryIO, report: ReadReport) -> dict[str, _Places]:
    """Places of the lines of each run, oldest first."""
    places: dict[str, _Places] = {}
    for line in lines(file, end=size_between_writes(file), compressed=path.suffix == COMPRESSED):
        report.lines += 1
        try:
            run_id = _run_id(line)
        except _UnreadableError as error:
            report.add(path, line.number, error.fault, str(error))
        else:
            places[run_id] = (*places.get(run_id, ()), (line.offset, line.number))
    return places


def _run_id(line: Line) -> str:
    if line.data is None:
        raise _UnreadableError("torn", "the frame is cut short or damaged")
    if b"\n" in line.data[:-1]:
        raise _UnreadableError(
            "torn", "the frame holds several lines, and a log one in each; fix: zstd -d the file, and name it .jsonl"
        )
    if not line.data[-4:].rstrip().endswith(b"}"):
        raise _UnreadableError("torn", "the line is cut short, or no JSON object")
    head = _HEAD.match(line.data)
    if head:
        return _checked(int(head[1]), head[2].decode("utf-8", "replace"))
    return _checked(*_decoded_head(line.data))


def _checked(version: object, run_id: str) -> str:
    if version != TRAJECTORY_VERSION:
        raise _UnreadableError("version", f"version {version!r}; expected {TRAJECTORY_VERSION}")
    return run_id


def _decoded_head(data: bytes) -> tuple[object, str]:
    record = _decode(data)
    if not isinstance(record, dict) or "version" not in record or not isinstance(record.get("run_id"), str):
        raise _UnreadableError("foreign", "no trajectory; expected an object with version and run_id")
    return record["version"], record["run_id"]


def _decode(data: bytes) -> object:
    try:
        return load(data)
    except ValueError as error:
        raise _UnreadableError("torn", f"no JSON: {error}") from error


def _last_readable(
    path: Path, file: BinaryIO, places: _Places, report: ReadReport, catalogs: _Catalogs
) -> LoggedRun | None:
    """The run as its last line that can be read tells it, with the newest verdict after that line."""
    verdict: Verdict | None = None
    compressed = path.suffix == COMPRESSED
    for position in range(len(places) - 1, -1, -1):
        offset, number = places[position]
        data = read_line(file, offset, compressed=compressed)
        try:
            found = _content(data, catalogs, verdict)
        except _UnreadableError as error:
            report.add(path, number, error.fault, str(error))
            continue
        if isinstance(found, Trajectory):
            report.superseded += position
            return LoggedRun(found, data, verdict is not None)
        report.verdicts += 1
        verdict = verdict or found
    if verdict is not None:
        report.add(path, places[-1][1], "alone", "a verdict of a run that the log does not have")
    return None


class _Catalogs:
    """Catalogs by the bytes that stand in the lines."""

    def __init__(self) -> None:
        self._known: dict[bytes, Catalog] = {}

    def decode(self, line: bytes) -> object:
        """A line's record, with its catalog validated where it was read before or stands where writers put it."""
        start = line.find(_CATALOG) + len(_CATALOG)
        end = line.find(_AFTER_CATALOG, start)
        catalog = self._catalog(line[start:end]) if len(_CATALOG) <= start < end else None
        if catalog is not None:
            record = _decode(b"".join((line[:start], _STAND_IN, line[end:])))
            if isinstance(record, dict) and record.get("catalog") == _STAND_IN_TEXT:
                record["catalog"] = catalog
                return record
        return _decode(line)  # there is none, or what was found is not the run's own

    def _catalog(self, data: bytes) -> Catalog | None:
        known = self._known.get(data)
        if known is None:
            try:
                known = Catalog.model_validate_json(data)
            except ValidationError:  # the whole line's error will name the field
                return None
            if len(self._known) >= _MOST_CATALOGS:
                del self._known[next(iter(self._known))]
            self._known[data] = known
        return known


def _content(data: bytes, catalogs: _Catalogs, verdict: Verdict | None) -> Trajectory | Verdict:
    """The run of a line, with a verdict from another one, or the verdict of a line that only judges."""
    record = catalogs.decode(data)
    model = _Judged if isinstance(record, dict) and record.keys() == _JUDGED else Trajectory
    if verdict is not None and model is Trajectory and isinstance(record, dict):
        record["verdict"] = verdict
    try:
        content = model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field_name = ".".join(str(part) for part in first["loc"])
        raise _UnreadableError("invalid", f"{field_name} = {str(first['input'])[:60]!r}: {first['msg']}") from error
    return content.verdict if isinstance(content, _Judged) else content
