"""Comparison of JSON values that says where they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_PRECISION: Final = 1e-9
"""Relative difference of numbers that count as equal, absolute where 0 is expected: sums depend on their order."""


def difference(found: Any, expected: Any, place: str = "") -> str | None:
    """The first place where two JSON values differ, in words, or None.

    Lists and tuples are alike, and so are 1 and 1.0, but not 1 and true. NaN is like itself: it stands where a value is
    missing.

    >>> difference({"a": [1, 2]}, {"a": [1, 3]})
    'a/1 = 2; expected 3'
    """
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        return _in_keys(found, expected, place)
    if _is_list(found) and _is_list(expected):
        return _in_items(found, expected, place)
    return None if _same(found, expected) else f"{place or 'value'} = {found!r}; expected {expected!r}"


def _in_keys(found: Mapping[Any, Any], expected: Mapping[Any, Any], place: str) -> str | None:
    for key in expected:
        if key not in found:
            return f"{_below(place, key)} is not there; expected {expected[key]!r}"
    for key in found:
        if key not in expected:
            return f"{_below(place, key)} = {found[key]!r}; expected nothing there"
    return _first((found[key], expected[key], _below(place, key)) for key in expected)


def _in_items(found: Sequence[Any], expected: Sequence[Any], place: str) -> str | None:
    if len(found) != len(expected):
        return f"{place or 'value'} has {len(found)} items; expected {len(expected)}"
    return _first((found[n], expected[n], _below(place, n)) for n in range(len(expected)))


def _first(pairs: Any) -> str | None:
    return next((text for pair in pairs if (text := difference(*pair)) is not None), None)


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, int | float) and isinstance(expected, int | float):
        return found == expected or _near(found, expected) or (found != found and expected != expected)
    return type(found) is type(expected) and bool(found == expected)


def _near(found: float, expected: float) -> bool:
    if expected == 0:
        return abs(found) <= _PRECISION
    try:
        return math.isclose(found, expected, rel_tol=_PRECISION)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _below(place: str, key: Any) -> str:
    return f"{place}/{key}" if place else str(key)
