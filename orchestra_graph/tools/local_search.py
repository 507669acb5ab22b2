"""Tools that look passages up: `LocalSearch` in an index on disk, `RetrieverSearch` through any LangChain retriever."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.search_index import IndexReport, Progress, build_index, check_index, search_index

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


class LocalSearch(Tool):
    """Searches an index of text, Markdown, HTML and PDF files by words (BM25).

    Artifacts are `{"source", "title", "text", "score"}`, best first. When the index is brought up to date, the
    next call sees it.

    Args:
        index_path: The index file; make it with `LocalSearch.build`.
        name: Name of the tool.
        description: What the router reads: say what the documents are about.
        top_k: Passages returned at most.

    Raises:
        ConfigError: The file is missing or no index of this version.
    """

    report: IndexReport | None = None
    """What `build` did; None when an index was only opened."""

    def __init__(
        self,
        index_path: str | Path,
        *,
        name: str = "local_search",
        description: str = DESCRIPTION,
        top_k: int = 5,
    ) -> None:
        self._path = Path(index_path)
        self._top_k = _positive(top_k)
        check_index(self._path)
        self.spec = _spec(name, description, path=str(index_path))

    @classmethod
    def build(
        cls,
        folder: str | Path,
        index_path: str | Path,
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> LocalSearch:
        """Bring an index up to date with a folder and open it; files that did not change are not read again.

        Blocks: in async code call it through `asyncio.to_thread`. See `search_index.build_index` for arguments and
        errors; look at `report.problems` for files that could not be read.

        Args:
            folder: Searched with its subfolders.
            index_path: The index; made when it is not there.
            progress: Called with files done, files in all, and the next file's path.
            **options: As for `LocalSearch`.
        """
        report = build_index(folder, index_path, progress=progress)
        search = cls(index_path, **options)
        search.report = report
        return search

    async def run(self, request: Request) -> Result:
        """Look up the argument `query`; any text will do.

        Raises:
            ToolError: The index is gone or damaged.
        """
        query = request.args["query"]
        try:
            hits = await asyncio.to_thread(search_index, self._path, query, top_k=self._top_k)
        except sqlite3.Error as error:
            raise ToolError(f"the index {str(self._path)!r} cannot be read: {error}") from error
        return passages_result(query, [dataclasses.asdict(hit) for hit in hits])


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
