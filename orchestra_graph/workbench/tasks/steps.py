"""The steps of which programming tasks are made: an algorithm, how hard it is, and how it is said in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestra_graph.workbench.tasks import algorithms
from orchestra_graph.workbench.wording import Phrases


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


def _says(*train: str, held_out: str) -> Phrases:
    return Phrases(train, (held_out,))


STEPS: tuple[Algorithm, ...] = (
    Algorithm(
        1,
        algorithms.evens,
        _says(
            "keep only the even numbers",
            "drop the odd numbers",
            "filter out odd numbers",
            "keep what is divisible by 2",
            held_out="throw out whatever is odd",
        ),
    ),
    Algorithm(
        1,
        algorithms.add,
        _says(
            "add {k} to every number",
            "increase each number by {k}",
            "add {k} to each element",
            "shift every value up by {k}",
            held_out="raise all entries by {k}",
        ),
        parameter=(2, 9),
    ),
    Algorithm(
        1,
        algorithms.multiply,
        _says(
            "multiply every number by {k}",
            "scale each number by {k}",
            "multiply each element by {k}",
            "replace each x by {k} times x",
            held_out="take {k} times each entry",
        ),
        parameter=(2, 5),
    ),
    Algorithm(
        1,
        algorithms.at_least,
        _says(
            "keep numbers that are at least {k}",
            "drop numbers below {k}",
            "remove everything smaller than {k}",
            "filter for values of {k} or more",
            held_out="ignore all under {k}",
        ),
        parameter=(1, 9),
    ),
    Algorithm(
        2,
        algorithms.distinct,
        _says(
            "drop repeated numbers",
            "remove duplicates in order",
            "remove repeats in the original order",
            "delete later copies of equal numbers",
            held_out="keep only the first of each value",
        ),
    ),
    Algorithm(
        2,
        algorithms.running_sums,
        _says(
            "form the running sums",
            "replace each by the sum of all up to it",
            "turn the list into its prefix sums",
            "compute the cumulative sums",
            held_out="accumulate the totals",
        ),
    ),
    Algorithm(
        2,
        algorithms.differences,
        _says(
            "form the differences of neighbours, later minus earlier",
            "subtract from each number the one before it, dropping the first",
            "replace the list by the differences between successive numbers, later minus earlier",
            "compute the change from each number to the next",
            held_out="take how much each entry grows over the one before",
        ),
    ),
    Algorithm(
        2,
        algorithms.rotate,
        _says(
            "move the first {k} numbers to the end",
            "rotate left by {k}",
            "rotate the list by {k} places to the left",
            "take the first {k} numbers off and append them at the end",
            held_out="shift {k} places left, cyclically",
        ),
        parameter=(1, 3),
    ),
    Algorithm(
        3,
        algorithms.primes,
        _says(
            "keep only the prime numbers",
            "drop what is not prime",
            "filter for primes",
            "remove all numbers that are not prime",
            held_out="leave nothing but primes",
        ),
        algorithms.naive_primes,
    ),
    Algorithm(
        3,
        algorithms.window_maxima,
        _says(
            "replace the list by the maxima of all windows of {k} neighbours",
            "form the sliding maximum of width {k}",
            "replace the list by the maximum of every window of width {k}",
            "compute the moving maximum over {k} numbers",
            held_out="take the greatest of every {k} consecutive entries",
        ),
        algorithms.naive_window_maxima,
        parameter=(2, 3),
    ),
)

FINALS: tuple[Algorithm, ...] = (
    Algorithm(
        1,
        algorithms.total,
        _says(
            "return the sum",
            "return the total",
            "return the sum of all numbers",
            "return what the numbers sum to",
            held_out="give back what all add up to",
        ),
    ),
    Algorithm(
        1,
        algorithms.maximum,
        _says(
            "return the maximum, or 0",
            "return the greatest number (0 if none)",
            "return the largest value, 0 for an empty list",
            "return the biggest number, or 0 if there is none",
            held_out="give back the top, else 0",
        ),
    ),
    Algorithm(
        2,
        algorithms.second_greatest,
        _says(
            "return the second greatest distinct number, or 0",
            "return the runner-up among the distinct values (0 if none)",
            "return the second largest value, repeats ignored (0 if there is none)",
            "return the largest value but one among the distinct values, or 0",
            held_out="give back the value just below the top one, else 0",
        ),
    ),
    Algorithm(
        2,
        algorithms.longest_run,
        _says(
            "return how many equal neighbours the longest run has",
            "return how long the longest block of one value is",
            "return the greatest number of equal values in a row",
            "return the size of the longest group of identical neighbours",
            held_out="give back the length of the longest streak of the same value",
        ),
    ),
    Algorithm(
        3,
        algorithms.greatest_block,
        _says(
            "return the greatest sum of a contiguous block, the empty one included",
            "return the maximum subarray sum (at least 0)",
            "return the maximum sum over all contiguous slices, the empty slice counting as 0",
            "return the best sum of consecutive numbers (0 if all are negative)",
            held_out="give back the best total of entries in a row, 0 at worst",
        ),
        algorithms.naive_greatest_block,
    ),
    Algorithm(
        4,
        algorithms.longest_rising,
        _says(
            "return the longest strictly increasing subsequence's length",
            "return how many numbers the longest strictly rising subsequence has",
            "return the length of a longest strictly ascending subsequence",
            "return how long a strictly increasing subsequence can get",
            held_out="give back the size of the largest strictly growing selection in order",
        ),
        algorithms.naive_longest_rising,
    ),
    Algorithm(
        4,
        algorithms.inversions,
        _says(
            "return the number of inversions",
            "return how many pairs stand in the wrong order, greater before smaller",
            "return the inversion count",
            "return the number of pairs i < j with xs[i] > xs[j]",
            held_out="give back the count of pairs whose earlier entry is greater",
        ),
        algorithms.naive_inversions,
    ),
    Algorithm(
        4,
        algorithms.no_neighbours,
        _says(
            "return the greatest sum of numbers no two of which are neighbours (at least 0)",
            "return the best total without taking two neighbours (at least 0)",
            "return the maximum sum of a subset without two adjacent elements (at least 0)",
            "return the largest sum that avoids taking adjacent numbers (0 if all are negative)",
            held_out="give back the most that a selection without adjacent entries adds up to, 0 at worst",
        ),
        algorithms.naive_no_neighbours,
    ),
    Algorithm(
        5,
        algorithms.fewest_coins,
        _says(
            "return the fewest numbers, only positive ones and repeats allowed, that add up to {k}, or -1",
            "return the least count of positive entries with repetition that sum to {k} (-1 if impossible)",
            "return the minimum number of positive entries, reuse allowed, that total {k}, or -1 if there is no way",
            "return how few positive numbers of the list, each usable again, make {k} (-1 if none do)",
            held_out="give back how few coins pay {k}, the positive entries being the coins, else -1",
        ),
        algorithms.naive_fewest_coins,
        parameter=(60, 140),
    ),
    Algorithm(
        5,
        algorithms.largest_rectangle,
        _says(
            "return the area of the largest rectangle under bars of these heights (0 if there is none)",
            "return the largest rectangle in the histogram, or 0",
            "return the area of the biggest rectangle inside the bar chart of these heights (0 if none)",
            "return the maximal rectangle area under the histogram, at least 0",
            held_out="give back the greatest area that fits under a skyline of these heights, 0 at worst",
        ),
        algorithms.naive_largest_rectangle,
    ),
)
