"""What each expert of the workbench can do, in the units in which its family measures a problem.

An expert without a family in its row declines there. A size that is not named is no limit. The limits are what the
programs really work with (digits kept, divisors tried, steps remembered), and what the oracle knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestra_graph.workbench.tasks import Sizes


@dataclass(frozen=True)
class Skill:
    """What one expert can do."""

    limits: Mapping[str, Sizes] = field(default_factory=dict)
    """By family."""
    quotes: bool = False
    """Whether it reads the answer off the output of a program in the evidence."""


SKILLS: dict[str, Skill] = {
    "large": Skill(
        {
            "arithmetic": {"digits": 16},
            "algebra": {"unknowns": 3},
            "calculus": {"rules": 5},
            "number_theory": {"digits": 12, "bound": 5_000},
            "programming": {"steps": 5, "rank": 5},
            "lookup": {"hops": 2},
            "records": {"changes": 4, "sweeps": 2, "per_call": 6},
        },
        quotes=True,
    ),
    "small": Skill(
        {
            "arithmetic": {"digits": 6},
            "algebra": {"unknowns": 1},
            "calculus": {"rules": 1},
            "number_theory": {"digits": 4, "bound": 50},
            "programming": {"steps": 3, "rank": 2},
            "lookup": {"hops": 1},
        },
        quotes=True,
    ),
    "math": Skill(
        {
            "arithmetic": {"digits": 24},
            "algebra": {"unknowns": 4},
            "calculus": {"rules": 4},
            "number_theory": {"digits": 20, "bound": 1_000_000},
        },
        quotes=True,
    ),
    "coder": Skill({"programming": {"steps": 8, "rank": 5}}),
    "runner": Skill({"arithmetic": {}, "algebra": {}, "number_theory": {}}),
    "reader": Skill({"lookup": {"hops": 3}}),
    "clerk": Skill({"records": {"changes": 12, "sweeps": 0, "per_call": 2}}),
    "analyst": Skill({"records": {"changes": 12, "sweeps": 3, "per_call": 12}}),
    "search": Skill(),
}
