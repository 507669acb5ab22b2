from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.embeddings.fake import DeterministicFakeEmbedding

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.tools.local_search import LocalSearch
from orchestra_graph.tools.retriever_service import MOST_PASSAGES, TOP_K, make_app, serve
from tests.benchmarks.retriever import SyntheticEmbeddings, make_queries, write_corpus

PASSAGES = 10_000


class Recorded(SyntheticEmbeddings):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.broken = False

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.broken:
            raise ConnectionError("the server\nis gone")
        self.batches.append(len(texts))
        return await super().aembed_documents(texts)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "corpus.jsonl", PASSAGES)
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"id": 77, "title": "Gannets", "text": "They dive from thirty metres."}\n')
    LocalSearch.build(folder / "corpus.jsonl", folder / "index", embeddings=SyntheticEmbeddings())
    return folder / "index"


@pytest.fixture
def model() -> Recorded:
    return Recorded()


@pytest.fixture
async def client(index: Path, model: Recorded) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(LocalSearch(index, embeddings=model)))
    async with httpx.AsyncClient(transport=transport, base_url="http://retriever") as opened:
        yield opened


async def retrieve(client: httpx.AsyncClient, **body: Any) -> Any:
    reply = await client.post("/retrieve", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_answers_as_the_release_asks(client: httpx.AsyncClient) -> None:
    [found] = await retrieve(client, queries=["gannets dive"], topk=3, return_scores=True, eid="e1", new_cache_dir="x")
    assert len(found) == 3
    assert found[0]["document"] == {
        "id": "77",
        "title": "Gannets",
        "contents": "Gannets\nThey dive from thirty metres.",
    }
    scores = [entry["score"] for entry in found]
    assert scores == sorted(scores, reverse=True)
    [bare] = await retrieve(client, queries=["gannets dive"], topk=3)
    assert bare == [entry["document"] for entry in found]
    for body in ({}, {"topk": None}, {"topk": 0}, {"eid": 5}):
        assert [len(hits) for hits in await retrieve(client, queries=["gannets", "metres"], **body)] == [TOP_K, TOP_K]


async def test_queries_of_one_request_and_of_many_are_embedded_together(
    client: httpx.AsyncClient, model: Recorded
) -> None:
    queries = make_queries(PASSAGES, 40)
    together = await retrieve(client, queries=queries, topk=5, return_scores=True)
    assert model.batches == [len(queries)]
    model.batches.clear()
    alone = await asyncio.gather(*(retrieve(client, queries=[q], topk=5, return_scores=True) for q in queries))
    assert [hits for [hits] in alone] == together
    assert sum(model.batches) == len(queries)
    assert len(model.batches) <= len(queries) // 4


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "queries: Field required"),
        ({"queries": "text"}, "queries: Input should be a valid list, got 'text'"),
        ({"queries": []}, "queries: List should have at least 1 item"),
        ({"queries": ["x", 5]}, "queries.1: Input should be a valid string, got 5"),
        ({"queries": ["x"], "topk": -1}, "topk: Input should be greater than or equal to 0, got -1"),
        ({"queries": ["x"], "topk": MOST_PASSAGES + 1}, "topk: Input should be less than or equal to 1000, got 1001"),
        ({"queries": ["x"], "return_scores": "maybe"}, "return_scores: Input should be a valid boolean"),
        ([], "body: Input should be a valid dictionary"),
    ],
)
async def test_bad_requests_get_one_line(client: httpx.AsyncClient, body: Any, problem: str) -> None:
    reply = await client.post("/retrieve", json=body)
    assert reply.status_code == 422
    detail = reply.json()["detail"]
    assert detail.startswith(problem)
    assert detail.endswith('; expected {"queries": [text, ...], "topk": 1 to 1000}')
    assert "\n" not in detail


async def test_what_is_no_json_or_no_such_path(client: httpx.AsyncClient) -> None:
    reply = await client.post("/retrieve", content=b"{", headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["detail"].startswith("body: JSON decode error")) == (422, True)
    assert (await client.get("/nowhere")).status_code == 404
    assert (await client.get("/retrieve")).status_code == 405
    for query in ("", '"', "\x00", "NOT x", "y" * 100_000):
        [found] = await retrieve(client, queries=[query], topk=2)
        assert len(found) <= 2


async def test_health_and_faults(client: httpx.AsyncClient, model: Recorded, tmp_path: Path, index: Path) -> None:
    health = (await client.get("/health")).json()
    assert health == {"status": "ok", "passages": PASSAGES + 1, "model": "Recorded synthetic, 128 dimensions"}
    await retrieve(client, queries=["x"])
    model.broken = True
    failed = await client.post("/retrieve", json={"queries": ["x"]})
    assert (failed.status_code, failed.json()) == (503, {"detail": "ConnectionError: the server is gone"})
    model.broken = False
    await retrieve(client, queries=["x"])
    copy = tmp_path / "copy"
    copy.write_bytes(index.read_bytes())
    transport = httpx.ASGITransport(make_app(LocalSearch(copy)))
    copy.unlink()
    async with httpx.AsyncClient(transport=transport, base_url="http://retriever") as lost:
        for reply in (await lost.get("/health"), await lost.post("/retrieve", json={"queries": ["x"]})):
            assert reply.status_code == 503
            assert "unable to open database file" in reply.json()["detail"]


async def test_serves_on_a_port_and_stops(index: Path) -> None:
    urls: asyncio.Queue[str] = asyncio.Queue()
    search = LocalSearch(index, embeddings=SyntheticEmbeddings())
    task = asyncio.create_task(serve(search, host="127.0.0.1", port=0, ready=urls.put_nowait))
    url = await asyncio.wait_for(urls.get(), 20)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        queries = make_queries(PASSAGES, 16)
        found = await asyncio.gather(*(retrieve(client, queries=[query], topk=4) for query in queries))
        assert all(len(hits) == 4 for [hits] in found)
    port = int(url.rpartition(":")[2])
    with pytest.raises(
        ConfigError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: Address already in use; fix: stop"
    ):
        await serve(search, host="127.0.0.1", port=port)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_cannot_be_served_is_told_first(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1 port 0: .*; fix: choose another --host"):
        await serve(LocalSearch(index), host="203.0.113.1", port=0)
    other = LocalSearch(index, embeddings=DeterministicFakeEmbedding(size=128))
    with pytest.raises(ConfigError, match="DeterministicFakeEmbedding is another model"):
        await serve(other, host="127.0.0.1", port=0)
    for module in ("fastapi", "uvicorn"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(
                MissingError, match=r"the extra `search` is missing; fix: pip install .*fastapi.*uvicorn"
            ):
                await serve(LocalSearch(index), host="127.0.0.1", port=0)


async def test_replies_are_not_held_back(index: Path) -> None:
    """A listening socket that names no protocol leaves Nagle's algorithm on; each reply then waits 40 ms."""
    from orchestra_graph.tools.retriever_service import _listen  # noqa: PLC0415  (what it makes cannot be seen outside)

    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
