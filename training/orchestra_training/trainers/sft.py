"""Supervised fine-tuning on rows of `input_ids` and `labels`, as they are: nothing is tokenised again."""

from __future__ import annotations

from typing import Any

from trl import SFTConfig, SFTTrainer

from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.models import load_model, load_tokenizer, lora_config, trainer_config
from orchestra_training.trainers.recipe import Recipe


def train(recipe: Recipe, *, weights: bool = True) -> Any:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    defaults = {"max_length": None, "train_sampling_strategy": "group_by_length"}
    return SFTTrainer(
        model=load_model(recipe, weights=weights),
        args=trainer_config(recipe, SFTConfig, defaults=defaults, weights=weights),
        train_dataset=read_data(recipe, ("input_ids", "labels")),
        processing_class=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )
