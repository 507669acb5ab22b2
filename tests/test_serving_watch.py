"""Keeping a server up: samples, restarts, and when it is given up."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestra_graph.errors import ServerError
from orchestra_graph.serving import watch
from orchestra_graph.serving.process import Server
from orchestra_graph.serving.watch import Crashed, Event, Ready, Sample, keep_up
from tests.test_serving_process import frequent_looks as frequent_looks
from tests.test_serving_process import is_there, make, read_pid


async def collect(server: Server, until: int, **options: Any) -> list[Event]:
    """The first events; the server is stopped then."""
    found: list[Event] = []
    options = {"timeout": 20, "every": 0.1, "first_pause": 0.05, **options}
    try:
        async with asyncio.timeout(30), aclosing(keep_up(server, **options)) as events:
            async for event in events:
                found.append(event)
                if len(found) == until:
                    break
    finally:
        await server.stop()
    return found


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


async def test_ready_then_samples(tmp_path: Path) -> None:
    events = await collect(make(tmp_path), 3)
    assert kinds(events) == [Ready, Sample, Sample]
    first, second = events[1:]
    assert isinstance(first, Sample) and isinstance(second, Sample)
    assert second.load.generated_tokens > first.load.generated_tokens
    assert second.recent.generated_tokens == second.load.generated_tokens - first.load.generated_tokens
    assert (second.recent.requests, second.load.requests) == (0, 7)
    assert second.seconds >= 0.1


async def test_a_crash_is_told_and_the_server_started_again(tmp_path: Path) -> None:
    events = await collect(make(tmp_path, "--crash-once", tmp_path / "crashed"), 20, every=0.05)
    assert kinds(events).count(Ready) == 2
    (crash,) = [event for event in events if isinstance(event, Crashed)]
    assert (crash.restart, crash.pause) == (1, 0.05)
    assert crash.why.startswith(
        "the server ended with exit code 3: ValueError: the stand-in was told to end; full log: "
    )


async def test_the_time_that_a_start_takes_is_no_health(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Server:
        """Loads its model for longer than what counts as settled, and ends at once."""

        exit_code = 3

        async def start(self) -> None:
            now[0] += 2 * watch.SETTLED

        async def wait_healthy(self, timeout: float, on_line: Any) -> None:
            """It is."""

        async def load(self) -> None:
            """It does not tell."""

        async def wait(self) -> int:
            return 3

        async def stop(self) -> None:
            """It has."""

        def why(self) -> str:
            return "it ended"

    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    server: Any = Server()
    with pytest.raises(ServerError, match="given up after 2 restarts"):
        async with asyncio.timeout(30):
            async for _ in keep_up(server, timeout=1000, restarts=2, first_pause=0.01):
                pass


async def test_restarts_are_bounded_and_pauses_grow(tmp_path: Path) -> None:
    server = make(tmp_path, "--crash", 0.3)
    found: list[Event] = []
    with pytest.raises(ServerError, match="given up after 2 restarts: the server ended with exit code 3: ValueError"):
        async for event in keep_up(server, timeout=20, restarts=2, every=5, first_pause=0.02):
            found.append(event)
    await server.stop()
    assert kinds(found) == [Ready, Crashed, Ready, Crashed, Ready]
    assert [event.pause for event in found if isinstance(event, Crashed)] == [0.02, 0.04]


async def test_no_restart_when_none_is_allowed(tmp_path: Path) -> None:
    server = make(tmp_path, "--crash", 0.3)
    with pytest.raises(ServerError, match="given up: the server ended"):
        async for _ in keep_up(server, timeout=20, restarts=0, every=5):
            pass
    await server.stop()


async def test_a_server_that_was_never_ready_is_not_started_again(tmp_path: Path) -> None:
    server = make(tmp_path, "--crash-early")
    with pytest.raises(ServerError, match="before it was ready: ValueError"):
        async for _ in keep_up(server, timeout=20):
            pass
    await server.stop()
    assert server.log.read_text().count("loading") == 1


async def test_a_hung_server_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra_graph.serving.process._PATIENCE", 0.2)
    server = make(tmp_path, "--hang-after", 0.4, "--ignore-term", "--pid", tmp_path / "pid", grace=0.1)
    found: list[Event] = []
    first = 0
    async with asyncio.timeout(30), aclosing(
        keep_up(server, timeout=20, every=0.1, hung=0.5, first_pause=0.01)
    ) as events:  # fmt: skip
        async for event in events:
            found.append(event)
            first = first or read_pid(tmp_path / "pid")
            if kinds(found).count(Ready) == 2:
                break
    await server.stop()
    (crash,) = [event for event in found if isinstance(event, Crashed)]
    assert crash.why == f"the server did not answer for 0.5 s; full log: {server.log}"
    assert not is_there(first)


async def test_a_server_that_is_killed_comes_back(tmp_path: Path) -> None:
    server = make(tmp_path, "--pid", tmp_path / "pid")
    ready = 0
    async with asyncio.timeout(30), aclosing(keep_up(server, timeout=20, every=0.1, first_pause=0.01)) as events:
        async for event in events:
            if isinstance(event, Ready):
                ready += 1
                if ready == 2:
                    assert await server.healthy()
                    break
                os.kill(read_pid(tmp_path / "pid"), signal.SIGKILL)
    await server.stop()
    assert ready == 2
