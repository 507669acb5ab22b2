"""Builds everything of a training but the weights, and says what it found: a recipe is checked before a GPU is paid.

Tokenizer, chat template, the model's shape, adapters, data set or first task, TRL's configuration and trainer,
accelerate's configuration. What it cannot see: whether the weights load, and whether memory is enough.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestra_training.rollout.task import find_tasks
from orchestra_training.trainers.launch import accelerate_config
from orchestra_training.trainers.recipe import ONLINE, Recipe, check_server


def dry_run(recipe: Recipe) -> Iterator[str]:
    """What the training would be, a line a finding.

    Raises:
        ConfigError: Something does not fit together.
    """
    plain = {name: value for name, value in recipe.trainer.items() if not name.startswith(("use_vllm", "vllm_"))}
    with TemporaryDirectory() as folder:  # TRL makes the folder of its output
        yield from _built(recipe, plain, Path(folder))


def _built(recipe: Recipe, trainer_table: dict[str, Any], folder: Path) -> Iterator[str]:
    rollout = recipe.rollout.model_copy(update={"workers": 0})
    changes = {"output": folder / recipe.output.name, "trainer": trainer_table, "rollout": rollout}
    without = recipe.model_copy(update=changes)
    trainer = importlib.import_module(f"orchestra_training.trainers.{recipe.kind}").train(without, weights=False)
    parameters = [(p.numel(), p.requires_grad) for p in trainer.model.parameters()]
    trained = sum(size for size, grad in parameters if grad)
    yield f"model: {sum(size for size, _ in parameters):,} parameters, {trained:,} trained, {recipe.model.dtype}"
    yield f"tokenizer: {len(trainer.processing_class):,} tokens, chat template {_has(trainer.processing_class)}"
    yield f"trainer: {type(trainer).__mro__[1].__name__}, learning rate {trainer.args.learning_rate:g}"
    if recipe.kind in ONLINE:
        task = find_tasks(recipe.tasks.source, recipe.tasks.options)(recipe.seed, 0, 0)
        table = recipe.rollout
        explorers = f" and {table.explorers} explorers" if table.explorers else ""
        size = f"{table.tasks} tasks x {table.size}{explorers} a batch"
        yield f"rollouts: {size}, protocol {table.protocol}, up to {table.max_tokens} tokens a reply"
        yield f"first task: {task.id}: {task.question:.80}"
        _check_vllm(recipe)
    else:
        yield f"data: {recipe.data and recipe.data.path}"
    config = accelerate_config(recipe)
    if config is not None:
        kind = getattr(config.distributed_type, "value", config.distributed_type)
        yield f"accelerate: {config.num_processes} processes on {config.num_machines} machines, {kind}"


def _has(tokenizer: Any) -> str:
    return "there" if tokenizer.chat_template else "missing"


def _check_vllm(recipe: Recipe) -> None:
    """What TRL would need of vLLM, which is not started here."""
    from trl import GRPOConfig  # noqa: PLC0415  (takes seconds)

    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    for name in recipe.trainer:
        if name not in known:
            raise recipe.error(("trainer", name), ": no field of TRL's GRPOConfig")
    check_server(recipe)
