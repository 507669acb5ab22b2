"""DPO on two decisions after the same tokens: `prompt_ids`, `chosen_ids`, `rejected_ids`, as they were written."""

from __future__ import annotations

from typing import Any

from trl import DPOConfig, DPOTrainer

from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.models import load_model, load_tokenizer, lora_config, trainer_config
from orchestra_training.trainers.recipe import Recipe


class _AsWritten(DPOTrainer):
    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL would tokenise texts; these are tokens."""
        return dataset


def train(recipe: Recipe, *, weights: bool = True) -> Any:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    return _AsWritten(
        model=load_model(recipe, weights=weights),
        args=trainer_config(recipe, DPOConfig, defaults={"max_length": None}, weights=weights),
        train_dataset=read_data(recipe, ("prompt_ids", "chosen_ids", "rejected_ids")),
        processing_class=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )
