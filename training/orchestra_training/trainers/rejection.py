"""Rejection sampling: rollouts of the weights as they are, a step of imitation of the best of each group, and again.

The loss is the negative log likelihood of the best runs, each of the same weight: the policy gradient with the same
advantage for all of them and a ratio of 1, so the trainer is the same.
"""

from __future__ import annotations

from functools import partial

from orchestra_training.batch import make_best
from orchestra_training.trainers.grpo import online_trainer, reward_of
from orchestra_training.trainers.policy import PolicyTrainer
from orchestra_training.trainers.recipe import Recipe


def train(recipe: Recipe, *, weights: bool = True) -> PolicyTrainer:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    trainer = online_trainer(recipe, partial(make_best, reward=reward_of(recipe.reward)), weights=weights)
    trainer.uses_stored_logprobs = False
    return trainer
