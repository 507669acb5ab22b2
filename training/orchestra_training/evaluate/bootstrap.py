"""How sure a mean is: a bootstrap over tasks and seeds, paired on the same tasks and seeds.

Tasks are drawn with replacement, the same draws for every router, so that differences are paired. A router's members,
for example its training seeds, are drawn as well, the same draws for routers with as many: the n-th member of a router
goes with the n-th of another, as a router before and after a training does. Every figure is a ratio of sums over the
drawn runs, a mean among them. Bounds are percentiles (Efron).

    boot = Bootstrap(units=2000)
    tiny, rules = boot.ratios({"success": (solved, ones)}), boot.ratios({"success": (solved_by_rules, ones)})
    (tiny["success"] - rules["success"]).estimate    # value, low, high: better where low > 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 2000
LEVEL: Final = 0.95
"""Share of the draws between the bounds; each bound by itself holds at 97.5%."""

Table = NDArray[np.float64]
"""Sums a unit and member: `[units, members]`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its bounds."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Plain JSON values; what cannot be told is null."""
        return {name: _number(getattr(self, name)) for name in ("value", "low", "high")}


@dataclass(frozen=True, slots=True)
class Draws:
    """A figure as it is, and as the draws have it."""

    value: float
    draws: Table
    """One a draw."""

    def __sub__(self, other: Draws) -> Draws:
        return Draws(self.value - other.value, self.draws - other.draws)

    def __truediv__(self, other: Draws) -> Draws:
        with np.errstate(divide="ignore", invalid="ignore"):
            return Draws(float(np.float64(self.value) / other.value), self.draws / other.draws)

    @property
    def estimate(self) -> Estimate:
        """Value and bounds; bounds of a figure that some draws do not have are those of the others."""
        known = self.draws[np.isfinite(self.draws)]
        if not known.size:
            return Estimate(self.value, float("nan"), float("nan"))
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(self.value, float(low), float(high))


class Bootstrap:
    """Draws of units, shared by all routers, and of members, shared by those that have as many.

    Args:
        units: Number of tasks.
        draws: Number of draws.
        seed: The same seed gives the same draws.
    """

    def __init__(self, *, units: int, draws: int = DRAWS, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        even = np.full(units, 1 / units)
        self._weights: Table = self._rng.multinomial(units, even, size=draws).astype(np.float64)
        self._members: dict[int, NDArray[np.int64]] = {}

    def ratios(self, sums: Mapping[str, tuple[Table, Table]]) -> dict[str, Draws]:
        """Ratios of sums, for example solved runs by runs, of one router.

        Args:
            sums: By name, what is summed above the line and below it.
        """
        if not sums:
            return {}
        members = next(iter(sums.values()))[0].shape[1]
        drawn = self._members.get(members)
        if drawn is None:
            drawn = self._rng.multinomial(members, np.full(members, 1 / members), size=len(self._weights))
            self._members[members] = drawn
        columns = np.hstack([table for pair in sums.values() for table in pair])
        totals = (self._weights @ columns).reshape(len(drawn), len(sums), 2, members) * drawn[:, None, None, :]
        above, below = np.moveaxis(totals.sum(-1), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = above / below
            return {
                name: Draws(float(up.sum() / down.sum()), draws[:, place])
                for place, (name, (up, down)) in enumerate(sums.items())
            }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
