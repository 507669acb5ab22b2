"""Keeps a server up: starts it, tells how it is doing, and starts it again when it ends or hangs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from orchestra_graph.errors import ServerError
from orchestra_graph.serving.metrics import Load
from orchestra_graph.serving.process import Server

FIRST_PAUSE: Final = 1.0
"""Seconds before the first restart; doubled for each further one, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE: Final = 60.0
SETTLED: Final = 600.0
"""Seconds of health after which earlier crashes are forgotten."""
HUNG: Final = 60.0
"""Seconds without an answer of `/health` after which a server that runs counts as crashed."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The server answers."""

    seconds: float
    """Since its process was started."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How it is doing."""

    load: Load
    recent: Load
    """Counters since the last sample."""
    seconds: float
    """Since the last sample."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """It ended or hung, and is started again after a pause."""

    why: str
    restart: int
    """Number of this restart."""
    pause: float
    """Seconds."""


Event = Ready | Sample | Crashed


async def keep_up(
    server: Server,
    *,
    timeout: float,
    restarts: int = 3,
    every: float = 1.0,
    hung: float = HUNG,
    first_pause: float = FIRST_PAUSE,
    on_line: Callable[[str], None] = lambda line: None,
) -> AsyncGenerator[Event, None]:
    """Start the server and keep it up. Runs until it is closed or cancelled; the caller then stops the server.

    A server that has never been ready is not started again: what ended it would end it again.

    Args:
        server: Not started yet.
        timeout: Seconds that a start may take.
        restarts: Restarts at most; those before ten healthy minutes are forgotten.
        every: Seconds between samples.
        hung: See `HUNG`.
        first_pause: See `FIRST_PAUSE`.
        on_line: See `Server.wait_healthy`.

    Raises:
        ServerError: It did not come up, or there are no restarts left.
    """
    crashes = 0
    was_ready = False
    while True:
        started, healthy_at = time.monotonic(), math.inf
        await server.start()
        try:
            await server.wait_healthy(timeout, on_line)
            was_ready, healthy_at = True, time.monotonic()
            yield Ready(healthy_at - started)
            async with aclosing(_samples(server, every, hung)) as samples:
                async for sample in samples:
                    yield sample
            why = f"the server ended with exit code {server.exit_code}: {server.why()}"
            if server.exit_code is None:
                why = f"the server did not answer for {hung:g} s; full log: {server.log}"
        except ServerError as error:
            if not was_ready:
                raise
            why = str(error)
        if time.monotonic() - healthy_at > SETTLED:
            crashes = 0
        if crashes == restarts:
            after = f" after {restarts} restarts" if restarts else ""
            raise ServerError(f"given up{after}: {why}")
        pause = min(LONGEST_PAUSE, first_pause * 2.0**crashes)
        crashes += 1
        yield Crashed(why, crashes, pause)
        await server.stop()
        await asyncio.sleep(pause)


async def _samples(server: Server, every: float, hung: float) -> AsyncGenerator[Sample, None]:
    """Samples of a healthy server, until it ends or hangs."""
    last, last_at = await server.load(), time.monotonic()
    healthy_at = last_at
    ended = asyncio.ensure_future(server.wait())
    try:
        while time.monotonic() - healthy_at < hung:
            await asyncio.wait({ended}, timeout=every)
            if ended.done():
                return
            if await server.healthy():
                healthy_at = time.monotonic()
            load, now = await server.load(), time.monotonic()
            if load is not None:
                yield Sample(load, load.since(last) if last is not None else load, now - last_at)
                last, last_at = load, now
    finally:
        ended.cancel()
