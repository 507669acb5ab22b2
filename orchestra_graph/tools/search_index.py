"""Builds an index of passages, from a folder of documents or from a corpus: words in SQLite, vectors in Faiss.

The index is one SQLite file (`index_file` reads it), and beside it a file of vectors where an embedding model is given
(`dense_index`). A build works on a copy. The SQLite file names its vectors and replaces the old one in one step, so
searches that are under way, and a build that is interrupted, never see one without the other.

Which files changed is told by their size and time of change. Passages are streamed. Vectors are held until they are
written: two bytes a dimension in the end, up to eight while they come and are grouped.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.text import clean
from orchestra_graph.tools.corpus import CorpusReader
from orchestra_graph.tools.dense_index import DenseIndex
from orchestra_graph.tools.documents import read_passages, search_module
from orchestra_graph.tools.embedding import Probe, embed_passages, probe_model, same_model
from orchestra_graph.tools.index_file import (
    FREQUENT,
    Vectors,
    check_index,
    count_passages,
    create,
    open_index,
    read_vectors,
)
from orchestra_graph.tools.source_files import State, find_sources, path_of

_PASSAGE_CHARACTERS = 1200
_CACHE_KIB = 256 * 1024
_HASH_BYTES = 1 << 26
"""Words that FTS5 gathers before it writes them; its own default is made for small changes."""
_TOLD_EVERY = 1000
"""Passages between two reports of progress."""
_ADDED_AT_ONCE = 16_384
"""Vectors; Faiss starts its threads anew each time, which costs more than adding a few."""
_ABANDONED = 3600.0
"""Age in seconds of vectors that no build under way can be about to name."""
_UNREAD = -1
"""Size noted for a file that no installed package reads, so that the next build tries again."""

Progress = Callable[[int, int, str], None]
"""Called with work done, work in all, and what is next, which is empty at the end.

The work is files of a folder; of a corpus its bytes, and then, where vectors are made, passages.
"""
Row = tuple[str, str, str]
"""Source, title and text of a passage."""


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
    bad_lines: int = 0
    """Lines of a corpus that hold no passage; `problems` quotes the first."""
    problems: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, or not wholly, with the reason."""
    vectors: int = 0
    embedded: int = 0
    """Passages that this build embedded."""


def build_index(
    source: str | Path,
    index_path: str | Path,
    *,
    embeddings: Embeddings | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Bring an index up to date with a folder or a corpus; it is replaced at the end: searches never wait or fail.

    Hidden files and folders, and endings other than those of `documents.READERS`, are passed over. Nothing is kept of
    a build that was interrupted. Blocks: in async code call it through `asyncio.to_thread`.

    Args:
        source: A folder, searched with its subfolders (links to folders are not followed), or a corpus, see `corpus`.
        index_path: The index; made when it is not there.
        embeddings: Makes a vector of each passage that has none yet. An index that has vectors needs its model again.
        progress: Told before each file, now and then within a corpus and while vectors are made, and at the end.

    Raises:
        ConfigError: There is no such source, nothing in it can be read, a corpus breaks off, the file is no index of
            this version or cannot be written, or the embedding model failed or is another one than the index has.
        MissingError: Vectors need the extra `search`.
    """
    root, target = Path(source), Path(index_path)
    try:
        return _build(root, target, embeddings, progress or (lambda done, total, source: None))
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"{str(target)!r}: the index cannot be built ({type(error).__name__}: {error}); fix: build it in a file "
            f"that you may write, LocalSearch.build({str(root)!r}, FILE), and name that file with `path`"
        ) from error


def _build(root: Path, target: Path, embeddings: Embeddings | None, progress: Progress) -> IndexReport:
    found = find_sources(root)
    kept, old = _what_is_there(target, root, found)
    probe = _probe(target, old, embeddings)
    target.parent.mkdir(parents=True, exist_ok=True)
    new: Path | None = None
    try:
        with _draft(target, copied=kept) as draft, closing(sqlite3.connect(draft, isolation_level=None)) as database:
            _prepare(database, root, is_new=not kept)
            report = _update(database, root, found, progress)
            if not report.passages:
                reasons = "; ".join(f"{source}: {reason}" for source, reason in list(report.problems.items())[:3])
                raise ConfigError(f"{str(root)!r}: expected at least one document that can be read; {reasons}")
            if embeddings is not None and probe is not None:
                path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.faiss")
                new = path
                vectors = _vectors(target, old if kept else None, probe)
                report = replace(report, embedded=_embed(database, vectors, embeddings, progress), vectors=len(vectors))
                _save(database, vectors, path, probe)
                if target.exists():
                    shutil.copymode(target, path)
            database.execute("COMMIT")
    except BaseException:
        if new is not None:
            new.unlink(missing_ok=True)
        raise
    if old is not None:
        target.with_name(old.file).unlink(missing_ok=True)
        _sweep(target)
    return report


def _sweep(target: Path) -> None:
    """Remove vectors that no index names: of two builds side by side, the later one does not know of the other's.

    Those of a build under way are kept: it names them seconds after it has written them.
    """
    with closing(open_index(target)) as database:
        current = read_vectors(database)
    for path in target.parent.glob(f"{glob.escape(target.name)}.{'[0-9a-f]' * 8}.faiss"):
        with suppress(FileNotFoundError):
            if (current is None or path.name != current.file) and time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def _what_is_there(target: Path, root: Path, found: Mapping[str, State]) -> tuple[bool, Vectors | None]:
    """Whether to go on from the index that is there, and its vectors.

    It is begun anew for another source, and for a corpus that changed: dropping its passages takes longer.
    """
    if not target.exists():
        return False, None
    check_index(target)
    with closing(open_index(target)) as database:
        same = database.execute("SELECT path FROM origin").fetchall() == [(str(root.resolve()),)]
        return same and (root.is_dir() or _known(database) == found), read_vectors(database)


def _probe(target: Path, old: Vectors | None, embeddings: Embeddings | None) -> Probe | None:
    """What the index will remember of its model, checked against the one that it has."""
    if embeddings is None:
        if old is not None:
            raise ConfigError(
                f"{str(target)!r} holds vectors of {old.model}; expected the same model as `embeddings`; "
                "fix: pass it, or build another file"
            )
        return None
    probe = probe_model(embeddings)
    if old is not None and not same_model(old.probe, probe.vector):
        raise ConfigError(
            f"{str(target)!r} holds vectors of {old.model}, and {probe.model} is another model; "
            "fix: pass that model, or build another file"
        )
    return probe


@contextmanager
def _draft(target: Path, *, copied: bool) -> Iterator[Path]:
    """A file to work on, a copy of the index or empty; it takes the index's place when the block ends well.

    Whoever may read the index may read the new one; a first one is as any file that the process makes.
    """
    draft, is_first = target.with_name(f".{target.name}.{secrets.token_hex(4)}"), not target.exists()
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if is_first else 0o600)
    try:
        if copied:
            shutil.copyfile(target, draft)
        yield draft
        os.fsync(handle)
        if not is_first:
            shutil.copymode(target, draft)
        os.replace(draft, target)
    finally:
        os.close(handle)
        draft.unlink(missing_ok=True)


def _prepare(database: sqlite3.Connection, root: Path, *, is_new: bool) -> None:
    # The draft is thrown away when anything fails, so nothing in it needs to be undone.
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
        database.execute(f"PRAGMA {setting}")
    if is_new:
        create(database)
        database.execute("INSERT INTO passages (passages, rank) VALUES ('hashsize', ?)", (_HASH_BYTES,))
        database.execute("INSERT INTO origin VALUES (?)", (str(root.resolve()),))
    database.execute("BEGIN")


def _update(database: sqlite3.Connection, root: Path, found: Mapping[str, State], progress: Progress) -> IndexReport:
    known, before = _known(database), count_passages(database)
    for source in known.keys() - found.keys():
        _remove(database, source)
    changed = [source for source, state in found.items() if known.get(source) != state]
    for done, source in enumerate(changed):
        _remove(database, source)
        if root.is_dir():
            progress(done, len(changed), source)
            _add_document(database, root, source, found[source])
        else:
            _add_corpus(database, root, found[source], progress)
    if changed or known.keys() - found.keys():
        _recount(database, before)
    progress(len(changed), len(changed), "")
    problems = dict(database.execute("SELECT source, problem FROM files WHERE problem != '' ORDER BY source"))
    searched, bad_lines = database.execute("SELECT sum(last >= first), sum(bad_lines) FROM files").fetchone()
    return IndexReport(
        files=searched,
        passages=count_passages(database),
        added=sum(source not in known for source in changed),
        changed=sum(source in known for source in changed),
        removed=len(known.keys() - found.keys()),
        unchanged=len(found) - len(changed),
        bad_lines=bad_lines,
        problems=problems,
    )


def _known(database: sqlite3.Connection) -> dict[str, State]:
    rows = database.execute("SELECT source, size, changed_ns FROM files")
    return {source: (size, changed) for source, size, changed in rows}


def _remove(database: sqlite3.Connection, source: str) -> None:
    # FTS5 finds rows by number only
    for first, last in database.execute("SELECT first, last FROM files WHERE source = ?", (source,)).fetchall():
        database.execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", (first, last))
    database.execute("DELETE FROM files WHERE source = ?", (source,))


def _add_document(database: sqlite3.Connection, root: Path, source: str, state: State) -> None:
    problem, passages = "", []
    try:
        passages = read_passages(path_of(root, source), size=_PASSAGE_CHARACTERS)
    except Exception as error:  # a broken file may raise anything; it is reported, and the others are indexed
        problem = f"{type(error).__name__}: {error}"
        if isinstance(error, MissingError):
            state = (_UNREAD, state[1])
    first, last = _insert(database, ((source, passage.title, passage.text) for passage in passages))
    database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, 0)", (source, *state, first, last, clean(problem)))


def _add_corpus(database: sqlite3.Connection, path: Path, state: State, progress: Progress) -> None:
    reader = CorpusReader(path)

    def rows() -> Iterator[Row]:
        for number, row in enumerate(reader):
            if number % _TOLD_EVERY == 0:
                progress(reader.bytes_read, state[0], path.name)
            yield row

    first, last = _insert(database, rows())
    row = (path.name, *state, first, last, reader.problem, reader.bad_lines)
    database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _insert(database: sqlite3.Connection, rows: Iterable[Row]) -> tuple[int, int]:
    """The first and last id of new passages. An id is never used twice: vectors are told by it.

    Documents may hold half of a pair of surrogates, which SQLite refuses.
    """
    first = database.execute("SELECT next_id FROM counts").fetchone()[0]
    ids = count(first)
    database.executemany(
        "INSERT INTO passages (rowid, source, title, text) VALUES (?, ?, ?, ?)",
        ((next(ids), *map(clean, row)) for row in rows),
    )
    following = next(ids)
    database.execute("UPDATE counts SET next_id = ?", (following,))
    return first, following - 1


def _recount(database: sqlite3.Connection, before: int) -> None:
    database.execute("UPDATE counts SET passages = (SELECT coalesce(sum(last - first + 1), 0) FROM files)")
    if count_passages(database) > 2 * before:  # most of it is new: worth the time that it takes to join its parts
        database.execute("INSERT INTO passages (passages) VALUES ('optimize')")
    database.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, passages, row)")
    database.execute("DELETE FROM frequent")
    database.execute("INSERT INTO frequent SELECT term, doc FROM vocabulary WHERE doc >= ?", (FREQUENT,))
    database.execute("DROP TABLE vocabulary")


def _vectors(target: Path, old: Vectors | None, probe: Probe) -> DenseIndex:
    if old is not None and (path := target.with_name(old.file)).is_file():
        return DenseIndex.open(path, mapped=False)
    return DenseIndex.empty(probe.dimensions)


def _embed(database: sqlite3.Connection, vectors: DenseIndex, embeddings: Embeddings, progress: Progress) -> int:
    """Drop vectors whose passages are gone, and make those that are missing; tells how many it made."""
    numpy = search_module("numpy")
    ranges = database.execute("SELECT first, last FROM files WHERE last >= first").fetchall()
    wanted = numpy.concatenate([numpy.arange(first, last + 1) for first, last in ranges])
    there = vectors.ids()
    vectors.remove(numpy.setdiff1d(there, wanted))
    missing = numpy.setdiff1d(wanted, there)
    done, rows, parts = 0, [], []
    for ids, made in embed_passages(embeddings, _texts(database, missing)):
        if made.shape[1] != vectors.dimensions:
            raise ConfigError(
                f"the embedding model returned {made.shape[1]} numbers for a passage and {vectors.dimensions} for a "
                "query; expected as many; fix: use another model"
            )
        progress(done, len(missing), "vectors")
        done += len(ids)
        rows += ids
        parts.append(made)
        if len(rows) >= _ADDED_AT_ONCE or done == len(missing):
            vectors.add(rows, numpy.concatenate(parts))
            rows, parts = [], []
    progress(done, done, "grouping")
    vectors.regroup()
    progress(done, done, "")
    return done


def _texts(database: sqlite3.Connection, ids: Any) -> Iterator[tuple[int, str]]:
    numpy = search_module("numpy")
    for run in numpy.split(ids, numpy.flatnonzero(numpy.diff(ids) > 1) + 1):
        if len(run):
            between = (int(run[0]), int(run[-1]))
            rows = database.execute("SELECT rowid, title, text FROM passages WHERE rowid BETWEEN ? AND ?", between)
            yield from ((row, f"{title}\n{text}" if title else text) for row, title, text in rows)


def _save(database: sqlite3.Connection, vectors: DenseIndex, path: Path, probe: Probe) -> None:
    vectors.save(path)
    database.execute("DELETE FROM vectors")
    row = (path.name, probe.model, probe.vector, probe.together)
    database.execute("INSERT INTO vectors VALUES (?, ?, ?, ?)", row)
