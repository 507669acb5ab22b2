"""Turns passages and queries into vectors of length one, with any LangChain embedding model.

A model is known again by the vector that it gives a fixed text, so that an index is never searched with the vectors of
another one, however the two are named.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from langchain_core.embeddings import Embeddings

from orchestra_graph.billing import describe
from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.documents import search_module

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]
    """A vector a row."""

PROBE: Final = "A lighthouse keeper counts the ships that pass before the fog comes in."

_BATCH: Final = 256
"""Texts in one request to the model."""
_AT_ONCE: Final = 4
"""Requests under way at the same time while passages are embedded."""
_SAME: Final = 0.999
"""Cosine from which two vectors are taken for the same; servers round, so equal requests differ a little."""
_FLOAT_BYTES: Final = 4
_NAMES: Final = ("model", "model_name", "model_id", "deployment", "repo_id")


@dataclass(frozen=True, slots=True)
class Probe:
    """What an index remembers of its embedding model."""

    model: str
    vector: bytes
    """Of the text `PROBE` as a query, float32."""
    together: bool
    """Whether a query is embedded as a passage is."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return len(self.vector) // _FLOAT_BYTES


def model_name(embeddings: Embeddings) -> str:
    """Class and name of an embedding model, for messages."""
    kind = type(embeddings).__name__
    return next((f"{kind} {value}" for key in _NAMES if isinstance(value := getattr(embeddings, key, None), str)), kind)


def probe_model(embeddings: Embeddings) -> Probe:
    """Ask a model for what an index remembers of it. Blocks.

    Raises:
        ConfigError: The model failed, or returned no vectors.
        MissingError: NumPy is not installed; it comes with the extra `search`.
    """
    try:
        as_query, as_passage = embeddings.embed_query(PROBE), embeddings.embed_documents([PROBE])
    except Exception as error:  # a model may raise anything
        raise _failed(embeddings, error) from error
    query, passage = as_matrix([as_query], 1), as_matrix(as_passage, 1)
    return Probe(model_name(embeddings), query.tobytes(), same_model(query.tobytes(), passage.tobytes()))


def same_model(one: bytes, other: bytes) -> bool:
    """Whether two vectors of the same text come from the same model."""
    numpy = search_module("numpy")
    a, b = (numpy.frombuffer(vector, numpy.float32) for vector in (one, other))
    return a.shape == b.shape and float(a @ b) >= _SAME


def embed_passages(embeddings: Embeddings, passages: Iterable[tuple[int, str]]) -> Iterator[tuple[list[int], Matrix]]:
    """Embed passages in batches, a few requests at a time; they are read as they are needed, and come back in order.

    Threads rather than a loop of its own: it works wherever it is called from, and an interrupt waits for no more than
    the requests under way.

    Args:
        embeddings: The model.
        passages: Ids and texts.

    Yields:
        Ids of a batch, and their vectors.

    Raises:
        ConfigError: The model failed, or returned something else than one vector a text.
        MissingError: See `probe_model`.
    """
    waiting: deque[tuple[list[int], Future[list[list[float]]]]] = deque()
    source = iter(passages)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="embed") as pool:
        try:
            while True:
                while len(waiting) < _AT_ONCE and (batch := list(islice(source, _BATCH))):
                    ids, texts = [row for row, _ in batch], [text for _, text in batch]
                    waiting.append((ids, pool.submit(embeddings.embed_documents, texts)))
                if not waiting:
                    return
                ids, future = waiting.popleft()
                try:
                    vectors = future.result()
                except Exception as error:  # a model may raise anything
                    raise _failed(embeddings, error) from error
                yield ids, as_matrix(vectors, len(ids))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def as_matrix(vectors: Sequence[Sequence[float]], count: int) -> Matrix:
    """Vectors brought to length one, a row each; a vector of zeros stays as it is.

    Raises:
        ConfigError: They are not `count` vectors of one length with finite numbers.
        MissingError: See `probe_model`.
    """
    numpy = search_module("numpy")
    try:
        matrix: Matrix = numpy.asarray(vectors, dtype=numpy.float32)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the embedding model returned no table of numbers: {error}; fix: use another model"
        ) from error
    if matrix.ndim != 2 or len(matrix) != count or not matrix.shape[1] or not numpy.isfinite(matrix).all():
        raise ConfigError(
            f"the embedding model returned an array of shape {matrix.shape} for {count} texts; expected a vector of "
            "finite numbers for each; fix: use another model"
        )
    lengths = numpy.linalg.norm(matrix, axis=1, keepdims=True)
    normalised: Matrix = matrix / numpy.where(lengths > 0, lengths, 1)
    return normalised


@dataclass(eq=False)
class _Queue:
    """Queries of one event loop that wait for the request that is under way."""

    waiting: list[tuple[str, asyncio.Future[Matrix]]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class QueryEmbedder:
    """Embeds queries; those that arrive while a request is under way go together in the next one.

    Args:
        embeddings: The model.
        together: Whether it embeds a query as a passage; otherwise queries go side by side, a request each, because
            LangChain's interface has no request for many queries.
    """

    def __init__(self, embeddings: Embeddings, *, together: bool) -> None:
        self.model = model_name(embeddings)
        self.probe: bytes | None = None
        """The vector of `PROBE` as a query; there as soon as a query has been embedded."""
        self._embeddings = embeddings
        self._together = together
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def embed(self, query: str) -> Matrix:
        """The vector of a query, as a table of one row.

        Raises:
            Exception: Whatever the model raises.
            ConfigError: It returned something else than vectors.
        """
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(loop, _Queue())
        future: asyncio.Future[Matrix] = loop.create_future()
        queue.waiting.append((query, future))
        if queue.task is None or queue.task.done():
            queue.task = loop.create_task(self._drain(queue))
        return await future

    async def _drain(self, queue: _Queue) -> None:
        await asyncio.sleep(0)  # those that arrive in the same turn of the loop join
        while queue.waiting:
            batch, queue.waiting[:] = queue.waiting[:_BATCH], queue.waiting[_BATCH:]
            try:
                found = await self._vectors([query for query, _ in batch])
            except Exception as error:  # told to each who waits
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for query, future in batch:
                if not future.done():  # who was cancelled waits no longer
                    future.set_result(found[query])

    async def _vectors(self, queries: Sequence[str]) -> dict[str, Matrix]:
        if self.probe is None:
            self.probe = as_matrix([await self._embeddings.aembed_query(PROBE)], 1).tobytes()
        texts = list(dict.fromkeys(queries))
        if self._together:
            vectors = await self._embeddings.aembed_documents(texts)
        else:
            vectors = list(await asyncio.gather(*map(self._embeddings.aembed_query, texts)))
        matrix = as_matrix(vectors, len(texts))
        return {text: matrix[row : row + 1] for row, text in enumerate(texts)}


def _failed(embeddings: Embeddings, error: Exception) -> ConfigError:
    return ConfigError(
        f"the embedding model {model_name(embeddings)} failed: {describe(error)}; nothing of the index was changed; "
        "fix: check the model's name, address and key, and build again"
    )
