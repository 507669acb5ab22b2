from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestra_graph.tools.index_file import FREQUENT, count_passages, open_index, rank_by_words
from orchestra_graph.tools.search_index import build_index
from tests.benchmarks.retriever import make_queries, write_corpus

PASSAGES = 10_000


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "corpus.jsonl", PASSAGES)
    build_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"


@pytest.fixture
def database(index: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_index(index)) as opened:
        yield opened


def test_common_words_only_reorder_and_little_is_lost(database: sqlite3.Connection) -> None:
    shares = []
    for query in make_queries(PASSAGES, 50):
        true = [row for row, _ in rank_by_words(database, query, 10, postings=sys.maxsize)]
        found = [row for row, _ in rank_by_words(database, query, 10, postings=PASSAGES // 20)]
        shares.append(len(set(true) & set(found)) / 10)
    assert sum(shares) / len(shares) > 0.9


def test_a_query_of_common_words_alone_still_answers(database: sqlite3.Connection) -> None:
    [(word, held)] = database.execute("SELECT word, passages FROM frequent ORDER BY passages DESC LIMIT 1").fetchall()
    assert FREQUENT <= held <= count_passages(database) == PASSAGES
    common = [row[0] for row in database.execute("SELECT word FROM frequent ORDER BY passages DESC LIMIT 5")]
    found = rank_by_words(database, " ".join(common), 10, postings=FREQUENT)
    assert len(found) == 10
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert rank_by_words(database, word, 10, postings=FREQUENT) == rank_by_words(database, word, 10)


def test_where_nothing_is_common_the_ranking_is_bm25(database: sqlite3.Connection) -> None:
    for query in make_queries(PASSAGES, 10):
        assert rank_by_words(database, query, 10) == rank_by_words(database, query, 10, postings=sys.maxsize)


def test_stems_are_counted_not_spellings(tmp_path: Path) -> None:
    chance = random.Random(0)
    lines = [f'{{"text": "{chance.choice(["run", "runs", "running", "Running"])} {n}"}}\n' for n in range(FREQUENT)]
    (tmp_path / "c.jsonl").write_text("".join(lines) + '{"text": "rare"}\n')
    build_index(tmp_path / "c.jsonl", tmp_path / "index")
    with closing(open_index(tmp_path / "index")) as database:
        assert database.execute("SELECT * FROM frequent").fetchall() == [("run", FREQUENT)]
        # "runs" is common by its stem, so it finds nothing by itself beside a rarer word
        assert [row for row, _ in rank_by_words(database, "runs rare", 10, postings=10)] == [FREQUENT + 1]
        assert len(rank_by_words(database, "runs rare", 10)) == 10
        # and is all there is beside a word that no passage has
        assert len(rank_by_words(database, "runs rarre", 10, postings=10)) == 10
