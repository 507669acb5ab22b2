"""The steps of which programming tasks are made: plain Python functions, and how they are said in words.

Experts copy the source of these functions into their programs. A `naive` function is what comes to the mind of one who
does not know the algorithm: it runs, and is wrong on most lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestra_graph.workbench.wording import Phrases


def evens(xs: list[int], k: int) -> list[int]:
    """Keep even numbers."""
    return [x for x in xs if x % 2 == 0]


def add(xs: list[int], k: int) -> list[int]:
    """Add k to each."""
    return [x + k for x in xs]


def multiply(xs: list[int], k: int) -> list[int]:
    """Multiply each by k."""
    return [x * k for x in xs]


def at_least(xs: list[int], k: int) -> list[int]:
    """Keep numbers from k on."""
    return [x for x in xs if x >= k]


def distinct(xs: list[int], k: int) -> list[int]:
    """Keep the first of each value."""
    return list(dict.fromkeys(xs))


def running_sums(xs: list[int], k: int) -> list[int]:
    """Sums of all up to each place."""
    return [sum(xs[: i + 1]) for i in range(len(xs))]


def differences(xs: list[int], k: int) -> list[int]:
    """Each number less the one before it."""
    return [xs[i] - xs[i - 1] for i in range(1, len(xs))]


def rotate(xs: list[int], k: int) -> list[int]:
    """Move the first k to the end."""
    return xs[k:] + xs[:k]


def primes(xs: list[int], k: int) -> list[int]:
    """Keep primes."""
    return [x for x in xs if x > 1 and all(x % d for d in range(2, int(x**0.5) + 1))]


def naive_primes(xs: list[int], k: int) -> list[int]:
    """Keep odd numbers."""
    return [x for x in xs if x % 2 == 1]


def window_maxima(xs: list[int], k: int) -> list[int]:
    """Maxima of all windows of width k."""
    return [max(xs[i : i + k]) for i in range(len(xs) - k + 1)]


def naive_window_maxima(xs: list[int], k: int) -> list[int]:
    """Maxima of blocks of width k."""
    return [max(xs[i : i + k]) for i in range(0, len(xs), k)]


def total(xs: list[int], k: int) -> int:
    """Sum."""
    return sum(xs)


def maximum(xs: list[int], k: int) -> int:
    """Greatest number, or 0."""
    return max(xs, default=0)


def second_greatest(xs: list[int], k: int) -> int:
    """Second greatest value, or 0."""
    values = sorted(set(xs))
    return values[-2] if len(values) > 1 else 0


def longest_run(xs: list[int], k: int) -> int:
    """Length of the longest run of one value."""
    best = run = 0
    for i, x in enumerate(xs):
        run = run + 1 if i and xs[i - 1] == x else 1
        best = max(best, run)
    return best


def greatest_block(xs: list[int], k: int) -> int:
    """Greatest sum of a contiguous block, at least 0."""
    best = here = 0
    for x in xs:
        here = max(0, here + x)
        best = max(best, here)
    return best


def naive_greatest_block(xs: list[int], k: int) -> int:
    """Sum of the positive numbers."""
    return sum(x for x in xs if x > 0)


def longest_rising(xs: list[int], k: int) -> int:
    """Length of the longest strictly rising subsequence."""
    best: list[int] = []
    for i, x in enumerate(xs):
        best.append(1 + max((best[j] for j in range(i) if xs[j] < x), default=0))
    return max(best, default=0)


def naive_longest_rising(xs: list[int], k: int) -> int:
    """Length of the longest rising run of neighbours."""
    best = run = min(1, len(xs))
    for i in range(1, len(xs)):
        run = run + 1 if xs[i] > xs[i - 1] else 1
        best = max(best, run)
    return best


def inversions(xs: list[int], k: int) -> int:
    """Pairs in the wrong order."""
    return sum(a > b for i, a in enumerate(xs) for b in xs[i + 1 :])


def naive_inversions(xs: list[int], k: int) -> int:
    """Neighbours in the wrong order."""
    return sum(xs[i - 1] > xs[i] for i in range(1, len(xs)))


def no_neighbours(xs: list[int], k: int) -> int:
    """Greatest sum without two neighbours, at least 0."""
    take = skip = 0
    for x in xs:
        take, skip = skip + x, max(skip, take)
    return max(take, skip)


def naive_no_neighbours(xs: list[int], k: int) -> int:
    """Every second number."""
    return max(sum(xs[::2]), sum(xs[1::2]))


def fewest_coins(xs: list[int], k: int) -> int:
    """Fewest positive numbers, repeats allowed, that add up to k; -1 if none do."""
    best = [0] + [k + 1] * k
    for amount in range(1, k + 1):
        best[amount] = min((best[amount - x] + 1 for x in set(xs) if 0 < x <= amount), default=k + 1)
    return best[k] if best[k] <= k else -1


def naive_fewest_coins(xs: list[int], k: int) -> int:
    """The greatest coin first."""
    count = 0
    for x in sorted({x for x in xs if x > 0}, reverse=True):
        count, k = count + k // x, k % x
    return -1 if k else count


def largest_rectangle(xs: list[int], k: int) -> int:
    """Largest rectangle under bars of these heights."""
    best = 0
    for i in range(len(xs)):
        lowest = xs[i]
        for j in range(i, len(xs)):
            lowest = min(lowest, xs[j])
            best = max(best, lowest * (j - i + 1))
    return best


def naive_largest_rectangle(xs: list[int], k: int) -> int:
    """The lowest bar along the whole width, or the highest bar alone."""
    return max(0, min(xs, default=0) * len(xs), max(xs, default=0))


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
        evens,
        _says("keep only the even numbers", "drop the odd numbers", held_out="throw out whatever is odd"),
    ),
    Algorithm(
        1,
        add,
        _says("add {k} to every number", "increase each number by {k}", held_out="raise all entries by {k}"),
        parameter=(2, 9),
    ),
    Algorithm(
        1,
        multiply,
        _says("multiply every number by {k}", "scale each number by {k}", held_out="take {k} times each entry"),
        parameter=(2, 5),
    ),
    Algorithm(
        1,
        at_least,
        _says("keep numbers that are at least {k}", "drop numbers below {k}", held_out="ignore all under {k}"),
        parameter=(1, 9),
    ),
    Algorithm(
        2,
        distinct,
        _says("drop repeated numbers", "remove duplicates in order", held_out="keep only the first of each value"),
    ),
    Algorithm(
        2,
        running_sums,
        _says("form the running sums", "replace each by the sum of all up to it", held_out="accumulate the totals"),
    ),
    Algorithm(
        2,
        differences,
        _says(
            "form the differences of neighbours, later minus earlier",
            "subtract from each number the one before it, dropping the first",
            held_out="take how much each entry grows over the one before",
        ),
    ),
    Algorithm(
        2,
        rotate,
        _says(
            "move the first {k} numbers to the end", "rotate left by {k}", held_out="shift {k} places left, cyclically"
        ),
        parameter=(1, 3),
    ),
    Algorithm(
        3,
        primes,
        _says("keep only the prime numbers", "drop what is not prime", held_out="leave nothing but primes"),
        naive_primes,
    ),
    Algorithm(
        3,
        window_maxima,
        _says(
            "replace the list by the maxima of all windows of {k} neighbours",
            "form the sliding maximum of width {k}",
            held_out="take the greatest of every {k} consecutive entries",
        ),
        naive_window_maxima,
        parameter=(2, 3),
    ),
)

FINALS: tuple[Algorithm, ...] = (
    Algorithm(1, total, _says("return the sum", "return the total", held_out="give back what all add up to")),
    Algorithm(
        1,
        maximum,
        _says(
            "return the maximum, or 0", "return the greatest number (0 if none)", held_out="give back the top, else 0"
        ),
    ),
    Algorithm(
        2,
        second_greatest,
        _says(
            "return the second greatest distinct number, or 0",
            "return the runner-up among the distinct values (0 if none)",
            held_out="give back the value just below the top one, else 0",
        ),
    ),
    Algorithm(
        2,
        longest_run,
        _says(
            "return how many equal neighbours the longest run has",
            "return how long the longest block of one value is",
            held_out="give back the length of the longest streak of the same value",
        ),
    ),
    Algorithm(
        3,
        greatest_block,
        _says(
            "return the greatest sum of a contiguous block, the empty one included",
            "return the maximum subarray sum (at least 0)",
            held_out="give back the best total of entries in a row, 0 at worst",
        ),
        naive_greatest_block,
    ),
    Algorithm(
        4,
        longest_rising,
        _says(
            "return the longest strictly increasing subsequence's length",
            "return how many numbers the longest strictly rising subsequence has",
            held_out="give back the size of the largest strictly growing selection in order",
        ),
        naive_longest_rising,
    ),
    Algorithm(
        4,
        inversions,
        _says(
            "return the number of inversions",
            "return how many pairs stand in the wrong order, greater before smaller",
            held_out="give back the count of pairs whose earlier entry is greater",
        ),
        naive_inversions,
    ),
    Algorithm(
        4,
        no_neighbours,
        _says(
            "return the greatest sum of numbers no two of which are neighbours (at least 0)",
            "return the best total without taking two neighbours (at least 0)",
            held_out="give back the most that a selection without adjacent entries adds up to, 0 at worst",
        ),
        naive_no_neighbours,
    ),
    Algorithm(
        5,
        fewest_coins,
        _says(
            "return the fewest numbers, only positive ones and repeats allowed, that add up to {k}, or -1",
            "return the least count of positive entries with repetition that sum to {k} (-1 if impossible)",
            held_out="give back how few coins pay {k}, the positive entries being the coins, else -1",
        ),
        naive_fewest_coins,
        parameter=(60, 140),
    ),
    Algorithm(
        5,
        largest_rectangle,
        _says(
            "return the area of the largest rectangle under bars of these heights (0 if there is none)",
            "return the largest rectangle in the histogram, or 0",
            held_out="give back the greatest area that fits under a skyline of these heights, 0 at worst",
        ),
        naive_largest_rectangle,
    ),
)
