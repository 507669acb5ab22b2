"""Supervised fine-tuning on rows of `input_ids` and `labels`, as they are: nothing is tokenised again."""

from __future__ import annotations

from typing import Any

from torch.nn import functional
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import SFTConfig, SFTTrainer

from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.models import fits, load_model, load_tokenizer, lora_config, trainer_config
from orchestra_training.trainers.muon import MuonAdamW
from orchestra_training.trainers.recipe import Recipe

_IGNORED = -100


class RowsTrainer(SFTTrainer):
    """Scores only positions whose next token is learnt, where these fit: most of a router's tokens are only read."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, BatchRebalanceSampler):
            sampler.seed = self.args.seed  # transformers gives it none, and every seed would see the same batches
        return sampler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean of the negative log likelihood over the tokens that are learnt."""
        labels = inputs["labels"]
        learnt = (labels[:, 1:] != _IGNORED).any(0).nonzero()[:, 0]
        flat = "position_ids" in inputs  # several examples in one row, which only these keep apart
        plain = self.args.loss_type == "nll" and model.training and not return_outputs and not flat
        if not plain or not len(learnt) or not fits(len(labels), len(learnt), self.model):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # Rows are filled up behind their ends, which no token before reads: without a mask attention is much faster.
        logits = model(input_ids=inputs["input_ids"], logits_to_keep=learnt, use_cache=False).logits
        targets = labels[:, learnt + 1]
        total = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        known = targets != _IGNORED
        self._metrics["train"]["mean_token_accuracy"].append(
            (logits.argmax(-1) == targets)[known].float().mean().item()
        )
        if num_items_in_batch is None:
            return total / known.sum()
        # It counts the tokens of all processes, whose gradients are averaged.
        shared = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return total / num_items_in_batch * shared


def train(recipe: Recipe, *, weights: bool = True) -> Any:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    # The rows of a step are drawn at random and shared out over its passes by length. Grouped over many steps, as
    # transformers offers too, each step would see rows of one length only.
    defaults = {"max_length": None, "train_sampling_strategy": "batch_rebalance"}
    args = trainer_config(recipe, SFTConfig, defaults=defaults, weights=weights)
    return RowsTrainer(
        model=load_model(recipe, weights=weights),
        args=args,
        optimizer_cls_and_kwargs=_optimizer(recipe, args),
        train_dataset=read_data(recipe, ("input_ids", "labels")),
        processing_class=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )


def _optimizer(recipe: Recipe, args: SFTConfig) -> Any:
    """What makes the optimiser, as transformers asks for it; None for the one that `[trainer]` names."""
    if recipe.muon is None:
        return None
    options = {
        "muon_lr": recipe.muon.learning_rate,
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        "weight_decay": args.weight_decay,
    }
    return (lambda: MuonAdamW), options
