"""One long-lived event loop for callers that are not async.

HTTP clients bind to the loop they were first used on, so a new loop for every call breaks their second request. While
one thread calls at a time the loop runs in that thread, which saves two thread switches a call. As soon as calls
overlap, or a caller runs a loop of its own, it moves into a thread of its own and stays there.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from orchestra_graph.errors import ConfigError

T = TypeVar("T")


class Portal:
    """Runs coroutines for synchronous code, all on the same loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        """The one that runs the loop, if any."""
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._is_busy = False
        """A caller's thread runs the loop."""
        self._is_contended = False
        """Another one has called meanwhile and waits for a task on it."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the caller's context and wait for its result; an interrupt of the caller cancels it.

        Raises:
            ConfigError: The caller is a coroutine on this very loop, which would wait for itself.
        """
        running = asyncio._get_running_loop()
        if running is not None and running is self._loop:
            coroutine.close()
            raise ConfigError(
                "an async tool or node calls the graph that it is a part of with invoke or stream, and would wait for "
                "itself; expected an async call; fix: await graph.ainvoke(...)"
            )
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # It holds the loop: a garbage collector that finds loop and portal may finalize the loop's parts first.
                self._finalizer = weakref.finalize(self, _end, self._loop, self._threads)
            loop = self._loop
            here = not self._threads and not self._is_busy and running is None
            if here:
                self._is_busy = True
            elif self._is_busy:
                self._is_contended = True
            elif not self._threads:
                self._start_thread(loop)
        return self._run_here(loop, coroutine) if here else _run_there(loop, coroutine)

    def close(self) -> None:
        """Stop the thread, if there is one, and close the loop; the next call starts anew."""
        if not self._is_busy and threading.current_thread() not in self._threads:
            finalizer, self._loop, self._finalizer = self._finalizer, None, None
            if finalizer is not None:
                finalizer()

    def _run_here(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
        task = loop.create_task(coroutine)  # in a copy of the context
        try:
            return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
            raise
        finally:
            with self._lock:
                self._is_busy = False
                if self._is_contended:
                    self._start_thread(loop)

    def _start_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        thread = threading.Thread(target=loop.run_forever, name="orchestra-portal", daemon=True)
        self._threads.append(thread)
        thread.start()


def _run_there(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop that another thread runs."""
    context = contextvars.copy_context()
    done: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        tasks.append(loop.create_task(coroutine, context=context))
        tasks[0].add_done_callback(lambda task: _hand_over(task, done))

    loop.call_soon_threadsafe(begin)
    try:
        return done.result()
    except (KeyboardInterrupt, SystemExit):
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
        raise


def _hand_over(task: asyncio.Task[T], done: Future[T]) -> None:
    if task.cancelled():
        done.cancel()
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


def _end(loop: asyncio.AbstractEventLoop, threads: list[threading.Thread]) -> None:
    """Stop the thread that runs the loop, if there is one, and close it; from that thread neither can be done."""
    if threading.current_thread() in threads:
        return
    while threads:
        loop.call_soon_threadsafe(loop.stop)
        threads.pop().join(timeout=5.0)
    if not loop.is_running():
        loop.close()
