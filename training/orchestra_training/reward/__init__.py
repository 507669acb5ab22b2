"""What a run earns its policy, as pure functions: from the runs of one group and their preferences to a number a run.

`paper` is the equations of the paper to the letter; `guarded` is what our recipes use.
"""

from orchestra_training.reward.advantage import advantages
from orchestra_training.reward.guarded import guarded
from orchestra_training.reward.measures import Measures, measure
from orchestra_training.reward.paper import paper

__all__ = ["Measures", "advantages", "guarded", "measure", "paper"]
