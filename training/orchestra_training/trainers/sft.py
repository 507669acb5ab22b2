"""Supervised fine-tuning on rows of `input_ids` and `labels`, as they are: nothing is tokenised again."""

from __future__ import annotations

from typing import Any

from torch.nn import functional
from trl import SFTConfig, SFTTrainer

from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.models import load_model, load_tokenizer, lora_config, trainer_config
from orchestra_training.trainers.recipe import Recipe

_IGNORED = -100


class RowsTrainer(SFTTrainer):
    """Scores only positions whose next token is learnt: in rows of a router nearly all tokens are read, not written."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean of the negative log likelihood over the tokens that are learnt."""
        labels = inputs["labels"]
        learnt = (labels[:, 1:] != _IGNORED).any(0).nonzero()[:, 0]
        # Rows are filled up behind their ends, which no token before reads: without a mask attention is much faster.
        outputs = model(input_ids=inputs["input_ids"], logits_to_keep=learnt, use_cache=False)
        targets = labels[:, learnt + 1]
        total = functional.cross_entropy(
            outputs.logits.flatten(0, 1).float(), targets.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        known = targets != _IGNORED
        right = (outputs.logits.argmax(-1) == targets)[known].float().mean()
        self._metrics["train" if model.training else "eval"]["mean_token_accuracy"].append(right.item())
        loss = total / (known.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def train(recipe: Recipe, *, weights: bool = True) -> Any:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    defaults = {"max_length": None, "train_sampling_strategy": "group_by_length"}
    return RowsTrainer(
        model=load_model(recipe, weights=weights),
        args=trainer_config(recipe, SFTConfig, defaults=defaults, weights=weights),
        train_dataset=read_data(recipe, ("input_ids", "labels")),
        processing_class=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )
