"""GRPO on logged runs: their very tokens, with the logprobs that were stored when they were sampled.

The same step as online, on batches of groups from a run log. Nothing is generated, so the ratio of new to old
probabilities grows with every step, until the clip lets
through nothing more: replay a log for a few steps, not for many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.batch import Batch, make_batch
from orchestra_training.filters import LEAST_SPREAD, FilterReport
from orchestra_training.groups import Reward, collect
from orchestra_training.metrics import figures
from orchestra_training.reward import guarded
from orchestra_training.trainers.grpo import REWARDS, policy_config
from orchestra_training.trainers.models import load_model, load_tokenizer, lora_config
from orchestra_training.trainers.policy import PolicyTrainer
from orchestra_training.trainers.recipe import Recipe


class Replay:
    """Draws batches from logged runs: each group once in a lap, in an order that follows from the seed.

    Args:
        runs: Judged runs with captures.
        tasks: Groups of a batch, over all processes.
        seed: Of the order.
        process: This process's number, and how many there are.
        reward: What a run earns.
        scale_rewards: As for `orchestra_training.reward.advantages`.
        floor: Least spread of the rewards of a group that is trained on.

    Raises:
        ConfigError: No runs can be compared.
    """

    def __init__(
        self,
        runs: Sequence[Trajectory],
        *,
        tasks: int,
        seed: int = 0,
        process: tuple[int, int] = (0, 1),
        reward: Reward = guarded,
        scale_rewards: Literal["group", "none"] = "group",
        floor: float = LEAST_SPREAD,
    ) -> None:
        report = FilterReport()
        by_id = {run.run_id: run for run in runs}
        self._groups = [[by_id[id] for id in group.run_ids] for group in collect(runs, report)]
        if not self._groups:
            counts = ", ".join(f"{count} {name}: {kind}" for (name, kind), count in report.counts.items())
            raise ConfigError(f"{len(runs)} runs, and no group of judged ones among them ({counts or 'none at all'})")
        self._tasks = min(tasks, len(self._groups))
        self._seed = seed
        self._process = process
        self._reward = reward
        self._scale_rewards = scale_rewards
        self._floor = floor

    def __call__(self, number: int) -> tuple[Batch, Mapping[str, float]]:
        """The batch of this number, and its figures."""
        places = range(number * self._tasks, (number + 1) * self._tasks)
        mine = places[self._process[0] :: self._process[1]]
        runs = [run for place in mine for run in self._groups[self._index(place)]]
        batch = make_batch(runs, reward=self._reward, scale_rewards=self._scale_rewards, floor=self._floor)
        return batch, {**figures(runs, batch, self._reward), "rows": float(len(batch.rows))}

    def _index(self, place: int) -> int:
        lap, position = divmod(place, len(self._groups))
        order = list(range(len(self._groups)))
        Random(f"{self._seed}/{lap}").shuffle(order)
        return order[position]


def train(recipe: Recipe, *, weights: bool = True) -> PolicyTrainer:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    assert recipe.data is not None  # checked when the recipe was read
    args = policy_config(recipe, recipe.rollout.size)
    try:
        draw = Replay(
            list(read_runs(recipe.data.path)),
            tasks=recipe.rollout.tasks,
            seed=recipe.seed,
            process=(args.process_index, args.world_size),
            reward=REWARDS[recipe.reward.kind],
            scale_rewards=recipe.reward.scale,
            floor=recipe.reward.floor,
        )
    except ConfigError as error:
        raise recipe.error(("data", "path"), f' = "{recipe.data.path}": {error}') from error
    return PolicyTrainer(
        load_model(recipe, weights=weights),
        args,
        draw,
        tokens_per_pass=recipe.tokens_per_pass,
        tokenizer=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )
