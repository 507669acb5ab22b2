"""Exploration: what explorers tried, against what the policy does, learnt by how much it brought.

Rollouts of the weights as they are, and classification with costs on them, best in many small steps (`minibatches`):
weights that are rolled out anew after each are compared with themselves, and drift. The loss is the negative log
likelihood of the better replies: the policy gradient with their gains as advantages and a ratio of 1, so the trainer is
the same.
"""

from __future__ import annotations

from functools import partial

from orchestra_training.batch import make_explored
from orchestra_training.trainers.grpo import online_trainer, reward_of
from orchestra_training.trainers.policy import PolicyTrainer
from orchestra_training.trainers.recipe import Recipe


def train(recipe: Recipe, *, weights: bool = True) -> PolicyTrainer:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    if not recipe.rollout.explorers:
        raise recipe.error(("rollout", "explorers"), " = 0; expected how many replies of a run are explored, as 2")
    trainer = online_trainer(recipe, partial(make_explored, reward=reward_of(recipe.reward)), weights=weights)
    trainer.uses_stored_logprobs = False
    return trainer
