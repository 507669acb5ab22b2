"""Made-up names: pronounceable, endless, and in no model's memory."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

_ONSETS = ("b", "br", "d", "dr", "f", "g", "h", "k", "kr", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "", "l", "m", "n", "r", "s", "nd", "th")


def made_up(rng: Random) -> str:
    """One name of two or three syllables, capitalised."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((2, 3))))
    return "".join(syllables).capitalize()


def unique_names(rng: Random) -> Iterator[str]:
    """Names without end, none twice."""
    seen: set[str] = set()
    while True:
        name = made_up(rng)
        if name not in seen:
            seen.add(name)
            yield name
