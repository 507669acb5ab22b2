"""Time limits: the same as `asyncio.timeout`, with one timer a loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from orchestra_graph.deadlines import TimeLimitError, within


async def after(seconds: float, result: str = "done") -> str:
    await asyncio.sleep(seconds)
    return result


async def test_result_in_time() -> None:
    assert await within(5.0, lambda: after(0.01)) == "done"
    assert await within(float("inf"), lambda: after(0.0)) == "done"


async def test_late_call_is_cancelled_and_says_how_long_was_waited() -> None:
    started = time.perf_counter()
    with pytest.raises(TimeLimitError, match=r"no reply within 0\.05 s") as caught:
        await within(0.05, lambda: after(30))
    assert caught.value.retryable
    assert time.perf_counter() - started < 5
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # no cancellation is left behind


async def test_no_time_at_all() -> None:
    with pytest.raises(TimeLimitError):
        await within(0.0, lambda: after(30))


async def test_shorter_limit_behind_a_longer_one() -> None:
    longer = asyncio.create_task(within(20.0, lambda: after(0.2, "longer")))
    await asyncio.sleep(0)
    with pytest.raises(TimeLimitError):
        await within(0.05, lambda: after(30))
    assert await longer == "longer"


async def test_many_limits_end_in_their_order() -> None:
    ended: list[float] = []

    async def one(seconds: float) -> None:
        with pytest.raises(TimeLimitError):
            await within(seconds, lambda: after(30))
        ended.append(seconds)

    limits = [0.25, 0.05, 0.15, 0.1, 0.2]
    await asyncio.gather(*map(one, limits))
    assert ended == sorted(limits)


async def test_nested_limits_fire_the_inner_one_alone() -> None:
    async def outer() -> str:
        with pytest.raises(TimeLimitError, match=r"0\.05"):
            await within(0.05, lambda: after(30))
        return "went on"

    assert await within(5.0, outer) == "went on"


async def test_outer_limit_passes_through_the_inner_one() -> None:
    with pytest.raises(TimeLimitError, match=r"0\.05"):
        await within(0.05, lambda: within(20.0, lambda: after(30)))


async def test_cancellation_from_elsewhere_passes_through() -> None:
    task = asyncio.create_task(within(20.0, lambda: after(30)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_timeout_inside_is_not_taken_for_this_one() -> None:
    async def inner() -> None:
        async with asyncio.timeout(0.02):
            await asyncio.sleep(30)

    with pytest.raises(TimeoutError) as caught:
        await within(20.0, inner)
    assert not isinstance(caught.value, TimeLimitError)


def test_each_loop_has_its_own_timer() -> None:
    for _ in range(3):
        assert asyncio.run(within(20.0, lambda: after(0.0))) == "done"
        with pytest.raises(TimeLimitError):
            asyncio.run(within(0.02, lambda: after(30)))
