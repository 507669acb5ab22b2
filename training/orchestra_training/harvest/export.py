"""A bulk export of LangSmith as a source: Parquet files with a row a run, columns as in its run format.

`outputs`, `extra` and `tags` are JSON in columns of text, or nested columns. The rows of a trace may stand in any order
and in several files: a first pass counts them by trace, a second one gives each trace when its last row has come.
Memory holds the ids of traces, and of traces that are not yet whole the rows that are ours.

Left out: feedback, of which an export has averages only and not whose they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_training.harvest.langsmith import checked, given
from orchestra_training.harvest.source import Found, SourceReport
from orchestra_training.harvest.trace import TraceRun, our_run

NEEDED: Final = ("id", "trace_id", "dotted_order", "start_time", "end_time", "error", "outputs", "extra", "tags")

_JSON: Final = ("outputs", "extra", "tags")
_ROWS: Final = 256
"""Rows that are decoded at a time."""


@dataclass(frozen=True, slots=True)
class ExportSource:
    """The files of one export."""

    name: str
    paths: tuple[Path, ...]

    @property
    def asked(self) -> Mapping[str, str]:
        """Nothing: it is read whole."""
        return {}

    def read(self, report: SourceReport, known: Container[str]) -> Iterator[Found]:
        """See `Source.read`.

        Raises:
            ConfigError: A file cannot be read, or lacks a column.
            MissingError: pyarrow is not installed.
        """
        left = Counter(str(row["trace_id"]) for _, row in self._rows(("trace_id",)))
        report.read, report.expected = left.total(), None
        ours: dict[str, list[TraceRun]] = {}
        for place, row in self._rows(NEEDED):
            trace_id = str(row["trace_id"])
            run = self._run(row, report, place)
            if run is not None and our_run(run) is not None:
                ours.setdefault(trace_id, []).append(run)
            left[trace_id] -= 1
            if not left[trace_id]:
                for found in given(ours.pop(trace_id, []), report, f"{self.name}, trace {trace_id}", known):
                    yield Found(found)

    def _run(self, row: dict[str, Any], report: SourceReport, place: str) -> TraceRun | None:
        try:
            decoded = {name: json.loads(row[name]) for name in _JSON if isinstance(row[name], str) and row[name]}
        except ValueError as error:
            report.skip("invalid", place, f"no JSON: {error}")
            return None
        return checked({**row, **decoded}, report, place)

    def _rows(self, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Rows, and where each is."""
        try:
            import pyarrow  # noqa: PLC0415  (an extra)
            from pyarrow import parquet  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise MissingError("pyarrow", "pip install 'orchestra-graph[train]'") from error
        for path in self.paths:
            try:
                with parquet.ParquetFile(path) as file:
                    missing = [name for name in columns if name not in file.schema_arrow.names]
                    if missing:
                        raise ConfigError(f"{path}: no column {', '.join(missing)}; expected an export of runs")
                    number = 0
                    for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns)):
                        for row in batch.to_pylist():
                            number += 1
                            yield f"{path}:{number}", row
            except (OSError, pyarrow.ArrowException) as error:
                raise ConfigError(f"{path}: cannot be read: {error}") from error
