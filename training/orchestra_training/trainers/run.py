"""Carries a recipe out: builds its trainer, trains or resumes, and writes the model."""

from __future__ import annotations

import gc
import importlib
from dataclasses import dataclass
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from orchestra_graph.errors import ConfigError
from orchestra_training.trainers.recipe import Recipe, check_server

MODEL = "model"
"""Folder of the trained model, in the recipe's output: the whole model, also where adapters were trained."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has left."""

    model: Path
    steps: int
    figures: dict[str, float]
    """Logged last."""


def run(recipe: Recipe, *, resume: bool = False) -> Trained:
    """Train.

    Args:
        recipe: What to do.
        resume: Go on from the last checkpoint of the recipe's output.

    Raises:
        ConfigError: Something does not fit together, or the output holds another training.
    """
    last = get_last_checkpoint(str(recipe.output)) if recipe.output.is_dir() else None
    if last is not None and not resume:
        raise recipe.error(("output",), f" = {recipe.output}: holds checkpoints; fix: --resume, or another output")
    if resume and last is None:
        raise ConfigError(f"{recipe.output}: no checkpoint to resume from; leave --resume out")
    check_server(recipe)
    kind = importlib.import_module(f"orchestra_training.trainers.{recipe.kind}")
    # What was imported need not be looked through again and again while rollouts make and drop objects.
    gc.collect()
    gc.freeze()
    trainer = kind.train(recipe)
    trainer.train(resume_from_checkpoint=last)
    folder = recipe.output / MODEL
    if recipe.lora is not None:
        # Alone, adapters need their base to be served, and the next recipe could not train them further.
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model(str(folder))
    trainer.save_state()
    told = [line for line in trainer.state.log_history if "loss" in line]
    return Trained(folder, trainer.state.global_step, dict(told[-1]) if told else {})
