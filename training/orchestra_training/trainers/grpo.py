"""Online GRPO: rollouts through the graph, and a policy gradient step on each batch of them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from transformers import TrainerCallback
from trl import GRPOConfig

from orchestra_graph.routers.local import LocalRouter
from orchestra_graph.runlog.files import Appender
from orchestra_graph.runlog.record import Policy
from orchestra_graph.vllm import ChatVLLM
from orchestra_training.engine import TorchEngine
from orchestra_training.groups import Reward
from orchestra_training.reward import guarded, paper
from orchestra_training.rollout import Actor, Rollouts, find_tasks
from orchestra_training.trainers.models import (
    ends_of,
    load_model,
    load_tokenizer,
    lora_config,
    protocol_of,
    trainer_config,
)
from orchestra_training.trainers.online import Online
from orchestra_training.trainers.policy import PolicyTrainer
from orchestra_training.trainers.recipe import Recipe, StopTable

REWARDS: Final[dict[str, Reward]] = {"guarded": guarded, "paper": paper}

FIXED: Final[dict[str, Any]] = {
    "loss_type": "dapo",
    "beta": 0.0,
    "gradient_accumulation_steps": 1,
    "temperature": 1.0,
    "remove_unused_columns": False,
}
"""What the weights of the rows and the passes rely on."""


def policy_config(recipe: Recipe, size: int) -> GRPOConfig:
    """TRL's configuration of a policy gradient trainer: clipped at 0.2 and 0.28 unless the recipe says otherwise.

    Args:
        recipe: The recipe.
        size: Rollouts of a group.

    Raises:
        ConfigError: The recipe's `[trainer]` does not fit.
    """
    trainer = {"epsilon": 0.2, "epsilon_high": 0.28, **recipe.trainer}
    batch = {"per_device_train_batch_size": size, "num_generations": size}
    config: GRPOConfig = trainer_config(recipe.model_copy(update={"trainer": trainer}), GRPOConfig, **FIXED, **batch)
    if config.max_steps < 1:
        raise recipe.error(("trainer", "max_steps"), f" = {config.max_steps}; expected the number of steps")
    if config.save_strategy == "steps" and config.save_steps % config.num_iterations:
        told = f" = {config.save_steps:g}; expected a multiple of num_iterations = {config.num_iterations}"
        raise recipe.error(("trainer", "save_steps"), f"{told}: a batch cannot be taken up again in between")
    return config


def train(recipe: Recipe, *, weights: bool = True) -> PolicyTrainer:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    args = policy_config(recipe, recipe.rollout.size)
    tokenizer = load_tokenizer(recipe)
    model = load_model(recipe, weights=weights)
    processes = args.world_size
    if recipe.rollout.tasks < processes:
        raise recipe.error(("rollout", "tasks"), f" = {recipe.rollout.tasks}; expected one a process, {processes}")
    router, busy = _router(recipe, model, tokenizer)
    protocol = protocol_of(recipe)
    name = recipe.output.name

    def act(number: int) -> Actor:
        return Actor(
            router=router,
            protocol=protocol,
            policy=Policy(name=name, step=number * args.num_iterations),
            max_malformed=recipe.rollout.max_malformed,
        )

    draw = Online(
        Rollouts(
            tasks=find_tasks(recipe.tasks.source, recipe.tasks.options),
            seed=recipe.seed,
            size=recipe.rollout.size,
            concurrent=recipe.rollout.concurrent,
        ),
        act,
        busy,
        tasks=recipe.rollout.tasks,
        process=(args.process_index, processes),
        reward=REWARDS[recipe.reward.kind],
        scale_rewards=recipe.reward.scale,
        floor=recipe.reward.floor,
        log=None if recipe.rollout.log is None else Appender(recipe.rollout.log),
    )
    return PolicyTrainer(
        model,
        args,
        draw,
        tokens_per_pass=recipe.tokens_per_pass,
        tokenizer=tokenizer,
        callbacks=[StopWhenFiltered(recipe.stop)],
        peft_config=lora_config(recipe.lora),
    )


def _router(recipe: Recipe, model: Any, tokenizer: Any) -> tuple[BaseChatModel, Callable[[], tuple[float, int]] | None]:
    """Who decides, and how long it has computed and what it has written."""
    table = recipe.rollout
    if table.base_url is not None:
        chat = ChatVLLM(
            model=recipe.output.name, base_url=table.base_url, temperature=1.0, top_p=1.0, max_tokens=table.max_tokens
        )
        return chat, None
    engine = TorchEngine(model, pad=tokenizer.pad_token_id, ends=ends_of(model, tokenizer), seed=recipe.seed)
    router = LocalRouter(
        engine=engine,
        tokenizer=tokenizer.backend_tokenizer,
        chat_template=tokenizer.chat_template,
        temperature=1.0,
        max_tokens=table.max_tokens,
        name=recipe.output.name,
    )
    return router, lambda: (engine.seconds, engine.written)


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
