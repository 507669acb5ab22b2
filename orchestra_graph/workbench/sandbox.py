"""Where the workbench's programs run: experts' code, and the answers to programming tasks under their tests."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import cache
from typing import Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.sandbox import Bubblewrap, Execution, Sandbox, Subprocess

_log = logging.getLogger("orchestra_graph")

REMEMBERED: Final = 1024
"""Programs whose executions are kept."""

_SIGNALS: Final = 128
"""Exit codes from here on tell of a signal."""


class Remembered:
    """A sandbox in front of another one: the same program on the same input runs once.

    For programs that do the same whenever they run, as those of the workbench do: a group of rollouts of one task, or
    several routers on it, have them run again and again. What was stopped or killed is not kept: a busy machine may
    have been the reason.
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
        if not execution.stopped and execution.exit_code in range(_SIGNALS):
            self._ended[code, stdin] = execution
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return execution


@cache
def shared_sandbox() -> Sandbox:
    """The one of all worlds of this process."""
    # The workbench's own experts write what runs here, so a plain subprocess will do where bubblewrap cannot start. An
    # answer that is judged may be another's, see `warn_of_answers`.
    try:
        return Remembered(Bubblewrap())
    except ConfigError:
        return Remembered(Subprocess(trusted=True))


@cache
def warn_of_answers() -> None:
    """Say, once, that answers are run to judge them, whoever wrote them, where there is no sandbox for it."""
    try:
        Bubblewrap()
    except ConfigError as error:
        _log.warning("answers to programming tasks are run without a sandbox, to judge them (%s)", error)
