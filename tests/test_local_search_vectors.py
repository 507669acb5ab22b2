"""`LocalSearch` by meaning, with vectors and their model; `test_local_search` searches by words."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.embeddings.fake import DeterministicFakeEmbedding

from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.local_search import LocalSearch
from orchestra_graph.tools.search_index import build_index
from tests.test_local_search import MARKDOWN, call
from tests.test_local_search import folder as folder
from tests.test_local_search import index as index


class Synonyms(Embeddings):
    """Knows that some words mean the same; tells nothing else apart."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, *(float(any(word in text.lower() for word in group)) for group in self.groups)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    groups = (("gannet", "seabird"), ("tide", "ebb"), ("brigantine", "vessel"), ("lighthouse", "beacon"))


async def test_finds_by_meaning_what_shares_no_word(folder: Path, index: Path) -> None:
    words = LocalSearch.build(folder, index)
    assert (await call(words, "vessel")).artifacts == []
    both = LocalSearch.build(folder, index, embeddings=Synonyms())
    for query, source in (("vessel", "ships.pdf"), ("ebb", "deep/tides.html"), ("beacon", "deep/er/log.txt")):
        assert (await call(both, query)).artifacts[0]["source"] == source
    # What both rankings place first has the score of two first places.
    best = (await call(both, "gannet")).artifacts[0]
    assert (best["title"], best["score"]) == ("Birds of the coast > Gannets", pytest.approx(2 / 61))
    assert (await call(LocalSearch(index), "vessel")).artifacts == []  # without the model only words are searched
    assert both.describe() == (words.describe()[0], "Synonyms")
    for blank in ("", " ", "?!"):
        assert (await call(both, blank)).content


async def test_vectors_of_another_model_are_refused(folder: Path, index: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no vectors to search with `embeddings`; fix: build it with the model"
    ):
        LocalSearch(build_and_name(folder, index), embeddings=Synonyms())
    LocalSearch.build(folder, index, embeddings=Synonyms())
    for other in (DeterministicFakeEmbedding(size=5), DeterministicFakeEmbedding(size=9)):
        search = LocalSearch(index, embeddings=other)
        with pytest.raises(
            ToolError, match=r"holds vectors of Synonyms, and DeterministicFakeEmbedding is another model"
        ):
            await call(search, "gannet")
        with pytest.raises(ConfigError, match="another model"):
            await search.check_model()
    await LocalSearch(index, embeddings=Synonyms()).check_model()


async def test_a_model_that_is_down_is_told_in_one_line(folder: Path, index: Path) -> None:
    class Down(Synonyms):
        async def aembed_query(self, text: str) -> list[float]:
            raise ConnectionError("nobody\nlistens")

        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError("nobody\nlistens")

    LocalSearch.build(folder, index, embeddings=Synonyms())
    with pytest.raises(ConfigError, match=r"^the embedding model Down failed: ConnectionError: nobody listens; fix: "):
        await LocalSearch(index, embeddings=Down()).check_model()


def build_and_name(folder: Path, index: Path) -> Path:
    build_index(folder, index)
    return index


async def test_concurrent_searches_while_index_and_vectors_are_rebuilt(folder: Path, index: Path) -> None:
    search = LocalSearch.build(folder, index, embeddings=Synonyms())
    stop = threading.Event()
    editions = 0

    def rebuild() -> None:
        nonlocal editions
        while not stop.is_set():
            editions += 1
            (folder / "birds.md").write_text(f"{MARKDOWN}\n\nedition {editions}")
            build_index(folder, index, embeddings=Synonyms())

    writer = asyncio.create_task(asyncio.to_thread(rebuild))
    try:
        for _ in range(20):
            results = await asyncio.gather(*(call(search, "gannet") for _ in range(10)))
            assert {result.artifacts[0]["title"] for result in results} == {"Birds of the coast > Gannets"}
    finally:
        stop.set()
        await writer
    assert editions > 2
    assert len(list(index.parent.iterdir())) == 2


async def test_vectors_that_are_gone_are_told(folder: Path, index: Path) -> None:
    search = LocalSearch.build(folder, index, embeddings=Synonyms())
    for vectors in index.parent.glob("*.faiss"):
        vectors.unlink()
    with pytest.raises(ToolError, match=r"docs\.index' cannot be read: .*faiss' is not there"):
        await call(search, "gannet")
    vectors.write_bytes(b"nonsense" * 10)
    with pytest.raises(ToolError, match=r"faiss' holds no vectors \(.*\); fix: delete it and build the index again"):
        await call(search, "gannet")
    with pytest.raises(ConfigError, match=r"cannot be built \(OSError: .*faiss' holds no vectors"):
        build_index(folder, index, embeddings=Synonyms())
    vectors.unlink()
    LocalSearch.build(folder, index, embeddings=Synonyms())
    assert (await call(search, "vessel")).artifacts[0]["source"] == "ships.pdf"


def test_vectors_without_their_library(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalSearch.build(folder, index, embeddings=Synonyms())
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert LocalSearch(index).describe()[1] is None
    with pytest.raises(MissingError, match=r"the extra `search` is missing; fix: pip install .*faiss-cpu"):
        LocalSearch(index, embeddings=Synonyms())
