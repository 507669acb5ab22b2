"""The cost-quality frontier: the routers that none beats in both."""

from __future__ import annotations

from collections.abc import Mapping


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other point dominates, the cheapest first.

    A point dominates another where it costs no more and is no worse, and differs in one of the two.

    Args:
        points: Cost and quality by name.

    >>> frontier({"small": (1, 0.3), "large": (10, 0.7), "router": (2, 0.8)})
    ['small', 'router']
    """
    best = -float("inf")
    names: list[str] = []
    last: tuple[float, float] | None = None
    for name, (cost, quality) in sorted(points.items(), key=lambda point: (point[1][0], -point[1][1])):
        if quality > best or (cost, quality) == last:
            names.append(name)
            best, last = quality, (cost, quality)
    return names
