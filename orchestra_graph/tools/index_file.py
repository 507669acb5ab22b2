"""Reads an index of passages: one SQLite file, FTS5, ranked by BM25. `search_index` writes it.

Words are matched by their English stem, without accents and case. Languages that are written without spaces are matched
poorly: give the index vectors, or use a retriever of your own for them.

FTS5 weighs every passage that holds any word of the query, so common words cost a second in a million passages and
decide little. Where the words of a query stand in more than `_POSTINGS` passages together, the commonest only reorder
the best passages that the rarer ones find. `tests/benchmarks/retriever.py` prints what that costs in recall.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from orchestra_graph.errors import ConfigError, MissingError

INDEX_VERSION = 2
FREQUENT = 1000
"""Passages that hold a word from which on the index notes how many they are."""

_APPLICATION = 0x4F726753
"""Written into the file's header, so that another program's database is never taken for an index."""
_MAPPED_BYTES = 1 << 40
"""Of the file, mapped into memory; SQLite bounds it to what it was compiled for, usually 2 GiB."""
_QUERY_WORDS = 64
_TITLE_WEIGHT = 2.0
_POSTINGS = 50_000
_REORDERED = 300
"""Passages that common words reorder, at least."""

_TOKENIZE = 'tokenize = "porter unicode61 remove_diacritics 2"'
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {INDEX_VERSION};
CREATE TABLE origin (path TEXT NOT NULL);
CREATE TABLE files (
    source TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    problem TEXT NOT NULL,
    bad_lines INTEGER NOT NULL
);
CREATE TABLE counts (passages INTEGER NOT NULL, next_id INTEGER NOT NULL);
INSERT INTO counts VALUES (0, 1);
CREATE TABLE frequent (word TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE vectors (file TEXT NOT NULL, model TEXT NOT NULL, probe BLOB NOT NULL, together INTEGER NOT NULL);
CREATE VIRTUAL TABLE passages USING fts5 (source UNINDEXED, title, text, {_TOKENIZE});
"""
_SCRATCH = f"""
CREATE VIRTUAL TABLE words USING fts5 (word, {_TOKENIZE});
CREATE VIRTUAL TABLE stems USING fts5vocab (words, instance);
"""
_RANKED = f"""
SELECT rowid, -bm25(passages, 0, {_TITLE_WEIGHT}, 1.0) AS score
FROM passages WHERE passages MATCH ? ORDER BY score DESC, rowid LIMIT ?
"""
_HOLDING = "SELECT rowid FROM passages WHERE passages MATCH ? AND rowid IN (SELECT value FROM json_each(?))"
_FETCHED = """
SELECT p.rowid, p.source, p.title, p.text FROM json_each(?) AS wanted CROSS JOIN passages AS p ON p.rowid = wanted.value
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found."""

    source: str
    """Path inside the indexed folder; of a corpus the passage's own id, or `file:line`."""
    title: str
    text: str
    score: float
    """BM25, or the fused score where vectors were searched too; higher is better, comparable within one query only."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What an index tells of its vectors."""

    file: str
    """Name of the Faiss file beside the index; each build that changes vectors writes a new one."""
    model: str
    """Name of the embedding model, for messages."""
    probe: bytes
    """The vector of `embedding.PROBE` as a query, float32: by it the model is known again, whatever it calls itself."""
    together: bool
    """Whether the model embeds a query as it embeds a passage, so that many queries can go in one request."""


def create(database: sqlite3.Connection) -> None:
    """Make the tables of an empty index.

    Raises:
        MissingError: SQLite was compiled without FTS5.
    """
    try:
        database.executescript(_SCHEMA)
    except sqlite3.OperationalError as error:
        if "fts5" not in str(error):
            raise
        raise MissingError("SQLite's FTS5 module", f"use a Python whose sqlite3 has it ({error})") from error


def open_index(path: Path) -> sqlite3.Connection:
    """Open an index for reading, mapped into memory; it stays what it is while a build replaces the file."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    database.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
    return database


def check_index(path: Path) -> None:
    """Check that a file is an index of this version.

    Raises:
        ConfigError: It is not.
    """
    try:
        if path.is_dir():
            raise ConfigError(
                f"{str(path)!r} is a folder; expected an index file; fix: build one of the documents in it with "
                f"LocalSearch.build({str(path)!r}, FILE) or `orchestra retriever build {path} FILE`"
            )
        if not path.is_file():
            raise ConfigError(
                f"{str(path)!r}: expected an index; fix: build it with LocalSearch.build(folder, {str(path)!r})"
            )
        with closing(open_index(path)) as database:
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


def count_passages(database: sqlite3.Connection) -> int:
    """How many passages an index holds."""
    return int(database.execute("SELECT passages FROM counts").fetchone()[0])


def read_vectors(database: sqlite3.Connection) -> Vectors | None:
    """What the index tells of its vectors; None where it has none."""
    row = database.execute("SELECT file, model, probe, together FROM vectors").fetchone()
    return None if row is None else Vectors(row[0], row[1], row[2], bool(row[3]))


def search_index(path: Path, query: str, *, top_k: int) -> list[Hit]:
    """The best passages for a query by its words; any text is a query. Blocks; safe from several threads.

    Raises:
        sqlite3.Error: The index is gone or damaged.
    """
    with closing(open_index(path)) as database:
        return fetch(database, rank_by_words(database, query, top_k))


def rank_by_words(
    database: sqlite3.Connection, query: str, depth: int, *, postings: int = _POSTINGS
) -> list[tuple[int, float]]:
    """Ids and scores of the best passages by BM25, best first.

    Passages that hold more and rarer words of the query come first; none has to hold all of them.

    Args:
        database: An open index.
        query: Any text; its first words count.
        depth: Passages at most.
        postings: Passages to weigh, about; common words beyond it only reorder, unless there is nothing else.
    """
    words = list(dict.fromkeys(re.findall(r"\w+", query)))[:_QUERY_WORDS]
    if not words:
        return []
    kept, common = _split(database, words, postings)
    found = _found(database, kept, depth, reordered=bool(common))
    while common and not found:  # the rarer words stand in no passage
        kept.append(common.pop(0)[0])
        found = _found(database, kept, depth, reordered=bool(common))
    if not common:
        return list(found.items())
    ids = json.dumps(list(found))
    for word, weight in common:
        for (row,) in database.execute(_HOLDING, (_quoted(word), ids)):
            found[row] += weight
    return sorted(found.items(), key=lambda hit: (-hit[1], hit[0]))[:depth]


def _found(database: sqlite3.Connection, words: Sequence[str], depth: int, *, reordered: bool) -> dict[int, float]:
    """Ids and scores of the best passages that hold one of the words; more of them where others will reorder them."""
    wanted = max(2 * depth, _REORDERED) if reordered else depth
    return dict(database.execute(_RANKED, (" OR ".join(map(_quoted, words)), wanted)).fetchall())


def fetch(database: sqlite3.Connection, ranked: Sequence[tuple[int, float]]) -> list[Hit]:
    """The passages with these ids, in this order."""
    rows = database.execute(_FETCHED, (json.dumps([row for row, _ in ranked]),)).fetchall()
    passages = {row: (source, title, text) for row, source, title, text in rows}
    return [Hit(*passages[row], score) for row, score in ranked]


def _quoted(word: str) -> str:
    return f'"{word}"'


def _split(
    database: sqlite3.Connection, words: Sequence[str], postings: int
) -> tuple[list[str], list[tuple[str, float]]]:
    """The rarer words, one at least, and the common ones with what BM25 gives a passage of average length for each."""
    passages = count_passages(database)
    if passages <= postings:
        return list(words), []
    held = dict(zip(words, _frequencies(database, words), strict=True))
    rarest, *others = sorted(words, key=lambda word: held[word])
    kept, common, weighed = [rarest], [], held[rarest]
    for word in others:
        weighed += held[word]
        if weighed <= postings:
            kept.append(word)
        else:
            # As SQLite's bm25() has it: https://www.sqlite.org/fts5.html#the_bm25_function
            common.append((word, max(math.log((passages - held[word] + 0.5) / (held[word] + 0.5)), 1e-6)))
    return kept, common


def _frequencies(database: sqlite3.Connection, words: Iterable[str]) -> list[int]:
    """Passages that hold each word, at most; 0 stands for few. Only FTS5 knows a word's stem, so it is asked."""
    with closing(sqlite3.connect(":memory:")) as scratch:
        scratch.executescript(_SCRATCH)
        scratch.executemany("INSERT INTO words (rowid, word) VALUES (?, ?)", enumerate(words, start=1))
        counts: dict[int, int] = {}
        for row, stem in scratch.execute("SELECT doc, term FROM stems").fetchall():
            known = database.execute("SELECT passages FROM frequent WHERE word = ?", (stem,)).fetchone()
            held = 0 if known is None else known[0]
            counts[row] = min(counts.get(row, held), held)
        total = scratch.execute("SELECT count(*) FROM words").fetchone()[0]
    return [counts.get(row, 0) for row in range(1, total + 1)]
