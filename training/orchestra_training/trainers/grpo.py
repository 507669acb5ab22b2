"""Online GRPO: rollouts through the graph, and a policy gradient step on each batch of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from math import ceil
from statistics import fmean
from typing import Any, Final
from uuid import uuid4

from transformers import TrainerCallback
from trl import GRPOConfig

from orchestra_graph.errors import MissingError
from orchestra_graph.preferences import Preferences
from orchestra_graph.runlog.files import Appender
from orchestra_graph.runlog.record import Policy, Trajectory
from orchestra_training.batch import Batch, make_batch
from orchestra_training.engine import TorchEngine
from orchestra_training.groups import Reward
from orchestra_training.reward import FLOORS, REWARDS, Measures
from orchestra_training.rollout.colocated import ColocatedEngine
from orchestra_training.rollout.kept import KeptEngine
from orchestra_training.rollout.run import DEADLINE
from orchestra_training.rollout.workers import Outfit, Workers
from orchestra_training.trainers.models import (
    ends_of,
    load_model,
    load_tokenizer,
    lora_config,
    trainer_config,
)
from orchestra_training.trainers.online import Online, Roll
from orchestra_training.trainers.policy import PolicyTrainer
from orchestra_training.trainers.recipe import Recipe, RewardTable, StopTable

FIXED: Final[dict[str, Any]] = {
    "loss_type": "dapo",
    "beta": 0.0,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "generation_kwargs": None,
    "vllm_structured_outputs_regex": None,
    "remove_unused_columns": False,
    "vllm_importance_sampling_correction": False,
}
"""What the weights of the rows, the passes and the logprobs of rollouts rely on: those of a distribution that sampling
bends are not the policy's."""
UNREAD: Final = ("scale_rewards", "mask_truncated_completions", "reward_weights", "multi_objective_aggregation")
"""Fields that TRL reads where it scores completions, which is never done here."""


def policy_config(recipe: Recipe, *, weights: bool = True) -> GRPOConfig:
    """TRL's configuration of a policy gradient trainer: clipped at 0.2 and 0.28 unless the recipe says otherwise.

    Args:
        recipe: The recipe.
        weights: Whether the model has values, or only shapes.

    Raises:
        ConfigError: The recipe's `[trainer]` does not fit.
    """
    for name in UNREAD:
        if name in recipe.trainer:
            told = ": TRL's scoring is not used; fix: leave it out; what grpo makes of rewards is in [reward], as scale"
            raise recipe.error(("trainer", name), told)
    # Processes wait for each other's rollouts, of which each may take its whole deadline, and a verdict after it.
    defaults = {"epsilon": 0.2, "epsilon_high": 0.28, "ddp_timeout": int(4 * DEADLINE)}
    batch: dict[str, Any] = {
        # A vLLM beside the trainer answers as many requests at a time.
        "per_device_train_batch_size": recipe.rollout.tasks * recipe.rollout.size,
        "num_generations": recipe.rollout.size,
        "max_completion_length": recipe.rollout.max_tokens,
        "temperature": recipe.rollout.temperature,
    }
    if recipe.rollout.base_url is not None:  # the server that is asked is the one that is given the weights
        batch["vllm_server_base_url"] = recipe.rollout.base_url.rstrip("/").removesuffix("/v1")
    config: GRPOConfig = trainer_config(recipe, GRPOConfig, defaults=defaults, weights=weights, **FIXED, **batch)
    if config.max_steps < 1:
        raise recipe.error(("trainer", "max_steps"), f" = {config.max_steps}; expected the number of steps")
    if config.save_strategy == "steps":
        _check_saves(recipe, config)
    return config


def _check_saves(recipe: Recipe, config: GRPOConfig) -> None:
    """Refuse checkpoints in the middle of a batch: transformers writes them every so many steps, and after the last."""
    share = config.save_steps < 1
    every = ceil(config.max_steps * config.save_steps) if share else config.save_steps
    steps = f", {every} of {config.max_steps} steps" if share else ""
    whole, told_whole = config.num_iterations, f"num_iterations = {config.num_iterations}"
    if recipe.minibatches > 1:
        whole, told_whole = whole * recipe.minibatches, f"{told_whole} times minibatches = {recipe.minibatches}"
    for name, count, told in (("save_steps", every, steps), ("max_steps", config.max_steps, "")):
        if count % whole:
            wanted = f"expected a multiple of {told_whole}"
            why = "a batch cannot be taken up again in between"
            raise recipe.error(("trainer", name), f" = {getattr(config, name):g}{told}; {wanted}: {why}")


def train(recipe: Recipe, *, weights: bool = True) -> PolicyTrainer:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    table = recipe.reward
    floor = FLOORS[table.kind] if table.floor is None else table.floor
    make = partial(make_batch, reward=reward_of(table), scale_rewards=table.scale, floor=floor)
    return online_trainer(recipe, make, weights=weights)


def reward_of(table: RewardTable) -> Reward:
    """What a run earns by a recipe."""
    reward = REWARDS[table.kind]

    def charged(group: Sequence[Measures], preferences: Preferences) -> list[float]:
        weights = {"cost": preferences.cost, "latency": preferences.latency}
        changed: dict[str, Any] = {name: min(1.0, weight * table.thrift) for name, weight in weights.items()}
        changed["prefer"] = {tool: weight * table.prefer for tool, weight in preferences.prefer.items()}
        earned = reward(group, preferences.model_copy(update=changed))
        charge = table.charge * preferences.cost
        return [each - charge * run.relative_dollars for each, run in zip(earned, group, strict=True)]

    return charged


def online_trainer(recipe: Recipe, make: Callable[[Sequence[Trajectory]], Batch], *, weights: bool) -> PolicyTrainer:
    """A trainer that learns from its own rollouts.

    Args:
        recipe: The recipe.
        make: What is learnt from the rollouts of a batch.
        weights: Whether the model has values, or only shapes.

    Raises:
        ConfigError: Something does not fit together.
        MissingError: TRL is to talk to a vLLM, and its client is not installed.
    """
    args = policy_config(recipe, weights=weights)
    if weights and args.use_vllm and find_spec("vllm") is None:
        raise MissingError("the package vllm beside the trainer", "pip install 'orchestra-graph[serve,train]'")
    if recipe.rollout.explorers:
        _check_explorers(recipe, uses_vllm=recipe.rollout.base_url is not None or args.use_vllm)
    tokenizer = load_tokenizer(recipe)
    model = load_model(recipe, weights=weights)
    processes = args.world_size
    if recipe.rollout.tasks < processes:
        raise recipe.error(("rollout", "tasks"), f" = {recipe.rollout.tasks}; expected one a process, {processes}")
    engine = _engine(recipe, args, model, tokenizer) if weights else None
    outfit = _outfit(recipe, tokenizer)
    workers = Workers(outfit, engine, recipe.rollout.workers) if recipe.rollout.workers else None
    draw = Online(
        _rolling(outfit, engine, workers, args.num_iterations * recipe.minibatches),
        None if engine is None else lambda: (engine.seconds, engine.written),
        tasks=recipe.rollout.tasks,
        process=(args.process_index, processes),
        make=make,
        reward=reward_of(recipe.reward),
        log=None if recipe.rollout.log is None else Appender(recipe.rollout.log),
    )
    trainer = PolicyTrainer(
        model,
        args,
        draw,
        tokens_per_pass=recipe.tokens_per_pass,
        minibatches=recipe.minibatches,
        tokenizer=tokenizer,
        callbacks=[StopWhenFiltered(recipe.stop), *([] if workers is None else [CloseAtEnd(workers)])],
        peft_config=lora_config(recipe.lora),
    )
    if isinstance(engine, ColocatedEngine):
        engine.generation = trainer.vllm_generation
    return trainer


def _check_explorers(recipe: Recipe, *, uses_vllm: bool) -> None:
    """Refuse explorers where nothing is learnt of them, or where none can be had."""
    why = "vLLM writes what the policy draws, and nothing else" if uses_vllm else "only explore learns from them"
    if uses_vllm or recipe.kind != "explore":
        raise recipe.error(("rollout", "explorers"), f" = {recipe.rollout.explorers}; expected 0: {why}")


def _engine(recipe: Recipe, args: GRPOConfig, model: Any, tokenizer: Any) -> TorchEngine | None:
    """What computes replies in this process; None where a server does."""
    if recipe.rollout.base_url is not None:
        return None
    options = {"pad": tokenizer.pad_token_id, "ends": ends_of(model, tokenizer), "seed": recipe.seed}
    if not args.use_vllm:
        return KeptEngine(model, **options)
    if args.vllm_mode != "colocate" or args.world_size > 1:
        fix = 'with several processes name a server: rollout.base_url and trainer.vllm_mode = "server"'
        raise recipe.error(("trainer", "vllm_mode"), f' = "{args.vllm_mode}" in {args.world_size} processes; {fix}')
    return ColocatedEngine(model, **options)


def _outfit(recipe: Recipe, tokenizer: Any) -> Outfit:
    table = recipe.rollout
    return Outfit(
        tasks=recipe.tasks.source,
        options=recipe.tasks.options,
        protocol=table.protocol,
        seed=recipe.seed,
        session=uuid4().hex[:8],
        size=table.size,
        explorers=table.explorers,
        concurrent=table.concurrent,
        max_malformed=table.max_malformed,
        name=recipe.output.name,
        max_tokens=table.max_tokens,
        temperature=table.temperature,
        tokenizer=tokenizer.backend_tokenizer.to_str(),
        tokenizer_name=recipe.model.path,
        chat_template=tokenizer.chat_template,
        base_url=table.base_url,
        model=table.model or recipe.model.path,
    )


def _rolling(outfit: Outfit, engine: TorchEngine | None, workers: Workers | None, steps: int) -> Roll:
    """Carries out the rollouts of a batch, which is used for so many steps, here or in worker processes."""
    actor, rollouts = outfit.actor(engine), outfit.rollouts()

    async def roll(number: int, indexes: Sequence[int]) -> list[Trajectory]:
        policy = Policy(name=outfit.name, step=number * steps)
        if isinstance(engine, KeptEngine):
            engine.weights_changed()
        if workers is not None:
            return await workers.batch(policy, number, indexes)
        return await rollouts.batch(actor.having(policy), number, indexes)

    return roll


class CloseAtEnd(TrainerCallback):
    """Ends the workers with the training."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called once."""
        self._workers.close()


class StopWhenFiltered(TrainerCallback):
    """Ends training when most groups teach nothing any more: all their runs earn the same."""

    def __init__(self, table: StopTable) -> None:
        self._table = table

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the last steps; they are in the trainer's history, also after it was resumed."""
        shares = [line["filtered/groups"] for line in state.log_history if "filtered/groups" in line]
        recent = shares[-self._table.window :]
        if len(recent) == self._table.window and fmean(recent) > self._table.filtered:
            control.should_training_stop = True
