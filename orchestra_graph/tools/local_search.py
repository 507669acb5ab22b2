"""Tools that look passages up: `LocalSearch` in an index on disk, `RetrieverSearch` through any LangChain retriever."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever

from orchestra_graph.billing import describe
from orchestra_graph.catalog import ToolSpec
from orchestra_graph.errors import ConfigError, OrchestraError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.dense_index import DenseIndex
from orchestra_graph.tools.documents import search_module
from orchestra_graph.tools.embedding import QueryEmbedder, same_model
from orchestra_graph.tools.fusion import reciprocal_rank_fusion
from orchestra_graph.tools.index_file import (
    Hit,
    Vectors,
    check_index,
    count_passages,
    fetch,
    open_index,
    rank_by_words,
    read_vectors,
)
from orchestra_graph.tools.search_index import IndexReport, Progress, build_index

if TYPE_CHECKING:
    from orchestra_graph.tools.dense_index import Matrix

DESCRIPTION = (
    "Searches a collection of documents by words and returns the passages that fit best, with their sources. "
    "Ask with the words that the documents would use."
)
NOTHING = "No passage fits {query!r}. Try other words."
PARAMETERS = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "Words to look for."}},
    "required": ["query"],
    "additionalProperties": False,
}

_DEPTH = 100
"""Passages of each ranking that are fused, at least."""


class LocalSearch(Tool):
    """Searches an index of passages by words (BM25), and by meaning too where it has vectors and their model is given.

    Both rankings are fused by rank, see `fusion`. Artifacts are `{"source", "title", "text", "score"}`, best first.
    When the index is brought up to date, the next call sees it. `retriever_service` serves it over HTTP.

    Args:
        index_path: The index file; make it with `LocalSearch.build`.
        embeddings: The model that the index's vectors were made with; without it only words are searched.
        name: Name of the tool.
        description: What the router reads: say what the documents are about.
        top_k: Passages returned at most.

    Raises:
        ConfigError: The file is missing or no index of this version, or has no vectors for `embeddings`.
        MissingError: Vectors need the extra `search`.
    """

    report: IndexReport | None = None
    """What `build` did; None when an index was only opened."""

    def __init__(
        self,
        index_path: str | Path,
        *,
        embeddings: Embeddings | None = None,
        name: str = "local_search",
        description: str = DESCRIPTION,
        top_k: int = 5,
    ) -> None:
        self._path = Path(index_path)
        self._top_k = _positive(top_k)
        check_index(self._path)
        self._embedder: QueryEmbedder | None = None
        self._opened: tuple[str, DenseIndex] | None = None
        if embeddings is not None:
            search_module("faiss")  # a package that is missing is told here, not by the first query
            self._embedder = QueryEmbedder(embeddings, together=self._vectors().together)
        self.spec = _spec(name, description, path=str(index_path))

    @classmethod
    def build(
        cls,
        source: str | Path,
        index_path: str | Path,
        *,
        embeddings: Embeddings | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> LocalSearch:
        """Bring an index up to date with a folder or a corpus and open it; unchanged files are not read again.

        Blocks: in async code call it through `asyncio.to_thread`. See `search_index.build_index` for arguments and
        errors; look at `report.problems` for files that could not be read.

        Args:
            source: A folder, searched with its subfolders, or a corpus: one JSON object a line, see `corpus`.
            index_path: The index; made when it is not there.
            embeddings: Makes vectors of the passages, for a search by meaning beside the one by words.
            progress: Called with work done, work in all, and what is next.
            **options: As for `LocalSearch`.
        """
        report = build_index(source, index_path, embeddings=embeddings, progress=progress)
        search = cls(index_path, embeddings=embeddings, **options)
        search.report = report
        return search

    async def run(self, request: Request) -> Result:
        """Look up the argument `query`; any text will do.

        Raises:
            ToolError: The index is gone or damaged, or its vectors are of another model.
            Exception: Whatever the embedding model raises.
        """
        query = request.args["query"]
        try:
            hits = await self.search(query)
        except ConfigError as error:
            raise ToolError(str(error)) from error
        return passages_result(query, [dataclasses.asdict(hit) for hit in hits])

    async def search(self, query: str, *, top_k: int | None = None) -> list[Hit]:
        """The best passages for a query, best first; any text will do.

        Queries that wait for the embedding model at the same time are sent to it together. The search runs in a thread.

        Args:
            query: Any text.
            top_k: Passages at most; by default as many as the tool returns.

        Raises:
            ToolError: The index is gone or damaged.
            ConfigError: Its vectors are of another model.
            Exception: Whatever the embedding model raises.
        """
        vector = None if self._embedder is None or not query.strip() else await self._embedder.embed(query)
        try:
            return await asyncio.to_thread(self._find, query, vector, top_k or self._top_k)
        except (sqlite3.Error, OSError) as error:
            raise ToolError(f"the index {str(self._path)!r} cannot be read: {error}") from error

    async def check_model(self) -> None:
        """Ask the embedding model for one vector, to find out before the first query whether it fits the index.

        Raises:
            ConfigError: The vectors are of another model, or the model failed.
            ToolError: The index is gone or damaged.
        """
        try:
            await self.search("check", top_k=1)
        except OrchestraError:
            raise
        except Exception as error:  # a model may raise anything
            model = "" if self._embedder is None else f" {self._embedder.model}"
            fix = "check its name, address and key"
            raise ConfigError(f"the embedding model{model} failed: {describe(error)}; fix: {fix}") from error

    def describe(self) -> tuple[int, str | None]:
        """How many passages the index holds, and the name of the model by which it is searched, if any. Blocks.

        Raises:
            sqlite3.Error: The index is gone or damaged.
        """
        with closing(open_index(self._path)) as database:
            return count_passages(database), None if self._embedder is None else self._embedder.model

    def _find(self, query: str, vector: Matrix | None, top_k: int) -> list[Hit]:
        missed = ""
        while True:
            try:
                return self._find_once(query, vector, top_k)
            except FileNotFoundError as error:
                if str(error) == missed:
                    raise
                missed = str(
                    error
                )  # a build replaced the index after it was opened, and its vectors; the next has others

    def _find_once(self, query: str, vector: Matrix | None, top_k: int) -> list[Hit]:
        with closing(open_index(self._path)) as database:
            if vector is None:
                return fetch(database, rank_by_words(database, query, top_k))
            depth = max(top_k, _DEPTH)
            near = self._near(database, vector, depth)
            words = [row for row, _ in rank_by_words(database, query, depth)]
            return fetch(database, reciprocal_rank_fusion([words, near])[:top_k])

    def _near(self, database: sqlite3.Connection, vector: Matrix, depth: int) -> list[int]:
        """Ids of the nearest passages; opens the vectors anew where a build has replaced them."""
        told = read_vectors(database)
        if told is None or self._embedder is None:
            raise self._no_vectors()
        opened = self._opened
        if opened is None or opened[0] != told.file:
            if self._embedder.probe is None or not same_model(told.probe, self._embedder.probe):
                raise ConfigError(
                    f"{str(self._path)!r} holds vectors of {told.model}, and {self._embedder.model} is another model; "
                    "fix: pass that model, or build the index again with this one"
                )
            opened = self._opened = (told.file, DenseIndex.open(self._path.with_name(told.file)))
        ids, _ = opened[1].search(vector, depth)
        return [int(row) for row in ids[0] if row >= 0]

    def _vectors(self) -> Vectors:
        with closing(open_index(self._path)) as database:
            told = read_vectors(database)
        if told is None:
            raise self._no_vectors()
        return told

    def _no_vectors(self) -> ConfigError:
        return ConfigError(
            f"{str(self._path)!r} holds no vectors to search with `embeddings`; "
            "fix: build it with the model, LocalSearch.build(source, index_path, embeddings=...)"
        )


class RetrieverSearch(Tool):
    """The same tool over any LangChain retriever.

    A document's source, title and score are taken from its metadata (`source`, `title`, `score`) where they are there.

    Args:
        retriever: For example `vector_store.as_retriever()`.
        name: Name of the tool.
        description: What the router reads: say what the documents are about.
        top_k: Passages returned at most; the retriever may return fewer.
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        *,
        name: str = "local_search",
        description: str = DESCRIPTION,
        top_k: int = 5,
    ) -> None:
        self._retriever = retriever
        self._top_k = _positive(top_k)
        self.spec = _spec(name, description)

    async def run(self, request: Request) -> Result:
        """Ask the retriever for the argument `query`."""
        query = request.args["query"]
        documents = await self._retriever.ainvoke(query)
        return passages_result(query, [_passage(document) for document in documents[: self._top_k]])


def passages_result(query: str, passages: Sequence[Mapping[str, Any]]) -> Result:
    """Numbered passages as a tool's result.

    Args:
        query: What was asked; told when nothing was found.
        passages: `{"source", "title", "text", "score"}`, best first; they become the artifacts.
    """
    blocks = (
        f"[{number}] {' - '.join(part for part in (p['title'], p['source']) if part) or 'passage'}\n{p['text']}"
        for number, p in enumerate(passages, start=1)
    )
    return Result(content="\n\n".join(blocks) or NOTHING.format(query=query), artifacts=[dict(p) for p in passages])


def _passage(document: Document) -> dict[str, Any]:
    told = document.metadata
    score = told.get("score")
    return {
        "source": str(told.get("source") or document.id or ""),
        "title": str(told.get("title") or ""),
        "text": document.page_content,
        "score": None if score is None else float(score),
    }


def _positive(top_k: int) -> int:
    if top_k < 1:
        raise ConfigError(f"top_k = {top_k!r}: expected at least 1")
    return top_k


def _spec(name: str, description: str, *, path: str | None = None) -> ToolSpec:
    return ToolSpec(name=name, kind="search", description=description, parameters=PARAMETERS, path=path)
