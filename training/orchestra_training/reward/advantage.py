"""How much better a run is than the others of its group."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal


def advantages(rewards: Sequence[float], *, scale_rewards: Literal["group", "none"] = "group") -> list[float]:
    """Equation (3) of the paper: `(R - mean) / std` over the group; 0 for all where all rewards are equal.

    Args:
        rewards: Of one group.
        scale_rewards: `group` divides by the sample standard deviation, as the paper does; `none` does not divide, so
            that a strong preference stays stronger than a weak one.

    >>> advantages([1.0, 2.0, 3.0])
    [-1.0, 0.0, 1.0]
    >>> advantages([1.0, 2.0, 6.0], scale_rewards="none")
    [-2.0, -1.0, 3.0]
    >>> advantages([0.7, 0.7])
    [0.0, 0.0]
    """
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    scale = statistics.stdev(rewards) if scale_rewards == "group" else 1.0
    return [(reward - mean) / scale for reward in rewards]
