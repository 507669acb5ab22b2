"""A real HTTP server on loopback in LangSmith's place: it keeps every byte that the SDK posts, and puts runs together.

    with recording() as recorder:
        graph.invoke(...)
    recorder.runs   # by id, once the block is left

What was posted can be read back through both of LangSmith's interfaces: see `tests.langsmith_reads`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import langsmith
import zstandard
from langchain_core.tracers.langchain import wait_for_all_tracers
from langsmith.run_helpers import tracing_context

from tests.langsmith_reads import read

KEY = "lsv2_pt_key_of_the_recorder"

BATCHES = {
    "use_multipart_endpoint": True,
    "size_limit": 100,
    "size_limit_bytes": 20_971_520,
    "scale_up_nthreads_limit": 16,
    "scale_up_qsize_trigger": 1000,
    "scale_down_nempty_trigger": 4,
}
"""How the SDK is to post, as LangSmith answers."""

Run = dict[str, Any]


class Recorder:
    """What was posted."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        """Each as it came, unpacked."""
        self.runs: dict[str, Run] = {}
        """Fields of each run, what was patched over what was posted."""
        self.feedback: list[dict[str, Any]] = []
        self.url = ""
        self.operations: list[tuple[str, str]] = []
        """`post` or `patch`, and the run's id."""
        self.version = "0.10"
        """Which LangSmith it is."""
        self.read_page = 100
        """Runs that it gives at a time."""
        self.pages_feedback = True
        """Whether it takes offset and limit where feedback of certain runs is asked for."""
        self.faults: list[tuple[int, dict[str, str]]] = []
        """Statuses and headers with which it answers the next requests that read, in place of an answer."""
        self.reads: list[tuple[str, dict[str, Any]]] = []
        """Path and query of each request that reads."""
        self._patches: dict[str, Run] = {}
        """Of each run what was patched."""
        self._lock = threading.Lock()

    def take(self, path: str, kind: str, body: bytes) -> None:
        self.bodies.append(body)
        if path.endswith("/runs/multipart"):
            self._take_parts(kind, body)
        elif path.endswith("/feedback"):
            self.feedback.append(json.loads(body))
        else:
            raise AssertionError(f"nothing is expected to be posted to {path}")

    def _take_parts(self, kind: str, body: bytes) -> None:
        message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        for part in message.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            operation, run_id, *field = name.split(".")
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            value = json.loads(content)
            if operation == "feedback":
                self.feedback.append(value)
            elif field:
                self._put(operation, run_id, {field[0]: value})
            else:
                self.operations.append((operation, run_id))
                self._put(operation, run_id, {key: inner for key, inner in value.items() if inner is not None})

    def _put(self, operation: str, run_id: str, fields: Run) -> None:
        """Add fields to a run; what is patched stands, as in LangSmith.

        Where much is waiting, the SDK posts from several threads, and a run may arrive behind its own patch.
        """
        with self._lock:
            patched = self._patches.setdefault(run_id, {})
            if operation == "patch":
                patched.update(fields)
            self.runs.setdefault(run_id, {}).update({**fields, **patched})

    def children(self, run: Run) -> list[Run]:
        """Runs that hang below one, in order."""
        found = [other for other in self.runs.values() if other.get("parent_run_id") == run["id"]]
        return sorted(found, key=lambda other: str(other["dotted_order"]))

    def below(self, run: Run) -> Iterator[Run]:
        """All runs below one."""
        for child in self.children(run):
            yield child
            yield from self.below(child)

    @property
    def root(self) -> Run:
        [root] = [run for run in self.runs.values() if not run.get("parent_run_id")]
        return root

    @property
    def text(self) -> str:
        return b"\n".join(self.bodies).decode("utf-8")


def metadata(run: Run) -> dict[str, Any]:
    return dict(run["extra"]["metadata"])


def cost(run: Run) -> float | None:
    """Dollars on the run itself."""
    dollars = metadata(run).get("usage_metadata", {}).get("total_cost")
    return None if dollars is None else float(dollars)


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are written apart: the second would wait 40 ms for the first

        def do_GET(self) -> None:
            if self.path == "/info":
                self._answer(200, {"version": recorder.version, "batch_ingest_config": BATCHES})
            else:
                url = urlsplit(self.path)
                self._read(url.path, parse_qs(url.query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("/runs/query"):
                self._read(self.path, json.loads(body))
                return
            if self.headers.get("Content-Encoding") == "zstd":
                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
            recorder.take(self.path, self.headers["Content-Type"], body)
            self._answer(202, {})

        def _read(self, path: str, query: dict[str, Any]) -> None:
            recorder.reads.append((path, query))
            if recorder.faults:
                status, headers = recorder.faults.pop(0)
                self._answer(status, {"detail": "by the script"}, headers)
            else:
                self._answer(200, read(recorder, path, query))

        def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            for name, header in (headers or {}).items():
                self.send_header(name, header)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def served() -> Iterator[Recorder]:
    """The server alone, for tracing that is switched on by environment variables."""
    recorder = Recorder()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(recorder))
    server.daemon_threads = True
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def recording(*, enabled: bool = True) -> Iterator[Recorder]:
    """Trace what is done in the block into a recorder; left when everything has been posted."""
    with served() as recorder:
        client = langsmith.Client(api_url=recorder.url, api_key=KEY)
        try:
            with tracing_context(enabled=enabled, client=client, project_name="test"):
                yield recorder
        finally:
            wait_for_all_tracers()
            client.flush()
            client.close()
