"""The reward of the paper (arXiv 2511.21689, section 3.2), to the letter.

Its faults are kept, so that it can be compared with: three calls of a preferred tool earn more than one, a failed run
that is very dear squeezes the differences of all others, noise counts as much as a real difference where routes are
alike, and there is no way to say that a tool is unwanted. `guarded` has none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from orchestra_graph.preferences import Preferences
from orchestra_training.reward.measures import Measures
from orchestra_training.reward.normalise import normalised


def paper(group: Sequence[Measures], preferences: Preferences) -> list[float]:
    """Equation (2): `M_norm . P` of each solved run, 0 of the others.

    M is `[m_1, ..., m_n, r_outcome, r_compute, r_latency]`: calls of each tool, 1 for a solved run, minus its dollars,
    minus its wall-clock seconds. Each element is min-max normalised over all runs of the group, also over those that
    never used the tool; an element that is the same in all runs is 0. P is the preferences' weights in the same order.

    Args:
        group: Runs that are compared with each other.
        preferences: Theirs; `avoid` has no place in P.

    Returns:
        One reward a run, from 0 to the sum of the weights.

    By hand, with P = [search 0.5, outcome 1, compute 0.4, latency 0.1]:

        run  search  outcome  dollars  seconds  M_norm                R
        a    1       1        0.04     30       1/3, 1, 0.75, 0.75    0.5/3 + 1 + 0.3 + 0.075 = 1.5417
        b    3       1        0.10     20       1,   1, 0,    1       0.5   + 1 + 0   + 0.1   = 1.6
        c    0       0        0.02     60       0,   0, 1,    0       0: not solved

    >>> preferences = Preferences(accuracy=1, cost=0.4, latency=0.1, prefer={"search": 0.5})
    >>> a = Measures(solved=True, earned=True, chosen={"search": 1}, dollars=0.04, wall_seconds=30)
    >>> b = Measures(solved=True, earned=True, chosen={"search": 3}, dollars=0.10, wall_seconds=20)
    >>> c = Measures(solved=False, earned=False, dollars=0.02, wall_seconds=60)
    >>> [round(reward, 4) for reward in paper([a, b, c], preferences)]
    [1.5417, 1.6, 0.0]
    """
    weighted: list[tuple[float, list[float]]] = [
        *((weight, [float(run.chosen.get(tool, 0)) for run in group]) for tool, weight in preferences.prefer.items()),
        (preferences.accuracy, [float(run.earned) for run in group]),
        (preferences.cost, [-run.dollars for run in group]),
        (preferences.latency, [-run.wall_seconds for run in group]),
    ]
    elements = [(weight, normalised(values)) for weight, values in weighted]
    return [
        fsum(weight * values[n] for weight, values in elements) if run.earned else 0.0 for n, run in enumerate(group)
    ]
