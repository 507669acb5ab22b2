"""What is kept for a while is forgotten in order, whatever other threads store meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestra_graph.kept import oldest


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_the_first_is_the_oldest() -> None:
    assert oldest({"b": 1, "a": 2}) == "b"


def test_threads_may_store_and_forget_at_once(impatient: None) -> None:
    kept: dict[str, int] = {}

    def work(thread: int) -> None:
        for n in range(5_000):
            while len(kept) >= 50:
                kept.pop(oldest(kept), None)
            kept[f"{thread}-{n}"] = n

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert 0 < len(kept) < 60
