"""What exists in one run: the knowledge base that all runs share, and the customer records that are the run's own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.sandbox import Bubblewrap, Execution, Sandbox, Subprocess
from orchestra_graph.workbench.database import Database
from orchestra_graph.workbench.knowledge import KnowledgeBase

REMEMBERED: Final = 1024
"""Programs whose executions are kept."""


@dataclass
class World:
    """One run's world; open a fresh one for every run."""

    seed: int
    """The task's seed: gives the customer records."""
    knowledge: KnowledgeBase
    """Shared by all runs of a workbench; nothing changes it."""

    @cached_property
    def database(self) -> Database:
        """This run's own customer records, as they were at first until a tool changes them."""
        return Database(self.seed)

    @property
    def sandbox(self) -> Sandbox:
        """Runs hidden tests and experts' code."""
        return _sandbox()


class Remembered:
    """A sandbox in front of another one: the same program on the same input runs once.

    For programs that do the same whenever they run, as those of the workbench do: a group of rollouts of one task, or
    several routers on it, have them run again and again. What was stopped is not kept: a busy machine may have been
    the reason.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._ended: OrderedDict[tuple[str, str], Execution] = OrderedDict()
        self._running: dict[tuple[object, ...], asyncio.Task[Execution]] = {}

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        """Run a program, or tell how it ended before; see `Sandbox.run`."""
        known = self._ended.get((code, stdin))
        if known is not None:
            return known
        # Tasks belong to their loop. Whoever is cancelled leaves the others their execution.
        asked = (asyncio.get_running_loop(), code, stdin, timeout)
        if asked not in self._running:
            self._running[asked] = asyncio.create_task(self._run(code, timeout, stdin))
            self._running[asked].add_done_callback(lambda _: self._running.pop(asked))
        return await asyncio.shield(self._running[asked])

    async def _run(self, code: str, timeout: float, stdin: str) -> Execution:
        execution = await self._sandbox.run(code, timeout=timeout, stdin=stdin)
        if not execution.stopped:
            self._ended[code, stdin] = execution
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return execution


@cache
def _sandbox() -> Sandbox:
    # Every program that runs here is written by the workbench itself, so a plain subprocess will do where bubblewrap
    # cannot start.
    try:
        return Remembered(Bubblewrap())
    except ConfigError:
        return Remembered(Subprocess(trusted=True))
