"""What is kept for a while, in the order in which it was stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")


def oldest(kept: Iterable[K]) -> K:
    """The key that was stored first, of a dictionary in which other threads store too.

    To make a list of the keys is one step of the interpreter; an iterator over the dictionary fails where a thread
    stores before it is asked for the first of them.
    """
    return next(iter(list(kept)))
