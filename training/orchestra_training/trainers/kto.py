"""KTO on single replies that were good or bad: `prompt_ids`, `completion_ids`, `label`, as they were written."""

from __future__ import annotations

from typing import Any

from trl import KTOConfig, KTOTrainer

from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.models import load_model, load_tokenizer, lora_config, trainer_config
from orchestra_training.trainers.recipe import Recipe


class _AsWritten(KTOTrainer):
    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: KTOConfig, dataset_name: str) -> Any:
        """TRL would tokenise texts; these are tokens. Completions of other prompts estimate the divergence."""
        if not self.calculate_KL:
            return dataset

        def turned(examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
            completions = examples["completion_ids"]
            return {**examples, "KL_completion_ids": [completions[-1], *completions[:-1]]}

        return dataset.map(turned, batched=True, batch_size=args.per_device_train_batch_size)


def train(recipe: Recipe, *, weights: bool = True) -> Any:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    data = read_data(recipe, ("prompt_ids", "completion_ids", "label")).shuffle(seed=recipe.seed)
    return _AsWritten(
        model=load_model(recipe, weights=weights),
        args=trainer_config(recipe, KTOConfig, defaults={"max_length": None}, weights=weights),
        train_dataset=data,
        processing_class=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )
