"""What a run earns its policy, as pure functions: from the runs of one group and their preferences to a number a run.

`paper` is the equations of the paper to the letter; `guarded` is what our recipes use.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from orchestra_graph.preferences import Preferences
from orchestra_training.reward.advantage import advantages
from orchestra_training.reward.guarded import guarded
from orchestra_training.reward.measures import Measures, measure
from orchestra_training.reward.paper import paper

REWARDS: Final[Mapping[str, Callable[[Sequence[Measures], Preferences], list[float]]]] = MappingProxyType(
    {"guarded": guarded, "paper": paper}
)
"""By the names that recipes and commands use."""

__all__ = ["REWARDS", "Measures", "advantages", "guarded", "measure", "paper"]
