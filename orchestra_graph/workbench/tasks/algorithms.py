"""The functions of which programming tasks are made, in plain Python; `steps` says them in words.

Experts copy the source of these functions into their programs. A `naive` function is what comes to the mind of one who
does not know the algorithm: it runs, and is wrong on most lists.
"""

from __future__ import annotations


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
