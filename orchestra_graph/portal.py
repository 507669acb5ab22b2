"""One long-lived event loop in a thread of its own, for callers that are not async.

HTTP clients bind to the loop they were first used on, so a new loop for every call breaks their second request.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """Runs coroutines for synchronous code. The thread starts with the first use and ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the caller's context and wait for its result; an interrupt of the caller cancels it."""
        loop = self._loop or self._start()
        context = contextvars.copy_context()
        done: Future[T] = Future()
        started: Future[asyncio.Task[T]] = Future()

        def begin() -> None:
            task = loop.create_task(coroutine, context=context)
            task.add_done_callback(lambda t: _hand_over(t, done))
            started.set_result(task)

        loop.call_soon_threadsafe(begin)
        try:
            return done.result()
        except (KeyboardInterrupt, SystemExit):
            loop.call_soon_threadsafe(started.result().cancel)
            raise

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="orchestra-portal", daemon=True).start()
                self._loop = loop
        return self._loop


def _hand_over(task: asyncio.Task[T], done: Future[T]) -> None:
    if task.cancelled():
        done.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())
