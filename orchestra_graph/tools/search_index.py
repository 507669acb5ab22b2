"""An index of a folder's documents in one SQLite file: FTS5, ranked by BM25.

Words are matched by their English stem, without accents and case. Languages that are written without spaces are matched
poorly: use a retriever of your own for them. Which files changed is told by their size and time of change.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.tools.documents import READERS, read_passages

INDEX_VERSION = 1

_APPLICATION = 0x4F726753
"""Written into the file's header, so that another program's database is never taken for an index."""
_PASSAGE_CHARACTERS = 1200
_QUERY_WORDS = 64
_TITLE_WEIGHT = 2.0

_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {INDEX_VERSION};
CREATE TABLE origin (folder TEXT NOT NULL);
CREATE TABLE files (
    source TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    problem TEXT NOT NULL
);
CREATE VIRTUAL TABLE passages USING fts5 (
    source UNINDEXED, title, text, tokenize = "porter unicode61 remove_diacritics 2"
);
"""
_SEARCH = f"""
SELECT source, title, text, -bm25(passages, 0, {_TITLE_WEIGHT}, 1.0) AS score
FROM passages WHERE passages MATCH ? ORDER BY score DESC, rowid LIMIT ?
"""

Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and the path of the file that is next; it is empty at the end."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found."""

    source: str
    """Path inside the indexed folder."""
    title: str
    text: str
    score: float
    """BM25; higher is better, comparable within one query only."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an index holds and what building it did, in files."""

    files: int = 0
    """Files that can be searched."""
    passages: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, with the reason."""


def build_index(folder: str | Path, index_path: str | Path, *, progress: Progress | None = None) -> IndexReport:
    """Bring an index up to date with a folder; the file is replaced at the end, so that searches never wait or fail.

    Hidden files and folders, and endings other than those of `documents.READERS`, are passed over. Nothing is kept of
    a build that was interrupted. Blocks: in async code call it through `asyncio.to_thread`.

    Args:
        folder: Searched with its subfolders; links to folders are not followed.
        index_path: The index; made when it is not there.
        progress: Told before each file, and at the end.

    Raises:
        ConfigError: There is no such folder, nothing in it can be read, or the file is no index of this version or
            cannot be written.
        MissingError: A file needs the extra `search`.
    """
    root, target = Path(folder), Path(index_path)
    try:
        return _build(root, target, progress or (lambda done, total, source: None))
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"{str(target)!r}: the index cannot be built ({type(error).__name__}: {error}); fix: build it in a file "
            f"that you may write, LocalSearch.build({str(root)!r}, FILE), and name that file with `path`"
        ) from error


def _build(root: Path, target: Path, progress: Progress) -> IndexReport:
    if not root.is_dir():
        raise ConfigError(f"{str(root)!r}: expected a folder with documents; fix: check the path")
    if target.exists():
        check_index(target)
    found = dict(_scan(root))
    if not found:
        raise ConfigError(f"{str(root)!r} holds no document; expected files that end in {', '.join(READERS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _draft(target) as draft, closing(sqlite3.connect(draft, isolation_level=None)) as database:
        if not os.path.getsize(draft):
            _create(database)
        database.execute("BEGIN")
        report = _update(database, root.resolve(), found, progress)
        database.execute("COMMIT")
        if not report.passages:
            reasons = "; ".join(f"{source}: {reason}" for source, reason in list(report.problems.items())[:3])
            raise ConfigError(f"{str(root)!r}: expected at least one document that can be read; {reasons}")
    return report


def check_index(path: Path) -> None:
    """Check that a file is an index of this version.

    Raises:
        ConfigError: It is not.
    """
    try:
        if not path.is_file():
            raise ConfigError(
                f"{str(path)!r}: expected an index; fix: build it with LocalSearch.build(folder, {str(path)!r})"
            )
        with closing(_open(path)) as database:
            application = database.execute("PRAGMA application_id").fetchone()[0]
            version = database.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise ConfigError(f"{str(path)!r} is no search index ({error}); fix: name another file") from error
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error}); fix: name another file with `path`") from error
    if application != _APPLICATION:
        raise ConfigError(f"{str(path)!r} is no search index but another database; fix: name another file")
    if version != INDEX_VERSION:
        raise ConfigError(
            f"{str(path)!r}: index version {version}, expected {INDEX_VERSION}; fix: delete the file and build it again"
        )


def search_index(path: Path, query: str, *, top_k: int) -> list[Hit]:
    """The best passages for a query; any text is a query. Blocks; safe from several threads.

    Passages that hold more and rarer words of the query come first; none has to hold all of them.

    Raises:
        sqlite3.Error: The index is gone or damaged.
    """
    words = list(dict.fromkeys(re.findall(r"\w+", query)))[:_QUERY_WORDS]
    if not words:
        return []
    with closing(_open(path)) as database:
        rows = database.execute(_SEARCH, (" OR ".join(f'"{word}"' for word in words), top_k)).fetchall()
    return [Hit(*row) for row in rows]


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


@contextmanager
def _draft(target: Path) -> Iterator[str]:
    """A copy of the index to work on; it takes the index's place when the block ends well."""
    handle, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        if target.exists():
            shutil.copyfile(target, draft)
        yield draft
        os.chmod(draft, 0o644)
        os.replace(draft, target)
    finally:
        Path(draft).unlink(missing_ok=True)


def _create(database: sqlite3.Connection) -> None:
    try:
        database.executescript(_SCHEMA)
    except sqlite3.OperationalError as error:
        if "fts5" not in str(error):
            raise
        raise MissingError("SQLite's FTS5 module", f"use a Python whose sqlite3 has it ({error})") from error


def _scan(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in READERS and path.is_file():
                told = path.stat()
                yield path.relative_to(root).as_posix(), (told.st_size, told.st_mtime_ns)


def _update(
    database: sqlite3.Connection, root: Path, found: dict[str, tuple[int, int]], progress: Progress
) -> IndexReport:
    known = _known(database, root)
    for source in known.keys() - found.keys():
        _remove(database, source)
    changed = [source for source, state in found.items() if known.get(source) != state]
    for done, source in enumerate(changed):
        progress(done, len(changed), source)
        _remove(database, source)
        _add(database, root, source, found[source])
    progress(len(changed), len(changed), "")
    problems = dict(database.execute("SELECT source, problem FROM files WHERE problem != '' ORDER BY source"))
    return IndexReport(
        files=len(found) - len(problems),
        passages=database.execute("SELECT count(*) FROM passages").fetchone()[0],
        added=sum(source not in known for source in changed),
        changed=sum(source in known for source in changed),
        removed=len(known.keys() - found.keys()),
        unchanged=len(found) - len(changed),
        problems=problems,
    )


def _known(database: sqlite3.Connection, root: Path) -> dict[str, tuple[int, int]]:
    """Files of the index with size and time; none when it was built from another folder."""
    if database.execute("SELECT folder FROM origin").fetchall() != [(str(root),)]:
        for table in ("origin", "files", "passages"):
            database.execute(f"DELETE FROM {table}")
        database.execute("INSERT INTO origin VALUES (?)", (str(root),))
    rows = database.execute("SELECT source, size, changed_ns FROM files")
    return {source: (size, changed) for source, size, changed in rows}


def _remove(database: sqlite3.Connection, source: str) -> None:
    # FTS5 finds rows by number only
    for first, last in database.execute("SELECT first, last FROM files WHERE source = ?", (source,)).fetchall():
        database.execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", (first, last))
    database.execute("DELETE FROM files WHERE source = ?", (source,))


def _add(database: sqlite3.Connection, root: Path, source: str, state: tuple[int, int]) -> None:
    problem, passages = "", []
    try:
        passages = read_passages(root / source, size=_PASSAGE_CHARACTERS)
    except MissingError:
        raise
    except Exception as error:  # a broken file may raise anything; it is reported, and the others are indexed
        problem = f"{type(error).__name__}: {error}"
    first = database.execute("SELECT coalesce(max(last), 0) + 1 FROM files").fetchone()[0]
    database.executemany(
        "INSERT INTO passages (rowid, source, title, text) VALUES (?, ?, ?, ?)",
        ((first + i, source, passage.title, passage.text) for i, passage in enumerate(passages)),
    )
    row = (source, *state, first, first + len(passages) - 1, problem)
    database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
