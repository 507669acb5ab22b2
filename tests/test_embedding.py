from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.embeddings.fake import DeterministicFakeEmbedding

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.embedding import (
    QueryEmbedder,
    as_matrix,
    embed_passages,
    model_name,
    probe_model,
    same_model,
)


class Recorded(Embeddings):
    """Counts characters; notes each request."""

    model = "counter-1"

    def __init__(self, *, seconds: float = 0.0, query_prefix: str = "") -> None:
        self.requests: list[list[str]] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        self._seconds, self._prefix = seconds, query_prefix

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        with self._lock:
            self.requests.append(texts)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self._seconds)
        with self._lock:
            self._now -= 1
        return [[float(text.count(letter)) for letter in "abcdefgh"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([self._prefix + text])[0]


class Broken(Recorded):
    def __init__(self, vectors: Callable[[list[str]], object]) -> None:
        super().__init__()
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts)  # type: ignore[return-value]


def test_passages_come_back_in_order_and_a_few_requests_run_at_once() -> None:
    model = Recorded(seconds=0.01)
    read = 0

    def passages() -> object:
        nonlocal read
        for row in range(3_000):
            read += 1
            yield row, "a" * (row % 7 + 1) + "b"

    ids: list[int] = []
    for rows, vectors in embed_passages(model, passages()):  # type: ignore[arg-type]
        assert len(rows) == len(vectors)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(rows)))
        ids += rows
        assert read - len(ids) <= 4 * 256  # no more is read than is needed
    assert ids == list(range(3_000))
    assert 2 <= model.most_at_once <= 4


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        (lambda texts: [[1.0]], r"array of shape \(1, 1\) for 3 texts; expected a vector of finite numbers for each"),
        (lambda texts: [[1.0], [2.0, 3.0], [1.0]], "no table of numbers"),
        (lambda texts: [[float("nan")]] * 3, "finite numbers"),
        (lambda texts: [[]] * 3, r"shape \(3, 0\)"),
        (lambda texts: 1 / 0, "failed: ZeroDivisionError: division by zero; nothing of the index was changed; fix: "),
    ],
)
def test_a_model_that_fails_is_told_in_one_line(vectors: Callable[[list[str]], object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as told:
        list(embed_passages(Broken(vectors), [(n, "x") for n in range(3)]))
    assert "\n" not in str(told.value)


def test_a_probe_tells_models_apart_and_how_they_take_queries() -> None:
    same, other = probe_model(Recorded()), probe_model(DeterministicFakeEmbedding(size=8))
    assert (same.model, same.dimensions, same.together) == ("Recorded counter-1", 8, True)
    assert same_model(same.vector, probe_model(Recorded()).vector)
    assert not same_model(same.vector, other.vector)
    assert not same_model(same.vector, probe_model(DeterministicFakeEmbedding(size=9)).vector)
    assert probe_model(Recorded(query_prefix="find: ")).together is False
    assert model_name(DeterministicFakeEmbedding(size=8)) == "DeterministicFakeEmbedding"


def test_a_vector_of_zeros_stays_one() -> None:
    assert as_matrix([[0, 0], [3, 4]], 2).tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]


async def test_queries_that_arrive_together_are_embedded_together() -> None:
    model = Recorded(seconds=0.02)
    embedder = QueryEmbedder(model, together=True)
    texts = ["a", "b", "ab", "a"]
    found = await asyncio.gather(*(embedder.embed(text) for text in texts))
    assert model.requests[1:] == [["a", "b", "ab"]]  # the first is the probe
    assert [vector.tolist() for vector in found] == [as_matrix([model.embed_query(text)], 1).tolist() for text in texts]
    model.requests.clear()
    first = asyncio.create_task(embedder.embed("a"))
    await asyncio.sleep(0.005)
    await asyncio.gather(first, *(embedder.embed("b" * n) for n in range(1, 30)))
    assert [len(request) for request in model.requests] == [1, 29]


async def test_a_model_with_a_prompt_for_queries_gets_them_one_by_one() -> None:
    model = Recorded(query_prefix="find: ")
    embedder = QueryEmbedder(model, together=False)
    await asyncio.gather(*(embedder.embed(text) for text in ("a", "b")))
    assert sorted(model.requests[1:]) == [["find: a"], ["find: b"]]


async def test_who_is_cancelled_or_fails_takes_nobody_along() -> None:
    model = Recorded(seconds=0.02)
    embedder = QueryEmbedder(model, together=True)
    kept, dropped = (asyncio.create_task(embedder.embed(text)) for text in ("a", "b"))
    await asyncio.sleep(0.005)
    dropped.cancel()
    assert (await kept).shape == (1, 8)
    broken = QueryEmbedder(Broken(lambda texts: 1 / 0), together=True)
    for _ in range(2):
        told = await asyncio.gather(*(broken.embed(text) for text in "ab"), return_exceptions=True)
        assert [type(error) for error in told] == [ZeroDivisionError] * 2


def test_an_embedder_serves_one_loop_after_another() -> None:
    embedder = QueryEmbedder(Recorded(), together=True)
    for _ in range(2):
        assert asyncio.run(embedder.embed("a")).shape == (1, 8)
