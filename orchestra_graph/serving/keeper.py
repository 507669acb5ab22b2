"""Runs a server on a leash: when the leash is let go, the server and everything it started are gone.

    python keeper.py GRACE_SECONDS PROGRAM [ARGUMENT ...]

The leash is standard input, a pipe that nothing is written to. It closes when its owner closes it or ends, by whatever
signal. Then the server gets SIGTERM, and after the grace SIGKILL. Its descendants are adopted when their own parents
end (PR_SET_CHILD_SUBREAPER), also those that left its session, and killed; the keeper ends when none is left, with the
server's exit code (128 + n after signal n).

This is a program of its own, started by its path: it imports nothing but the standard library. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LAST_WAIT: Final = 10.0
"""Seconds that killed processes may take to go; one that waits for a device may never."""


def main(grace: float, command: list[str]) -> int:
    """Run the command until it ends or the leash is let go; the exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # Should the keeper be killed, the server goes at once; who holds the leash sees to the rest.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    code = _wait(server.pid, wake, grace)
    return _end_all(server.pid, code)


def _wait(server: int, wake: int, grace: float) -> int | None:
    """Wait for the server's end, or ask it to end; None when it is still there after the grace."""
    deadline: float | None = None
    watched = [wake, 0]
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], left)
        signals = os.read(wake, 4096) if wake in ready else b""
        code = _reap(server)
        if code is not None:
            return code
        let_go = 0 in ready and not os.read(0, 4096)
        asked = any(number != signal.SIGCHLD for number in signals)
        if let_go:
            watched = [wake]
        if deadline is None and (let_go or asked):
            os.kill(server, signal.SIGTERM)
            deadline = time.monotonic() + grace
        elif deadline is not None and time.monotonic() >= deadline:
            return None


def _reap(server: int) -> int | None:
    """Take leave of all that have ended; the server's exit code if it is among them."""
    code = None
    for pid, status in _ended():
        if pid == server:
            code = os.waitstatus_to_exitcode(status)
    return code


def _ended() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # nobody is left
            return
        if pid == 0:
            return
        yield pid, status


def _end_all(server: int, code: int | None) -> int:
    """Kill whoever is left, again and again: orphans of the killed become children of this process."""
    deadline = time.monotonic() + _LAST_WAIT
    while (left := _children()) and time.monotonic() < deadline:
        for pid in left:
            os.kill(pid, signal.SIGKILL)  # a child that has ended keeps its id until it is reaped
        time.sleep(0.01)
        reaped = _reap(server)
        code = reaped if code is None else code
    if left:
        print(f"killed, but not gone: {', '.join(map(str, left))}", file=sys.stderr)
    return 1 if code is None else code if code >= 0 else 128 - code


def _children() -> list[int]:
    with open("/proc/thread-self/children") as file:
        return [int(pid) for pid in file.read().split()]


if __name__ == "__main__":
    ended_with = main(float(sys.argv[1]), sys.argv[2:])
    sys.stderr.flush()
    # Not `sys.exit`: Python takes the handlers away on its way out, and a second SIGTERM would be the exit code.
    os._exit(ended_with)
