"""Min-max normalisation within a group."""

from __future__ import annotations

from collections.abc import Sequence


def normalised(values: Sequence[float], *, floor: float = 0.0) -> list[float]:
    """`(value - min) / (max - min)` of each value, and 0 for all where they count as equal.

    Lowering one value never raises its own element, though it may move the ends of the range: the least value has 0
    already, and has it still when it is lower; the greatest has 1 and cannot have more; one in between, or one that
    becomes the least, comes nearer to the least. Where all count as equal they do so still, or the lowered one is now
    the least. It may raise the others' elements: when the dearest run becomes dearer, the middle ones look cheaper.

    Args:
        values: One a run.
        floor: Values count as equal where their range is under this share of the largest magnitude.

    >>> normalised([-3.0, -2.0, -1.0])
    [0.0, 0.5, 1.0]
    >>> normalised([-100.0, -99.5], floor=0.01)
    [0.0, 0.0]
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high or high - low < floor * max(abs(low), abs(high)):
        return [0.0] * len(values)
    return [(value - low) / (high - low) for value in values]
