"""What a run earns its policy, as pure functions: from the runs of one group and their preferences to a number a run.

`paper` is the equations of the paper to the letter; `guarded` is the same without its faults, and our default;
`proportional` counts a small difference little.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from orchestra_graph.preferences import Preferences
from orchestra_training.reward.advantage import advantages
from orchestra_training.reward.guarded import guarded
from orchestra_training.reward.measures import Measures, measure
from orchestra_training.reward.paper import paper
from orchestra_training.reward.proportional import proportional

RewardName = Literal["guarded", "paper", "proportional"]
"""As recipes and commands call them."""

REWARDS: Final[Mapping[RewardName, Callable[[Sequence[Measures], Preferences], list[float]]]] = MappingProxyType(
    {"guarded": guarded, "paper": paper, "proportional": proportional}
)
"""By their names."""

FLOORS: Final[Mapping[RewardName, float]] = MappingProxyType({"guarded": 0.1, "paper": 0.1, "proportional": 0.05})
"""Sample standard deviation of a group's rewards below which it teaches nothing: a tenth, as in the paper, section 3.2;
`proportional` rewards lie closer together, between 0 and 1."""

__all__ = ["FLOORS", "REWARDS", "Measures", "RewardName", "advantages", "guarded", "measure", "paper", "proportional"]
