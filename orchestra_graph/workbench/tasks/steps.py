"""The steps of which programming tasks are made: an algorithm, how hard it is, and how it is said in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestra_graph.workbench.tasks import algorithms
from orchestra_graph.workbench.wording import Phrases, phrases


@dataclass(frozen=True)
class Algorithm:
    """One step."""

    rank: int
    """1, plain, to 5, from the last chapters of a textbook."""
    function: Callable[[list[int], int], list[int] | int]
    asks: Phrases
    naive: Callable[[list[int], int], list[int] | int] | None = None
    """Given from rank 3 on; what ranks below it everybody knows."""
    parameter: tuple[int, int] | None = None
    """Least and greatest `k`."""

    @property
    def name(self) -> str:
        """Name of the function, as words."""
        return self.function.__name__.replace("_", " ")


STEPS: tuple[Algorithm, ...] = (
    Algorithm(
        1,
        algorithms.evens,
        phrases("programming", "evens", "throw out whatever is odd"),
    ),
    Algorithm(
        1,
        algorithms.add,
        phrases("programming", "add", "raise all entries by {k}"),
        parameter=(2, 9),
    ),
    Algorithm(
        1,
        algorithms.multiply,
        phrases("programming", "multiply", "take {k} times each entry"),
        parameter=(2, 5),
    ),
    Algorithm(
        1,
        algorithms.at_least,
        phrases("programming", "at_least", "ignore all under {k}"),
        parameter=(1, 9),
    ),
    Algorithm(
        2,
        algorithms.distinct,
        phrases("programming", "distinct", "keep only the first of each value"),
    ),
    Algorithm(
        2,
        algorithms.running_sums,
        phrases("programming", "running_sums", "accumulate the totals"),
    ),
    Algorithm(
        2,
        algorithms.differences,
        phrases("programming", "differences", "take how much each entry grows over the one before"),
    ),
    Algorithm(
        2,
        algorithms.rotate,
        phrases("programming", "rotate", "shift {k} places left, cyclically"),
        parameter=(1, 3),
    ),
    Algorithm(
        3,
        algorithms.primes,
        phrases("programming", "primes", "leave nothing but primes"),
        algorithms.naive_primes,
    ),
    Algorithm(
        3,
        algorithms.window_maxima,
        phrases("programming", "window_maxima", "take the greatest of every {k} consecutive entries"),
        algorithms.naive_window_maxima,
        parameter=(2, 3),
    ),
)

FINALS: tuple[Algorithm, ...] = (
    Algorithm(
        1,
        algorithms.total,
        phrases("programming", "total", "give back what all add up to"),
    ),
    Algorithm(
        1,
        algorithms.maximum,
        phrases("programming", "maximum", "give back the top, else 0"),
    ),
    Algorithm(
        2,
        algorithms.second_greatest,
        phrases("programming", "second_greatest", "give back the value just below the top one, else 0"),
    ),
    Algorithm(
        2,
        algorithms.longest_run,
        phrases("programming", "longest_run", "give back the length of the longest streak of the same value"),
    ),
    Algorithm(
        3,
        algorithms.greatest_block,
        phrases("programming", "greatest_block", "give back the best total of entries in a row, 0 at worst"),
        algorithms.naive_greatest_block,
    ),
    Algorithm(
        4,
        algorithms.longest_rising,
        phrases(
            "programming", "longest_rising", "give back the size of the largest strictly growing selection in order"
        ),
        algorithms.naive_longest_rising,
    ),
    Algorithm(
        4,
        algorithms.inversions,
        phrases("programming", "inversions", "give back the count of pairs whose earlier entry is greater"),
        algorithms.naive_inversions,
    ),
    Algorithm(
        4,
        algorithms.no_neighbours,
        phrases(
            "programming",
            "no_neighbours",
            "give back the most that a selection without adjacent entries adds up to, 0 at worst",
        ),
        algorithms.naive_no_neighbours,
    ),
    Algorithm(
        5,
        algorithms.fewest_coins,
        phrases(
            "programming",
            "fewest_coins",
            "give back how few coins pay {k}, the positive entries being the coins, else -1",
        ),
        algorithms.naive_fewest_coins,
        parameter=(60, 140),
    ),
    Algorithm(
        5,
        algorithms.largest_rectangle,
        phrases(
            "programming",
            "largest_rectangle",
            "give back the greatest area that fits under a skyline of these heights, 0 at worst",
        ),
        algorithms.naive_largest_rectangle,
    ),
)
