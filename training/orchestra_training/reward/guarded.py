"""The reward of our recipes: the paper's, without the faults that `orchestra_training.reward.paper` lists."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Final

from orchestra_graph.preferences import Preferences
from orchestra_training.reward.measures import Measures
from orchestra_training.reward.normalise import normalised

COST_FLOOR: Final = 0.01
"""Dollars whose range is under this share of the largest count as equal."""
LATENCY_FLOOR: Final = 0.05
"""Seconds whose range is under this share of the largest count as equal: clocks are less exact than bills."""


def guarded(group: Sequence[Measures], preferences: Preferences) -> list[float]:
    """Weights times elements of each solved run, 0 of the others.

    - A preferred tool counts once: min(calls, 1).
    - An avoided tool has an element of its own: 1 where nobody called it, the policy or others.
    - Latency is seconds of work.
    - Elements are min-max normalised over the solved runs of the group, and 0 where they are equal. Dollars and seconds
      also count as equal where their range is noise: `COST_FLOOR`, `LATENCY_FLOOR`.
    - The outcome is 1: it is the same in all solved runs, and lifts each of them above the failed ones.

    Args:
        group: Runs that are compared with each other.
        preferences: Theirs.

    Returns:
        One reward a run, from 0 to the sum of the weights.

    By hand, with weights outcome 1, cost 0.4, latency 0.1, prefer search 0.5, avoid large 0.2. Over the solved runs
    dollars go from 0.04 to 0.10, and seconds from 59 to 60, which is noise:

        run  search  large  solved  dollars  seconds  elements                         R
        a    1       0      yes     0.04     60       search 1, not large 1, cost 1    1 + 0.5 + 0.2 + 0.4 = 2.1
        b    3       1      yes     0.10     59       search 1, not large 0, cost 0    1 + 0.5             = 1.5
        c    0       1      yes     0.07     60       search 0, not large 0, cost 0.5  1 + 0.2             = 1.2
        d    0       9      no      5.00     900                                       0: not solved

    >>> preferences = Preferences(accuracy=1, cost=0.4, latency=0.1, prefer={"search": 0.5}, avoid={"large": 0.2})
    >>> def run(search, large, solved, dollars, seconds):
    ...     calls = {"search": search, "large": large}
    ...     return Measures(
    ...         solved=solved, earned=solved, calls=calls, chosen=calls, dollars=dollars, seconds=seconds
    ...     )
    >>> group = [run(1, 0, True, 0.04, 60), run(3, 1, True, 0.10, 59), run(0, 1, True, 0.07, 60)]
    >>> [round(reward, 4) for reward in guarded([*group, run(0, 9, False, 5.0, 900)], preferences)]
    [2.1, 1.5, 1.2, 0.0]
    """
    solved = [run for run in group if run.earned]
    elements = [
        *(
            (weight, normalised([min(run.chosen.get(tool, 0), 1) for run in solved]))
            for tool, weight in preferences.prefer.items()
        ),
        (preferences.accuracy, [1.0] * len(solved)),
        (preferences.cost, normalised([-run.dollars for run in solved], floor=COST_FLOOR)),
        (preferences.latency, normalised([-run.seconds for run in solved], floor=LATENCY_FLOOR)),
        *(
            (weight, normalised([float(run.calls.get(tool, 0) == 0) for run in solved]))
            for tool, weight in preferences.avoid.items()
        ),
    ]
    rewards = iter([fsum(weight * values[n] for weight, values in elements) for n in range(len(solved))])
    return [next(rewards) if run.earned else 0.0 for run in group]
