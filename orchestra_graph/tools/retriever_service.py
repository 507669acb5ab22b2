"""Serves an index over HTTP: `POST /retrieve`, as the released checkpoint's harness asks for it, and `GET /health`.

    orchestra retriever serve INDEX

A request is `{"queries": [text], "topk": 50, "return_scores": true}`; the reply holds a list for each query, of
`{"document": {"id", "title", "contents"}, "score"}` best first, or of bare documents without `return_scores`.
Searches run in threads, side by side; queries that arrive together are embedded together.

Left out: the release narrows a search to the pages of one example by `eid`, and asks a web search where it finds few;
here `eid` and `new_cache_dir` are accepted and change nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from orchestra_graph.errors import ConfigError, OrchestraError
from orchestra_graph.tools.documents import search_module
from orchestra_graph.tools.index_file import Hit
from orchestra_graph.tools.local_search import LocalSearch

if TYPE_CHECKING:
    from fastapi import FastAPI

TOP_K: Final = 10
"""Passages for each query where a request does not say how many."""
MOST_PASSAGES: Final = 1000
MOST_QUERIES: Final = 1024
_CLOSING_SECONDS: Final = 5
_BACKLOG: Final = 2048
_QUOTED: Final = 3
"""Mistakes of a request that the reply names."""
_QUOTED_CHARACTERS: Final = 80

_log = logging.getLogger(__name__)


class RetrieveRequest(BaseModel):
    """The body of `POST /retrieve`."""

    model_config = ConfigDict(extra="ignore")

    queries: Annotated[list[str], Field(min_length=1, max_length=MOST_QUERIES)]
    topk: Annotated[int, Field(ge=0, le=MOST_PASSAGES)] | None = None
    """None and 0 stand for `TOP_K`, as in the release."""
    return_scores: bool = False


def make_app(search: LocalSearch) -> FastAPI:
    """The service as an ASGI application.

    Raises:
        MissingError: The extra `search` is not installed.
    """
    fastapi, responses = search_module("fastapi"), search_module("fastapi.responses")
    app: FastAPI = fastapi.FastAPI(title="Retriever", docs_url=None, redoc_url=None, openapi_url=None)

    def answer(status: int, value: Any) -> Any:
        return responses.Response(orjson.dumps(value), status, media_type="application/json")

    @app.post("/retrieve", response_model=None)
    async def retrieve(request: RetrieveRequest) -> Any:
        top_k = request.topk or TOP_K
        try:
            found = await asyncio.gather(*(search.search(query, top_k=top_k) for query in request.queries))
        except Exception as error:  # the index's, or whatever the embedding model raises: told in one line, and logged
            _log.warning("retrieve failed", exc_info=error)
            return answer(503, {"detail": _one_line(error)})
        return answer(200, [[_entry(hit, scored=request.return_scores) for hit in hits] for hits in found])

    @app.get("/health", response_model=None)
    async def health() -> Any:
        try:
            passages, model = await asyncio.to_thread(search.describe)
        except sqlite3.Error as error:
            return answer(503, {"detail": _one_line(error)})
        return answer(200, {"status": "ok", "passages": passages, "model": model})

    @app.exception_handler(fastapi.exceptions.RequestValidationError)
    async def refuse(_: Any, error: Any) -> Any:
        return answer(422, {"detail": _mistakes(error.errors())})

    return app


async def serve(search: LocalSearch, *, host: str, port: int, ready: Callable[[str], None] | None = None) -> None:
    """Serve until interrupted; requests under way are finished first.

    Args:
        search: The opened index.
        host: Address to listen on.
        port: Port to listen on; 0 takes any that is free.
        ready: Called with the service's URL before the first request is taken.

    Raises:
        ConfigError: The port is taken, the address is none of this machine's, or the embedding model failed or does not
            fit the index.
        MissingError: The extra `search` is not installed.
    """
    uvicorn, app = search_module("uvicorn"), make_app(search)
    with _listen(host, port) as listener:
        # On the loop that serves: a model's HTTP client stays with the loop that it was first used on.
        await search.check_model()
        if ready is not None:
            ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=_CLOSING_SECONDS
        )
        await uvicorn.Server(config).serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    # With the protocol named, asyncio sends what is written to its connections at once; without it a reply waits for
    # the client's delayed acknowledgement, 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        fix = "stop what listens there, or choose another --port" if taken else "choose another --host or --port"
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}; fix: {fix}") from error
    return listener


def _entry(hit: Hit, *, scored: bool) -> dict[str, Any]:
    contents = f"{hit.title}\n{hit.text}" if hit.title else hit.text
    document = {"id": hit.source, "title": hit.title, "contents": contents}
    return {"document": document, "score": hit.score} if scored else document


def _mistakes(errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a request, in one line."""
    told = []
    for error in errors[:_QUOTED]:
        # Where JSON is broken, the place is a number of characters.
        place = "" if error["type"] == "json_invalid" else ".".join(str(p) for p in error["loc"] if p != "body")
        value = repr(error["input"])[:_QUOTED_CHARACTERS]
        told.append(f"{place or 'body'}: {error['msg']}, got {value}")
    more = f"; and {len(errors) - _QUOTED} more" if len(errors) > _QUOTED else ""
    return f'{"; ".join(told)}{more}; expected {{"queries": [text, ...], "topk": 1 to {MOST_PASSAGES}}}'


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, OrchestraError) else f"{type(error).__name__}: {text}"
