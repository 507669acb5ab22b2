"""Reads run logs, plain or compressed, also while they are written.

Only the last line of a run id counts, with the verdict of a later line that only judges the run. The first pass notes
where lines begin, the second decodes one at a time, so memory does not grow with the length of lines. A line that
cannot be read is reported with its place and reason, and the line of the same run before it stands in for it.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ValidationError

from orchestra_graph.errors import RunLogError
from orchestra_graph.runlog.encoding import TRAJECTORY_VERSION, load
from orchestra_graph.runlog.files import COMPRESSED, Line, lines, read_line, size_between_writes
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.runlog.spool import spool_folder

_LOGGER = logging.getLogger(__name__)
_HEAD = re.compile(rb'\{"version":(\d+),"run_id":"([^"\\]+)",')

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


_Place = tuple[int, int]
"""Offset and number of a line."""


class _Judged(BaseModel):
    """What a line holds that only judges a run."""

    version: int
    run_id: str
    verdict: Verdict


def read_runs(path: str | Path, *, report: ReadReport | None = None) -> Iterator[Trajectory]:
    """All runs of a log, in the order of their last lines.

    Args:
        path: The log.
        report: Filled while reading. Without one, lines that cannot be read are logged as warnings.

    Raises:
        RunLogError: The file cannot be opened.
    """
    found = ReadReport() if report is None else report
    with _open(Path(path)) as file:
        places = _index(Path(path), file, found)
        for run_places in sorted(places.values(), key=lambda run: run[-1]):
            run = _last_readable(Path(path), file, run_places, found)
            if run is not None:
                found.runs += 1
                yield run
    if report is None:
        for problem in found.problems:
            _LOGGER.warning("%s", problem)


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
        runs = {id: _last_readable(path, file, places[id], report) for id in run_ids if id in places}
    return {id: run for id, run in runs.items() if run is not None}


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        left = (
            f"; runs that did not end are beside it; fix: orchestra runs repair {path}"
            if spool_folder(path).is_dir()
            else ""
        )
        raise RunLogError(f"{path}: no such run log{left}") from error
    except OSError as error:
        raise RunLogError(f"{path}: cannot be read: {error.strerror}") from error


def _index(path: Path, file: BinaryIO, report: ReadReport) -> dict[str, list[_Place]]:
    """Places of the lines of each run, oldest first."""
    places: dict[str, list[_Place]] = {}
    for line in lines(file, end=size_between_writes(file), compressed=path.suffix == COMPRESSED):
        report.lines += 1
        try:
            run_id = _run_id(line)
        except _UnreadableError as error:
            report.add(path, line.number, error.fault, str(error))
        else:
            places.setdefault(run_id, []).append((line.offset, line.number))
    return places


def _run_id(line: Line) -> str:
    if line.data is None:
        raise _UnreadableError("torn", "the frame is cut short or damaged")
    if not line.data[-2:].rstrip().endswith(b"}"):
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


def _last_readable(path: Path, file: BinaryIO, places: list[_Place], report: ReadReport) -> Trajectory | None:
    """The run as its last line that can be read tells it, with the newest verdict after that line."""
    verdict: Verdict | None = None
    for position, (offset, number) in reversed(list(enumerate(places))):
        data = read_line(file, offset, compressed=path.suffix == COMPRESSED)
        try:
            found = _content(data)
        except _UnreadableError as error:
            report.add(path, number, error.fault, str(error))
            continue
        if isinstance(found, Trajectory):
            report.superseded += position
            return found if verdict is None else found.model_copy(update={"verdict": verdict})
        report.verdicts += 1
        verdict = verdict or found
    if verdict is not None:
        report.add(path, places[-1][1], "alone", "a verdict of a run that the log does not have")
    return None


def _content(data: bytes) -> Trajectory | Verdict:
    """The run of a line, or the verdict of one that only judges."""
    record = _decode(data)
    model = _Judged if isinstance(record, dict) and record.keys() == _Judged.model_fields.keys() else Trajectory
    try:
        content = model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field_name = ".".join(str(part) for part in first["loc"])
        raise _UnreadableError("invalid", f"{field_name} = {str(first['input'])[:60]!r}: {first['msg']}") from error
    return content.verdict if isinstance(content, _Judged) else content
