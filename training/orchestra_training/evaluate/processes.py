"""Spreads an evaluation over processes: the workbench's experts compute, and Python computes on one core a process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from orchestra_graph.errors import OrchestraError
from orchestra_training.evaluate.play import Job, Stage, play_all
from orchestra_training.evaluate.played import Played

_BATCH: Final = 16
"""Runs that are told at a time."""
_PATIENCE: Final = 1.0
"""Seconds between looks at whether all processes live."""


@dataclass(frozen=True, slots=True)
class _Failed:
    text: str


def play_in_processes(
    make_stage: Callable[[], Stage],
    jobs: Sequence[Job],
    on_run: Callable[[Played], None],
    *,
    workers: int,
    concurrent: int,
) -> None:
    """Play jobs in several processes; with one worker in this one.

    Args:
        make_stage: Called in each process; picklable, as `functools.partial` of a module's function is.
        jobs: What to play; a process gets every `workers`-th.
        on_run: Told of each run, in this process.
        workers: Processes.
        concurrent: Jobs at a time in each process.

    Raises:
        OrchestraError: A run cannot be played, or a process died; runs that have ended are in the log.
    """
    if workers == 1 or len(jobs) <= 1:
        asyncio.run(_all(make_stage(), jobs, on_run, concurrent))
        return
    spawn = multiprocessing.get_context("spawn")
    results: Any = spawn.Queue()
    shares = [list(jobs[start::workers]) for start in range(workers)]
    processes = [
        spawn.Process(target=_work, args=(make_stage, share, results, concurrent), daemon=True)
        for share in shares
        if share
    ]
    with _running(processes):
        going = len(processes)
        while going:
            try:
                told = results.get(timeout=_PATIENCE)
            except queue.Empty:
                _refuse_dead(processes)
                continue
            if isinstance(told, _Failed):
                raise OrchestraError(told.text)
            if told is None:
                going -= 1
            for run in told or ():
                on_run(run)


@contextmanager
def _running(processes: Sequence[SpawnProcess]) -> Iterator[None]:
    """Processes that end with the block, whatever ends it."""
    started: list[SpawnProcess] = []
    try:
        for process in processes:
            process.start()
            started.append(process)
        yield
    except BaseException:
        for process in started:
            process.terminate()
        raise
    finally:
        for process in started:
            process.join()


def _refuse_dead(processes: Sequence[SpawnProcess]) -> None:
    dead = [process.exitcode for process in processes if process.exitcode]
    if dead:
        raise OrchestraError(
            f"a process of the evaluation died with exit code {dead[0]}; the runs that have ended are in the log; "
            "fix: run the command again, perhaps with fewer --workers"
        )


def _work(make_stage: Callable[[], Stage], jobs: Sequence[Job], results: Any, concurrent: int) -> None:
    """A process's part. Whoever interrupts the command interrupts its first process, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    batch: list[Played] = []

    def tell(run: Played) -> None:
        batch.append(run)
        if len(batch) >= _BATCH:
            results.put(batch[:])
            batch.clear()

    try:
        asyncio.run(_all(make_stage(), jobs, tell, concurrent))
    except OrchestraError as error:
        results.put(_Failed(str(error)))
    results.put(batch)
    results.put(None)


def _end_with_parent() -> None:
    """A first process that is killed tells nobody; without this its others would play on, into a log that is left."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


async def _all(stage: Stage, jobs: Sequence[Job], on_run: Callable[[Played], None], concurrent: int) -> None:
    """As `play_all`; what stops it is raised by itself, not in a group."""
    try:
        await play_all(stage, jobs, on_run, concurrent=concurrent)
    except* OrchestraError as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[OrchestraError]) -> OrchestraError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OrchestraError)
    return error
