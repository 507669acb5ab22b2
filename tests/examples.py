"""How many examples a property is tried on: all in `make test`, a fifth in `make quick`, by Hypothesis's profiles."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=20)


def examples(number: int) -> int:
    """So many, where the profile tries as many as Hypothesis by default, 100."""
    return max(5, number * settings().max_examples // 100)
