"""The reward that grades dollars and seconds by how much less they are, not by their place in the group."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from statistics import fmean

from orchestra_graph.preferences import Preferences, thrift
from orchestra_training.reward.measures import Measures


def proportional(group: Sequence[Measures], preferences: Preferences) -> list[float]:
    """Weights times elements of each solved run, over the sum of the weights; 0 of the others.

    Min-max normalisation makes the dearest of two runs earn nothing for its dollars and the other all of them, whether
    it is dearer by a tenth or a hundred times; a policy then fails tasks to save a tenth. Here an element is
    `M_0 / (M_0 + M)`, with M_0 the mean over the solved runs of the group: 0.5 for a run like the others, and nearly
    that for one that is a tenth dearer. A preferred tool that the policy called counts 1, so does an avoided one that
    nobody called, and the outcome. It is `orchestra_training.evaluate.score.utility`, with the group as reference.

    Args:
        group: Runs that are compared with each other.
        preferences: Theirs.

    Returns:
        One reward a run, from 0 to 1.

    By hand, with weights outcome 1, cost 0.5, latency 0.5, and means of $0.04 and 20 s over the solved runs:

        run  solved  dollars  seconds  cost              latency     R
        a    yes     0.02     20       4 / 6 = 2/3       20/40 = 1/2 (1 + 1/3 + 1/4) / 2 = 0.7917
        b    yes     0.06     20       4 / 10 = 2/5      1/2         (1 + 1/5 + 1/4) / 2 = 0.725
        c    no      0.01     1                                      0: not solved

    >>> preferences = Preferences(accuracy=1, cost=0.5, latency=0.5)
    >>> def run(solved, dollars, seconds):
    ...     return Measures(solved=solved, earned=solved, dollars=dollars, seconds=seconds)
    >>> group = [run(True, 0.02, 20), run(True, 0.06, 20), run(False, 0.01, 1)]
    >>> [round(reward, 4) for reward in proportional(group, preferences)]
    [0.7917, 0.725, 0.0]
    """
    solved = [run for run in group if run.earned]
    if not solved:
        return [0.0] * len(group)
    dollars, seconds = fmean(run.dollars for run in solved), fmean(run.seconds for run in solved)

    def earned(run: Measures) -> float:
        parts = [
            *((weight, float(run.chosen.get(tool, 0) > 0)) for tool, weight in preferences.prefer.items()),
            (preferences.accuracy, 1.0),
            (preferences.cost, thrift(dollars, run.dollars)),
            (preferences.latency, thrift(seconds, run.seconds)),
            *((weight, float(run.calls.get(tool, 0) == 0)) for tool, weight in preferences.avoid.items()),
        ]
        whole = fsum(weight for weight, _ in parts)
        return fsum(weight * element for weight, element in parts) / whole if whole else 1.0

    return [earned(run) if run.earned else 0.0 for run in group]
