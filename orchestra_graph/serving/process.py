"""A model server as a child process: started, waited for, stopped with everything that it started.

    async with Server(command.argv(), command.address, log=Path("server.log")) as server:
        await server.wait_healthy(timeout=600)
        ...

The server's output goes to the log. It runs in a session of its own under `keeper.py`, which ends it and all its
descendants when `stop` is called, and as well when this process ends without calling it. Linux only.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

import httpx

from orchestra_graph.errors import ConfigError, ServerError
from orchestra_graph.serving import keeper
from orchestra_graph.serving.metrics import Load, read_metrics

GRACE: Final = 20.0
"""Seconds between SIGTERM and SIGKILL."""

_POLL: Final = 0.25
_PATIENCE: Final = 5.0
"""Seconds that a health check may take."""
_TAIL: Final = 262_144
"""Bytes of the log in which a reason is looked for."""

_REASON: Final = re.compile(r"(?:.*?[\])>] )?((?:[\w.]*(?:Error|Exception)|\S+: error): \S.*)")
"""The line with which a traceback ends, or a command line is refused, behind whatever a logger puts before it."""
_LISTS: Final = re.compile(r"validation errors? for \w+$")
"""What pydantic lists begins on the next line."""
_LOGGER: Final = re.compile(r"^\(\w+ pid=\d+\) ")
_COLOUR: Final = re.compile(r"\x1b(\[[0-9;]*[A-Za-z])?")
_FOLLOWS: Final = (
    "Engine core initialization failed",
    "Engine process failed to start",
    "EngineCore encountered an issue",
)
"""Texts of errors that only say that another one came before."""


class Server:
    """One server process.

    Args:
        command: Program and arguments.
        address: Where it will answer, without `/v1`, for example `http://127.0.0.1:8000`.
        log: File that its output is appended to.
        grace: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, command: Sequence[str], address: str, *, log: Path, grace: float = GRACE) -> None:
        self.command = list(command)
        self.address = address.rstrip("/")
        self.log = log
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._leash: int | None = None
        self._log_start = 0
        self._http: httpx.AsyncClient | None = None

    @property
    def base_url(self) -> str:
        """Where its OpenAI API is."""
        return f"{self.address}/v1"

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n after signal n."""
        code = None if self._process is None else self._process.returncode
        return 128 - code if code is not None and code < 0 else code

    async def start(self) -> None:
        """Start the process; it is not healthy yet.

        Raises:
            ConfigError: The log cannot be written, or this is not Linux.
        """
        if sys.platform != "linux":
            raise ConfigError(
                f"serving runs on Linux only, and this is {sys.platform}; start the server by its own means"
            )
        await self.stop()
        leash, self._leash = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", keeper.__file__, str(self._grace), *self.command),
                    stdin=leash,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal is not for it
                )
        except OSError as error:
            self._let_go()
            raise ConfigError(f"log {self.log} cannot be written: {error.strerror}; choose another file") from error
        finally:
            os.close(leash)
        self._http = httpx.AsyncClient(base_url=self.address, timeout=_PATIENCE, trust_env=False)

    async def wait_healthy(self, timeout: float, on_line: Callable[[str], None] = lambda line: None) -> None:
        """Wait until `/health` answers.

        Args:
            timeout: Seconds.
            on_line: Is told the newest line of the log as it changes.

        Raises:
            ServerError: The server ended, or was not healthy in time.
        """
        deadline = time.monotonic() + timeout
        said = ""
        while not await self.healthy():
            if self.exit_code is not None:
                raise ServerError(f"the server ended with exit code {self.exit_code} before it was ready: {self.why()}")
            if time.monotonic() >= deadline:
                raise ServerError(
                    f"the server was not ready within {timeout:g} s; it said last: {self._last_line() or '(nothing)'}; "
                    f"full log: {self.log}; allow it more time with --timeout"
                )
            line = self._last_line()
            if line and line != said:
                said = line
                on_line(line)
            await asyncio.sleep(_POLL)

    async def healthy(self) -> bool:
        """Whether it runs and answers `/health`."""
        if self._http is None or self.exit_code is not None:
            return False
        try:
            answer = await self._http.get("/health")
        except httpx.TransportError:
            return False
        return answer.is_success and self.exit_code is None

    async def load(self) -> Load | None:
        """What it tells at `/metrics`; None when it does not."""
        if self._http is None:
            return None
        try:
            answer = await self._http.get("/metrics")
            return Load.of(read_metrics(answer.text)) if answer.is_success else None
        except (httpx.TransportError, KeyError):
            return None

    async def wait(self) -> int:
        """Wait until it ends by itself; its exit code.

        Raises:
            ConfigError: It was not started.
        """
        if self._process is None:
            raise ConfigError("the server was not started; call start() first")
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def stop(self) -> None:
        """End it and all its descendants: SIGTERM, then SIGKILL after the grace. Returns when they are gone."""
        self._let_go()
        process, http, self._http = self._process, self._http, None
        if process is not None:
            if process.returncode is None:
                # Children of this process that were forked hold the leash, too. Not `terminate`, which asks whether it
                # has ended, and takes the exit code from whoever waits for it.
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
            await process.wait()
            if process.returncode != 0:
                # A keeper that was itself killed has left its session behind.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if http is not None:
            await http.aclose()

    def why(self) -> str:
        """What the log says on the server's end, in one line, with the log's name."""
        lines = [" ".join(_LOGGER.sub("", line).split()) for line in self._tail().splitlines()]
        return f"{_reason(lines) or _last(lines) or 'it said nothing'}; full log: {self.log}"

    def _last_line(self) -> str:
        return _last(self._tail().splitlines())

    def _tail(self) -> str:
        """The end of what this start has written."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _TAIL))
            return _COLOUR.sub("", file.read().decode(errors="replace"))

    def _let_go(self) -> None:
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None

    async def __aenter__(self) -> Server:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        await self.stop()


def _reason(lines: list[str]) -> str:
    """The last error that is not about another one; empty where there is none. Earlier ones may have been mended."""
    for place in range(len(lines) - 1, -1, -1):
        found = _REASON.fullmatch(lines[place])
        if found and not any(known in lines[place] for known in _FOLLOWS):
            listed = lines[place + 1 : place + 2] if _LISTS.search(lines[place]) else []
            return ": ".join([found[1], *listed])
    return ""


def _last(lines: list[str]) -> str:
    return next((shown for line in reversed(lines) if (shown := " ".join(line.split()))), "")
