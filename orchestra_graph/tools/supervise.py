"""Runs one program under watch: wall time, memory of its whole process tree, length of its output.

Knows nothing of isolation; `orchestra_graph.tools.sandbox` decides what the program can reach. For Linux: it reads
`/proc` and waits on process descriptors.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from queue import SimpleQueue
from typing import IO, Any

_POLL = 0.05
"""Seconds between two looks at the memory."""
_GRACE = 5.0
"""Seconds to wait for the pipes of a killed program to close."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Execution:
    """What running a program brought."""

    stdout: str
    stderr: str
    exit_code: int | None
    """128 + n after signal n; None when the sandbox ended it."""
    timed_out: bool = False
    truncated: bool = False
    """Whether output was cut at the limit."""
    seconds: float = 0.0
    """Wall seconds."""
    stopped: str = ""
    """Why the sandbox ended the program or cut its output; empty when it did neither."""

    @property
    def text(self) -> str:
        """What a router should read: the output, and what went wrong if anything did."""
        parts = [self.stdout.rstrip("\n")]
        if self.stderr.strip():
            parts.append("[stderr]\n" + self.stderr.rstrip("\n"))
        if self.exit_code:
            parts.append(f"[exit code {self.exit_code}{_signal_name(self.exit_code)}]")
        if self.stopped:
            parts.append(f"[{self.stopped}]")
        return "\n".join(part for part in parts if part) or "(no output)"


async def supervise(
    argv: Sequence[str],
    *,
    timeout: float,
    memory_mb: int,
    output_kb: int,
    stdin: str = "",
    pass_fds: Sequence[int] = (),
    cwd: str | None = None,
    check: Callable[[list[int]], str] = lambda pids: "",
) -> Execution:
    """Run a program with an empty environment in a session of its own; nothing of its session outlives the call.

    Args:
        argv: Absolute path of the program, and its arguments.
        timeout: Wall seconds after which everything is killed.
        memory_mb: Resident megabytes of the whole process tree at which everything is killed.
        output_kb: Kilobytes of each output stream at which everything is killed.
        stdin: Text on its standard input.
        pass_fds: File descriptors that it inherits.
        cwd: Its working directory.
        check: Called with the ids of all its processes about 20 times a second; a text that it returns ends the
            program, and becomes `Execution.stopped`.
    """
    started = time.monotonic()
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with _capture(output_kb, stop) as out, _capture(output_kb, stop) as err:
        with temporary(stdin) as given:
            process = await _start(argv, given, out, err, pass_fds=pass_fds, cwd=cwd)
        watch = asyncio.ensure_future(_watch(process.pid, memory_mb, check, stop))
        ended = asyncio.ensure_future(_wait(process))
        try:
            running: set[asyncio.Future[Any]] = {ended, stop, watch}
            await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finished = ended.done()
            if watch.done():
                watch.result()
        finally:
            watch.cancel()
            _kill(process.pid)
            await ended
            await asyncio.wait({out.closed, err.closed}, timeout=_GRACE)
    timed_out = not finished and not stop.done()
    return Execution(
        stdout=out.text,
        stderr=err.text,
        exit_code=_exit_code(process.returncode) if finished else None,
        timed_out=timed_out,
        truncated=out.truncated or err.truncated,
        seconds=time.monotonic() - started,
        stopped=f"stopped after {timeout:g} s" if timed_out else stop.result() if stop.done() else "",
    )


class _Capture(asyncio.Protocol):
    """Keeps the head of a stream; what goes beyond the limit is dropped and tells `stop`."""

    def __init__(self, limit_kb: int, stop: asyncio.Future[str], writer: int) -> None:
        self.writer = writer
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.truncated = False
        self._limit_kb = limit_kb
        self._stop = stop
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        room = self._limit_kb * 1024 - len(self._data)
        self._data += data[:room]
        if len(data) > room:
            self.truncated = True
            _tell(self._stop, f"output cut at {self._limit_kb} KB")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace")


@asynccontextmanager
async def _capture(limit_kb: int, stop: asyncio.Future[str]) -> AsyncIterator[_Capture]:
    reader, writer = os.pipe()
    capture = _Capture(limit_kb, stop, writer)
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.connect_read_pipe(lambda: capture, open(reader, "rb", buffering=0))
        try:
            yield capture
        finally:
            transport.close()
            await asyncio.wait({capture.closed})
    finally:
        capture.close_writer()


async def _start(
    argv: Sequence[str],
    stdin: IO[bytes],
    out: _Capture,
    err: _Capture,
    *,
    pass_fds: Sequence[int],
    cwd: str | None,
) -> subprocess.Popen[bytes]:
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=out.writer,
            stderr=err.writer,
            env={},
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )

    started: Future[subprocess.Popen[bytes]] = Future()
    _starter().put((start, started))
    spawn = asyncio.wrap_future(started)
    try:
        process = await asyncio.shield(spawn)
    except asyncio.CancelledError:
        process = await spawn
        _kill(process.pid)
        await _wait(process)
        raise
    out.close_writer()
    err.close_writer()
    return process


async def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process without a thread."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


@cache
def _starter() -> SimpleQueue[tuple[Callable[[], Any], Future[Any]]]:
    """A thread for starting programs that lives as long as this process; whatever is put into its queue is called.

    A program that is to die with its parent (`PR_SET_PDEATHSIG`) dies with the thread that started it. An executor's
    thread would end with the main one, while other threads may go on.
    """
    wanted: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
    threading.Thread(target=_call_all, args=(wanted,), name="orchestra-start", daemon=True).start()
    return wanted


os.register_at_fork(after_in_child=_starter.cache_clear)


def _call_all(wanted: SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
    while True:
        start, started = wanted.get()
        if started.set_running_or_notify_cancel():
            try:
                started.set_result(start())
            except Exception as error:  # for whoever asked
                started.set_exception(error)


async def _watch(pid: int, memory_mb: int, check: Callable[[list[int]], str], stop: asyncio.Future[str]) -> None:
    while not stop.done():
        pids = list(_tree(pid))
        # the quick figure counts shared pages in each process, the exact one takes longer
        if _resident(pids) > memory_mb * 2**20 and _proportional(pids) > memory_mb * 2**20:
            _tell(stop, f"killed: memory limit {memory_mb} MB")
        if reason := check(pids):
            _tell(stop, reason)
        await asyncio.sleep(_POLL)


def _tell(stop: asyncio.Future[str], reason: str) -> None:
    if not stop.done():
        stop.set_result(reason)


def _tree(root: int) -> Iterator[int]:
    """A process and its descendants; those that end meanwhile are left out."""
    todo = [root]
    while todo:
        pid = todo.pop()
        yield pid
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    todo += map(int, file.read().split())


def _resident(pids: Sequence[int]) -> int:
    return sum(_resident_of(pid) for pid in pids)


def _resident_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):  # it ended meanwhile
        return 0


def _proportional(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration):
            total += _resident_of(pid)
    return total


def _kill(pid: int) -> None:
    """Kill the session's process group at once, so that no fork slips through, and what left the group after it."""
    left = list(_tree(pid))
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for other in left[1:]:
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGKILL)


@contextmanager
def temporary(text: str) -> Iterator[IO[bytes]]:
    """An unnamed file that holds a text; a lone surrogate, which UTF-8 cannot hold, stays for the reader to refuse."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode(errors="surrogatepass"))
        file.seek(0)
        yield file


def _exit_code(code: int | None) -> int | None:
    return 128 - code if code is not None and code < 0 else code


def _signal_name(code: int) -> str:
    try:
        return f", {signal.Signals(code - 128).name}"
    except ValueError:
        return ""
