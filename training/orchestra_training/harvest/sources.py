"""Sources by the names that the command line gives them."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.spool import SPOOL
from orchestra_training.harvest.logs import SUFFIXES, LogSource, logs_in
from orchestra_training.harvest.source import Source

LANGSMITH: Final = "langsmith:"
POSTGRES: Final = ("postgresql://", "postgres://")
SQLITE: Final = (".sqlite", ".sqlite3", ".db")
PARQUET: Final = ".parquet"

EXPECTED: Final = (
    "a folder of run logs or *.parquet, *.jsonl, *.jsonl.zst, *.parquet, langsmith:PROJECT, *.sqlite, *.db, or "
    "postgresql://..."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which traces of a LangSmith project, and what judges them."""

    filter: str | None = None
    """In LangSmith's query language, for roots of traces."""
    since: datetime | None = None
    until: datetime | None = None
    feedback: str | None = None
    """Key of the feedback that says whether a task was solved."""


def open_sources(names: Iterable[str], wanted: Wanted = Wanted()) -> list[Source]:
    """The sources that the names stand for.

    Args:
        names: See `EXPECTED`; one may hold `*`.
        wanted: Of LangSmith projects.

    Raises:
        ConfigError: A name is none of them, or there is nothing behind it.
        MissingError: A library is not installed.
    """
    return [source for name in names for source in _open(name, wanted)]


def _open(name: str, wanted: Wanted) -> list[Source]:
    if name.startswith(LANGSMITH):
        from orchestra_training.harvest.langsmith import LangSmithSource  # noqa: PLC0415  (its client takes long)

        return [LangSmithSource(name.removeprefix(LANGSMITH), wanted)]
    if name.startswith(POSTGRES):
        from orchestra_training.harvest.checkpoints import PostgresSource  # noqa: PLC0415  (an extra)

        return [PostgresSource(name)]
    # A file may have square brackets in its name: what is there is meant as it stands.
    is_pattern = glob.has_magic(name) and not Path(name).exists()
    paths = [path for path in sorted(_matching(Path(name))) if path.suffix != SPOOL] if is_pattern else [Path(name)]
    if not paths or not all(path.exists() for path in paths):
        raise ConfigError(f"--from {name}: no such file or folder; expected {EXPECTED}")
    exported = [path for path in paths if path.suffix == PARQUET]
    others = [source for path in paths if path not in exported for source in _of_path(path)]
    return [*others, *_export(name, exported)]


def _matching(pattern: Path) -> Iterator[Path]:
    """Files by a pattern; a folder that is there is meant as it stands."""
    if not pattern.parent.is_dir():
        return map(Path, glob.glob(str(pattern)))
    return (pattern.parent / name for name in glob.glob(pattern.name, root_dir=pattern.parent))


def _of_path(path: Path) -> list[Source]:
    if path.is_dir():
        found = [*logs_in(path), *_export(str(path), sorted(path.rglob(f"*{PARQUET}")))]
        if not found:
            raise ConfigError(f"--from {path}: holds neither run logs nor *{PARQUET}; expected {EXPECTED}")
        return found
    if path.name.endswith(SUFFIXES):
        return [LogSource(path)]
    if path.suffix in SQLITE:
        from orchestra_training.harvest.checkpoints import SqliteSource  # noqa: PLC0415  (an extra)

        return [SqliteSource(path)]
    raise ConfigError(f"--from {path}: not known what it holds; expected {EXPECTED}")


def _export(name: str, paths: list[Path]) -> list[Source]:
    """The files of an export, which are one source; none where there are none."""
    if not paths:
        return []
    from orchestra_training.harvest.export import ExportSource  # noqa: PLC0415  (an extra)

    return [ExportSource(name, tuple(paths))]
