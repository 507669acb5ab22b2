"""Indexes built from a corpus and with vectors; `test_local_search` builds them from folders."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.embeddings.fake import DeterministicFakeEmbedding

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools import documents
from orchestra_graph.tools.dense_index import DenseIndex
from orchestra_graph.tools.embedding import PROBE, as_matrix
from orchestra_graph.tools.index_file import Vectors, open_index, read_vectors, search_index
from orchestra_graph.tools.search_index import IndexReport, build_index
from tests.benchmarks.retriever import SyntheticEmbeddings, write_corpus


class Counting(SyntheticEmbeddings):
    """Notes the texts that it embeds as passages."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.seen += texts
        return super().embed_documents(texts)


class Interrupted(SyntheticEmbeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if len(texts) > 1:
            raise ConnectionError("the server is gone")
        return super().embed_documents(texts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    for name, text in (("gannet", "The gannet dives"), ("puffin", "Puffins nest"), ("tide", "The tide turns")):
        (root / f"{name}.txt").write_text(text)
    return root


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "out" / "docs.index"


def told(index: Path) -> Vectors:
    with closing(open_index(index)) as database:
        vectors = read_vectors(database)
    assert vectors is not None
    return vectors


def opened(index: Path) -> DenseIndex:
    return DenseIndex.open(index.with_name(told(index).file))


def ids(index: Path) -> list[int]:
    with closing(sqlite3.connect(index)) as database:
        return [row for (row,) in database.execute("SELECT rowid FROM passages ORDER BY rowid")]


def build(source: Path, index: Path, embeddings: Embeddings | None = None) -> IndexReport:
    report = build_index(source, index, embeddings=embeddings)
    if embeddings is not None:
        assert sorted(opened(index).ids().tolist()) == ids(index)
        assert report.vectors == report.passages == len(ids(index))
        # The index and its vectors, and nothing of earlier builds.
        assert sorted(path.name for path in index.parent.iterdir()) == [index.name, told(index).file]
    return report


# Who may read it.


def test_a_first_index_may_be_read_by_whom_the_umask_lets(folder: Path, index: Path) -> None:
    old = os.umask(0o027)
    try:
        build(folder, index)
    finally:
        os.umask(old)
    assert stat.S_IMODE(index.stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o664])
def test_an_index_that_is_built_again_may_be_read_by_the_same(folder: Path, index: Path, mode: int) -> None:
    build(folder, index, SyntheticEmbeddings())
    index.chmod(mode)
    (folder / "gannet.txt").write_text("The gannet dives deep")
    assert build(folder, index, SyntheticEmbeddings()).changed == 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in index.parent.iterdir()} == {mode}


# From a corpus.


def test_a_corpus_is_an_index_too(tmp_path: Path, index: Path) -> None:
    corpus = tmp_path / "birds.jsonl"
    corpus.write_text('{"id": 3, "title": "Gannets", "text": "They dive."}\nnonsense\n{"contents": "Puffins nest."}\n')
    seen: list[tuple[int, int, str]] = []
    report = build_index(corpus, index, progress=lambda *told: seen.append(told))
    assert (report.files, report.passages, report.added, report.bad_lines) == (1, 2, 1, 1)
    assert report.problems["birds.jsonl"].startswith("1 line holds no passage and were left out: line 2: Invalid JSON")
    [hit] = search_index(index, "gannets diving", top_k=5)
    assert (hit.source, hit.title, hit.text) == ("3", "Gannets", "They dive.")
    assert [hit.source for hit in search_index(index, "puffin", top_k=5)] == ["birds.jsonl:3"]
    assert seen[0][1:] == (corpus.stat().st_size, "birds.jsonl")
    assert seen[-1] == (1, 1, "")
    again = build_index(corpus, index)
    assert (again.unchanged, again.added, again.bad_lines, again.problems) == (1, 0, 1, report.problems)
    corpus.write_text('{"text": "Terns dive."}')
    changed = build_index(corpus, index)
    assert (changed.passages, changed.bad_lines, changed.problems) == (1, 0, {})
    assert search_index(index, "puffin", top_k=5) == []


def test_a_corpus_that_breaks_off_or_holds_nothing_leaves_the_old_index(tmp_path: Path, index: Path) -> None:
    corpus = tmp_path / "birds.jsonl.gz"
    corpus.write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match="cannot be read after line 0"):
        build_index(corpus, index)
    assert list(index.parent.iterdir()) == []
    plain = tmp_path / "birds.jsonl"
    plain.write_text("{}\n[]\n")
    with pytest.raises(
        ConfigError, match=r"at least one document that can be read; birds.jsonl: 2 lines hold no passage"
    ):
        build_index(plain, index)
    with pytest.raises(ConfigError, match=r"expected a folder, or a corpus that ends in \.jsonl, \.jsonl\.gz"):
        build_index(__file__, index)
    assert list(index.parent.iterdir()) == []


# With vectors.


def test_vectors_follow_the_files(folder: Path, index: Path) -> None:
    model = Counting()
    first = build(folder, index, model)
    assert (first.vectors, first.embedded) == (3, 3)
    model.seen.clear()
    assert build(folder, index, model).embedded == 0
    assert set(model.seen) == {PROBE}
    (folder / "gannet.txt").write_text("The gannet glides")
    (folder / "tide.txt").unlink()
    (folder / "wind.txt").write_text("The wind veers")
    model.seen.clear()
    then = build(folder, index, model)
    assert (then.vectors, then.embedded, then.added, then.changed, then.removed) == (3, 2, 1, 1, 1)
    assert sorted(set(model.seen) - {PROBE}) == ["gannet\nThe gannet glides", "wind\nThe wind veers"]
    nearest, _ = opened(index).search(as_matrix(model.embed_documents(["gannet\nThe gannet glides"]), 1), 1)
    with closing(sqlite3.connect(index)) as database:
        row = database.execute("SELECT text FROM passages WHERE rowid = ?", (int(nearest[0][0]),)).fetchone()
    assert row == ("The gannet glides",)


def test_vectors_come_to_an_index_that_has_none(folder: Path, index: Path) -> None:
    assert build(folder, index).vectors == 0
    report = build(folder, index, SyntheticEmbeddings())
    assert (report.unchanged, report.embedded) == (3, 3)


def test_an_index_with_vectors_needs_its_model_again(folder: Path, index: Path) -> None:
    build(folder, index, SyntheticEmbeddings())
    before = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    with pytest.raises(ConfigError, match=r"holds vectors of SyntheticEmbeddings .*; expected the same model"):
        build_index(folder, index)
    other = DeterministicFakeEmbedding(size=128)
    with pytest.raises(
        ConfigError, match=r"vectors of SyntheticEmbeddings .* and DeterministicFakeEmbedding is another"
    ):
        build_index(folder, index, embeddings=other)
    assert {path.name: path.read_bytes() for path in index.parent.iterdir()} == before


def test_a_model_that_fails_leaves_the_old_index(folder: Path, index: Path) -> None:
    build(folder, index, SyntheticEmbeddings())
    before = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"new {name}")
    with pytest.raises(ConfigError, match=r"failed: ConnectionError: the server is gone; nothing of the index"):
        build_index(folder, index, embeddings=Interrupted())
    assert {path.name: path.read_bytes() for path in index.parent.iterdir()} == before


def test_another_source_begins_anew_with_vectors_too(folder: Path, index: Path, tmp_path: Path) -> None:
    build(folder, index, SyntheticEmbeddings())
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"passage {n}"}) + "\n" for n in range(5)))
    report = build(other, index, SyntheticEmbeddings())
    assert (report.passages, report.embedded, report.unchanged) == (5, 5, 0)


def test_vectors_that_were_deleted_are_made_again(folder: Path, index: Path) -> None:
    build(folder, index, SyntheticEmbeddings())
    index.with_name(told(index).file).unlink()
    assert build(folder, index, SyntheticEmbeddings()).embedded == 3


def test_ten_thousand_passages(tmp_path: Path, index: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    write_corpus(corpus, 10_000)
    seen: list[tuple[int, int, str]] = []
    report = build_index(corpus, index, embeddings=SyntheticEmbeddings(), progress=lambda *told: seen.append(told))
    assert (report.passages, report.vectors, report.bad_lines) == (10_000, 10_000, 0)
    assert all(done <= total for done, total, _ in seen)
    assert [what for _, _, what in seen if not what] == ["", ""]
    assert len([what for _, _, what in seen if what == "vectors"]) == 40


def test_vectors_that_no_index_names_are_removed(folder: Path, index: Path) -> None:
    build(folder, index, SyntheticEmbeddings())
    old = index.with_name(f"{index.name}.0123abcd.faiss")
    other = index.with_name(f"{index.name}.0123abcd.faiss.txt")
    for path in (old, other):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    young = index.with_name(f"{index.name}.4567abcd.faiss")  # of a build that is about to name it
    young.write_bytes(b"")
    build_index(folder, index, embeddings=SyntheticEmbeddings())
    assert {path.name for path in index.parent.iterdir()} == {index.name, told(index).file, young.name, other.name}


def test_text_and_names_that_are_no_unicode_are_searched_all_the_same(
    folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("An espresso.")
    broken = folder / "half.txt"
    broken.write_text("")
    read = documents.read_passages

    def halves(path: Path, *, size: int) -> list[documents.Passage]:
        # as pypdf reads a font whose map holds half of a pair
        return [documents.Passage("half \ud835", "lemonade \ud835")] if path == broken else read(path, size=size)

    monkeypatch.setattr("orchestra_graph.tools.search_index.read_passages", halves)
    assert build(folder, index).problems == {}
    assert [hit.source for hit in search_index(index, "espresso", top_k=1)] == ["caf\\xe9.txt"]
    assert [hit.text for hit in search_index(index, "lemonade", top_k=1)] == ["lemonade \ufffd"]
    assert build(folder, index).unchanged == len(list(folder.iterdir()))
