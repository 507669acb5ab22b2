"""The loop for synchronous callers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestra_graph.errors import ConfigError
from orchestra_graph.portal import Portal

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def loop_and_thread(seconds: float = 0.0) -> tuple[int, int]:
    await asyncio.sleep(seconds)
    return id(asyncio.get_running_loop()), threading.get_ident()


def test_calls_of_one_thread_share_a_loop_in_that_thread() -> None:
    portal = Portal()
    first, second = portal.run(loop_and_thread()), portal.run(loop_and_thread())
    assert first == second
    assert first[1] == threading.get_ident()


def test_overlapping_calls_share_the_loop_and_run_side_by_side() -> None:
    portal = Portal()
    single = portal.run(loop_and_thread())
    started = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: portal.run(loop_and_thread(0.2)), range(8)))
    assert {loop for loop, _ in results} == {single[0]}
    assert time.perf_counter() - started < 1.5
    assert portal.run(loop_and_thread())[0] == single[0]
    portal.close()


async def test_caller_with_a_loop_of_its_own() -> None:
    portal = Portal()
    loop, thread = portal.run(loop_and_thread())
    assert loop != id(asyncio.get_running_loop())
    assert thread != threading.get_ident()
    portal.close()


def test_context_of_the_caller_is_seen() -> None:
    async def read() -> str:
        return variable.get()

    token = variable.set("set")
    try:
        portal = Portal()
        assert portal.run(read()) == "set"
    finally:
        variable.reset(token)


def test_error_reaches_the_caller_in_either_mode() -> None:
    async def fail() -> None:
        raise KeyError("broken")

    portal = Portal()
    with pytest.raises(KeyError, match="broken"):
        portal.run(fail())

    async def inside() -> None:
        portal.run(fail())

    with pytest.raises(KeyError, match="broken"):
        asyncio.run(inside())
    portal.close()


def test_interrupt_cancels_the_coroutine_and_leaves_the_loop_usable() -> None:
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    portal = Portal()
    # As Ctrl-C does it: to the main thread, which then leaves its wait.
    timer = threading.Timer(0.2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            portal.run(wait())
    finally:
        signal.signal(signal.SIGINT, handler)
    timer.join()
    assert cancelled.is_set()
    assert portal.run(loop_and_thread())[1] == threading.get_ident()


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_coroutine_on_its_loop_that_waits_for_it_is_told_instead_of_hanging(in_thread: bool) -> None:
    portal = Portal()

    async def call() -> None:
        portal.run(loop_and_thread())

    async def call_from_a_loop() -> None:
        portal.run(call())

    with pytest.raises(ConfigError, match="would wait for itself"):
        asyncio.run(call_from_a_loop()) if in_thread else portal.run(call())
    portal.close()


def test_close_starts_anew() -> None:
    portal = Portal()
    portal.run(loop_and_thread())
    portal.close()
    assert portal.run(loop_and_thread())[1] == threading.get_ident()


def test_a_portal_among_garbage_closes_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = [asyncio.new_event_loop()]  # older than the portal: a collector that finds both finalizes it first
    monkeypatch.setattr(asyncio, "new_event_loop", loops.pop)
    garbage: list[Any] = [Portal()]
    garbage.append(garbage)
    assert garbage[0].run(loop_and_thread())[1] == threading.get_ident()
    loop = weakref.ref(garbage[0]._loop)
    del garbage
    gc.collect()  # a loop that is left open warns, which fails the test
    assert loop() is None
