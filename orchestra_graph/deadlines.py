"""Time limits for many short calls at once.

`asyncio.timeout` sets and cancels a timer of the event loop for every call, and cancelled timers make every pass of the
loop dearer: together 3% of what a turn costs. Here a loop has one timer, for the earliest deadline; calls that end in
time never touch it. What happens at a deadline is the same: the call is cancelled, and an error says that its time was
up; a cancellation from elsewhere passes through.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestra_graph.errors import ToolError

T = TypeVar("T")


class TimeLimitError(ToolError):
    """One try took longer than the tool's limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no reply within {seconds:g} s", retryable=True)


async def within(seconds: float, request: Callable[[], Awaitable[T]]) -> T:
    """Await a request for at most so many seconds.

    Raises:
        TimeLimitError: The time is up; the request has been cancelled.
    """
    if math.isinf(seconds):
        return await request()
    task = asyncio.current_task()
    assert task is not None  # a coroutine that is awaited on a loop always has one
    loop = task.get_loop()
    limit = _Limit(task, loop.time() + seconds, task.cancelling())
    alarm = _alarms.get(loop) or _new_alarm(loop)
    alarm.add(limit)
    try:
        return await request()
    except asyncio.CancelledError as error:
        if limit.is_over and task.cancelling() - 1 <= limit.cancelling:
            raise TimeLimitError(seconds) from error
        raise
    finally:
        alarm.remove(limit)
        if limit.is_over:
            task.uncancel()


@dataclass(slots=True, eq=False)
class _Limit:
    """One call that must end."""

    task: asyncio.Task[Any]
    when: float
    """Time of the loop."""
    cancelling: int
    """Cancellations of the task that had been asked for before."""
    is_over: bool = False


class _Alarm:
    """The one timer of a loop."""

    def __init__(self) -> None:
        self._limits: dict[_Limit, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, limit: _Limit) -> None:
        self._limits[limit] = None
        if self._timer is None or limit.when < self._timer.when():
            self._set(limit.when)

    def remove(self, limit: _Limit) -> None:
        del self._limits[limit]

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        """Cancel what is over, and wait for the next deadline."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if limit.when <= now and not limit.is_over:
                limit.is_over = True
                limit.task.cancel()
        pending = [limit.when for limit in self._limits if not limit.is_over]
        if pending:
            self._set(min(pending))


_alarms: dict[asyncio.AbstractEventLoop, _Alarm] = {}


def _new_alarm(loop: asyncio.AbstractEventLoop) -> _Alarm:
    """The alarm of a loop that had none; those of loops that have been closed go."""
    for other in [other for other in list(_alarms) if other.is_closed()]:
        _alarms.pop(other, None)
    alarm = _alarms[loop] = _Alarm()
    return alarm
