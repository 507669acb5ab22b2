"""Joins rankings whose scores cannot be compared, such as BM25 and cosine, by rank alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Final, TypeVar

Id = TypeVar("Id", bound=Hashable)

DAMPING: Final = 60
"""k of the source: how little the very first places count over the next ones."""


def reciprocal_rank_fusion(rankings: Iterable[Sequence[Id]]) -> list[tuple[Id, float]]:
    """What several rankings hold, best first, with the sum of 1 / (60 + rank), ranks counted from 1.

    From Cormack, Clarke, Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods,
    SIGIR 2009. Of equal scores, what an earlier ranking names first comes first.

        >>> [name for name, _ in reciprocal_rank_fusion([["a", "b", "c"], ["b", "d"]])]
        ['b', 'a', 'd', 'c']
    """
    scores: dict[Id, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (DAMPING + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])
