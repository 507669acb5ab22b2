"""What an index of a million short passages costs, and how fast and how right it answers. All of it is synthetic.

    python tests/benchmarks/retriever.py                      # 1,000,000 passages, under 15 minutes on two cores
    python tests/benchmarks/retriever.py --passages 10000     # some seconds

Passages are 30 made-up words each: two in three by Zipf's law, one in three from the passage's topic. The embedding
model is no model: a text's vector is the sum of a fixed random vector for each of its words, long words weighing more.
It costs little and has neighbourhoods, and tells nothing about how well a real model finds what is meant. A query is
eight words of a passage, common ones among them.

Build and service run in processes of their own, so that memory is theirs. The exact search that dense recall is held
against compares every passage in single precision; the one that BM25's is held against weighs every word of the query.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

sys.path.insert(0, str(Path(__file__).parents[2]))  # started by its path, the repository is not on it

from orchestra_graph.tools.dense_index import DenseIndex
from orchestra_graph.tools.index_file import open_index, rank_by_words, read_vectors
from orchestra_graph.tools.local_search import LocalSearch
from orchestra_graph.tools.retriever_service import serve
from orchestra_graph.tools.search_index import IndexReport, build_index

DIMENSIONS = 128
WORDS = 30
"""Of a passage."""
VOCABULARY = 60_000
TOPICS = 2_000
TOPIC_WORDS = 60
TOPIC_SHARE = 0.35
CHUNK = 10_000
QUERIES = 200
QUERY_WORDS = 8
UNPRUNED = 100
"""Queries whose exact BM25 ranking is looked up; one takes about half a second at a million passages."""
CONCURRENT = 16
REQUESTS = 400
TOP = 10

Vectors = npt.NDArray[np.float32]


class SyntheticEmbeddings(Embeddings):
    """Sums of random word vectors; the same text has the same vector in every process."""

    model = f"synthetic, {DIMENSIONS} dimensions"

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._table = np.empty((0, DIMENSIONS), np.float32)
        self._lock = threading.Lock()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.matrix(texts).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def matrix(self, texts: Sequence[str]) -> Vectors:
        split = [text.split() or [""] for text in texts]
        self._learn({word for words in split for word in words})
        rows = np.array([self._rows[word] for words in split for word in words])
        starts = np.cumsum([0, *(len(words) for words in split[:-1])])
        return np.add.reduceat(self._table[rows], starts, axis=0)

    def _learn(self, words: set[str]) -> None:
        with self._lock:
            new = list(words - self._rows.keys())
            if not new:
                return
            made = np.array([np.random.default_rng(zlib.crc32(w.encode())).standard_normal(DIMENSIONS) for w in new])
            weights = np.array([max(len(word) - 1, 0) for word in new])
            # First the table: other threads read it without the lock, by rows that they know.
            first = len(self._table)
            self._table = np.concatenate([self._table, (made * weights[:, None]).astype(np.float32)])
            self._rows.update((word, first + n) for n, word in enumerate(new))


def vocabulary(size: int = VOCABULARY, seed: int = 0) -> list[str]:
    """Made-up words, the first ones short, as frequent words are."""
    chance = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < size:
        syllables = range(1 + len(str(len(made) + 1)))
        made["".join(chance.choice("bdfghjklmnprstvz") + chance.choice("aeiou") for _ in syllables)] = None
    return list(made)


def passages(count: int, seed: int = 0) -> Iterator[list[str]]:
    """The corpus in chunks; the same for the same arguments."""
    chance = np.random.default_rng(seed)
    words = np.array(vocabulary(), dtype=object)
    frequency = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    topics = chance.integers(VOCABULARY // 300, VOCABULARY, (TOPICS, TOPIC_WORDS))
    for start in range(0, count, CHUNK):
        shape = (min(CHUNK, count - start), WORDS)
        general = np.searchsorted(frequency, chance.random(shape) * frequency[-1])
        topic = chance.integers(TOPICS, size=(shape[0], 1))
        special = topics[topic, (TOPIC_WORDS * chance.random(shape) ** 2).astype(int)]
        picked = words[np.where(chance.random(shape) < TOPIC_SHARE, special, general)]
        yield [" ".join(row) for row in picked.tolist()]


def write_corpus(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for chunk in passages(count):
            file.writelines(f'{{"contents": "{text}"}}\n' for text in chunk)


def make_queries(count: int, number: int = QUERIES, seed: int = 1) -> list[str]:
    """Words of passages that lie all over the corpus."""
    chance = random.Random(seed)
    wanted = set(chance.sample(range(count), number))
    found = []
    for n, chunk in enumerate(passages(count)):
        found += [text for row, text in enumerate(chunk, start=n * CHUNK) if row in wanted]
    return [" ".join(chance.sample(text.split(), QUERY_WORDS)) for text in found]


def exact_neighbours(count: int, queries: Sequence[str]) -> list[set[int]]:
    """The nearest passages of each query, by a comparison with every one in single precision; ids count from 1."""
    model = SyntheticEmbeddings()
    asked = _unit(model.matrix(queries))
    cosines, ids = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for n, chunk in enumerate(passages(count)):
        cosines = np.hstack([cosines, asked @ _unit(model.matrix(chunk)).T])
        ids = np.hstack([ids, np.tile(np.arange(len(chunk)) + n * CHUNK + 1, (len(queries), 1))])
        best = np.argpartition(-cosines, TOP, axis=1)[:, :TOP]
        cosines, ids = np.take_along_axis(cosines, best, 1), np.take_along_axis(ids, best, 1)
    return [set(row) for row in ids.tolist()]


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def recall(found: Sequence[set[int]], true: Sequence[set[int]]) -> float:
    """Mean share of the true passages that were found."""
    return statistics.fmean(len(a & b) / len(b) for a, b in zip(found, true, strict=True))


def built(pipe: Connection, corpus: Path, index: Path) -> None:
    """Process: builds an index and tells the seconds of each stage and the most memory that it took."""
    started = time.perf_counter()
    ends: list[float] = []

    def watch(done: int, total: int, what: str) -> None:
        if what == "grouping" or not (what or ends):
            ends.append(time.perf_counter())

    report = build_index(corpus, index, embeddings=SyntheticEmbeddings(), progress=watch)
    marks = [started, *ends, time.perf_counter()]
    seconds = [b - a for a, b in itertools.pairwise(marks)]
    pipe.send((report, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def served(pipe: Connection, index: Path, with_vectors: bool) -> None:
    """Process: serves an index and tells the address."""
    search = LocalSearch(index, embeddings=SyntheticEmbeddings() if with_vectors else None)
    asyncio.run(serve(search, host="127.0.0.1", port=0, ready=pipe.send))


@contextmanager
def process(target: Callable[..., None], *args: Any) -> Iterator[tuple[int, Any]]:
    """A process of its own with the first that it tells; it is ended with the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=target, args=(there, *args))
    child.start()
    there.close()
    try:
        assert child.pid is not None
        yield child.pid, here.recv()
    finally:
        child.terminate()
        child.join()
        here.close()


def memory(pid: int) -> dict[str, float]:
    """Resident MB of a process: its own, and pages of mapped files, which the system may take back."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    told = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {"own": int(told["RssAnon"]) / 1000, "mapped files": int(told["RssFile"]) / 1000}


async def timed(requests: Sequence[Callable[[], Awaitable[Any]]], workers: int) -> dict[str, float]:
    """Milliseconds of requests, and how many a second, with so many under way at the same time."""
    times: list[float] = []
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            started = time.perf_counter()
            await request()
            times.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    seconds = time.perf_counter() - started
    times.sort()
    p95 = times[min(len(times) - 1, round(0.95 * len(times)))]
    return {"p50 ms": statistics.median(times), "p95 ms": p95, "a second": len(times) / seconds}


async def over_http(url: str, queries: Sequence[str]) -> dict[str, dict[str, float]]:
    async with httpx.AsyncClient(timeout=60) as client:

        async def ask(query: str) -> None:
            reply = await client.post(f"{url}/retrieve", json={"queries": [query], "topk": TOP, "return_scores": True})
            assert len(reply.raise_for_status().json()[0]) == TOP

        await timed([lambda query=query: ask(query) for query in queries[:20]], 1)  # type: ignore[misc]
        wanted = [queries[n % len(queries)] for n in range(REQUESTS)]
        requests: list[Callable[[], Awaitable[None]]] = [lambda query=query: ask(query) for query in wanted]  # type: ignore[misc]
        return {
            "alone": await timed(requests[: REQUESTS // 2], 1),
            f"{CONCURRENT} at once": await timed(requests, CONCURRENT),
        }


async def in_process(index: Path, queries: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each half of a search, alone, without the service."""
    model = SyntheticEmbeddings()
    with closing(open_index(index)) as database:
        told = read_vectors(database)
        assert told is not None
        vectors = DenseIndex.open(index.with_name(told.file))

        async def words(query: str) -> None:
            rank_by_words(database, query, TOP)

        async def dense(query: str) -> None:
            vectors.search(_unit(model.matrix([query])), TOP)

        figures = {}
        for name, search in (("BM25", words), ("dense", dense)):
            await timed([lambda q=q, s=search: s(q) for q in queries[:20]], 1)  # type: ignore[misc]
            figures[name] = await timed([lambda q=q, s=search: s(q) for q in queries], 1)  # type: ignore[misc]
    return figures


def recalls(index: Path, queries: Sequence[str], count: int) -> dict[str, Any]:
    """Recall of both halves against their exact searches."""
    with closing(open_index(index)) as database:
        told = read_vectors(database)
        assert told is not None
        vectors = DenseIndex.open(index.with_name(told.file))
        pruned = [{row for row, _ in rank_by_words(database, query, TOP)} for query in queries[:UNPRUNED]]
        started = time.perf_counter()
        every = [{row for row, _ in rank_by_words(database, q, TOP, postings=sys.maxsize)} for q in queries[:UNPRUNED]]
        whole = (time.perf_counter() - started) / UNPRUNED * 1000
    asked = _unit(SyntheticEmbeddings().matrix(queries))
    near = [set(row) for row in vectors.search(asked, TOP)[0].tolist()]
    halves = [set(row) for row in vectors.search(asked, TOP, exact=True)[0].tolist()]
    true = exact_neighbours(count, queries)
    return {
        "dense": recall(near, true),
        "dense, all groups searched": recall(halves, true),
        "BM25 against every word weighed": recall(pruned, every),
        "ms of a query with every word weighed, mean": whole,
        "groups searched": f"{vectors.searched_groups} of {vectors.groups}",
    }


def measure(count: int, folder: Path) -> dict[str, Any]:
    corpus, index = folder / "corpus.jsonl", folder / "passages.index"
    write_corpus(corpus, count)
    with process(built, corpus, index) as (_, told):
        report: IndexReport = told[0]
        seconds, peak = told[1], told[2]
    assert report.passages == report.vectors == count
    queries = make_queries(count)
    sizes = {path.suffix[1:]: path.stat().st_size / 1e6 for path in folder.iterdir()}
    figures: dict[str, Any] = {
        "load average before": os.getloadavg()[0],
        "size, MB": {"corpus": sizes["jsonl"], "words and texts": sizes["index"], "vectors": sizes["faiss"]},
        "build, passages a second": {
            "words": count / seconds[0],
            "vectors, with the synthetic model": count / seconds[1],
            "grouping and writing": count / seconds[2],
            "together": count / sum(seconds),
        },
        "build, peak MB": peak / 1e6,
        "recall at 10": recalls(index, queries, count),
        "in process": asyncio.run(in_process(index, queries)),
    }
    for name, with_vectors in (("BM25", False), ("fused", True)):
        with process(served, index, with_vectors) as (pid, url):
            figures[f"over HTTP, {name}"] = asyncio.run(over_http(url, queries))
            figures[f"serving {name}, resident MB"] = memory(pid)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Size, build rate, query time and recall of an index of passages.")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args.passages, Path(folder))
    if args.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{args.passages:,} synthetic passages of {WORDS} words, {DIMENSIONS} dimensions, {os.cpu_count()} cores")
    for name, value in figures.items():
        _show(name, value)


def _show(name: str, value: Any, indent: int = 0) -> None:
    if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
        print(f"{' ' * indent}{name}")
        for inner, figure in value.items():
            _show(inner, figure, indent + 2)
        return
    shown = value.items() if isinstance(value, dict) else [("", value)]
    cells = "   ".join(f"{key} {_number(figure)}".strip() for key, figure in shown)
    print(f"{' ' * indent}{name:{34 - indent}} {cells}")


def _number(figure: Any) -> str:
    if isinstance(figure, str):
        return figure
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


if __name__ == "__main__":
    main()
