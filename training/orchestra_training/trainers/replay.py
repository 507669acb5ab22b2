"""GRPO on logged runs: their very tokens, with the logprobs that were stored when they were sampled.

The same step as online, on a data set that `orchestra data build replay` made: its rows hold what their runs earned
against the rest of their groups. Nothing is generated, so the ratio of new to old probabilities grows with every step,
until the clip lets through nothing more: replay a log for a few steps, not for many.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from statistics import fmean
from typing import Any

from orchestra_training.batch import Batch, WeighedRow
from orchestra_training.rows import Row
from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.grpo import policy_config
from orchestra_training.trainers.models import load_model, load_tokenizer, lora_config
from orchestra_training.trainers.policy import PolicyTrainer
from orchestra_training.trainers.recipe import Recipe

COLUMNS = (
    *("prompt_ids", "completion_ids", "mask", "logprobs"),
    *("advantage", "policy_tokens", "reward", "run_id", "group", "turns"),
)


class Replay:
    """Draws batches of groups: each once in a lap, in an order that follows from the seed.

    Args:
        rows: A data set with `COLUMNS`.
        tasks: Groups of a batch, over all processes.
        seed: Of the order.
        process: This process's number, and how many there are.
    """

    def __init__(self, rows: Any, *, tasks: int, seed: int = 0, process: tuple[int, int] = (0, 1)) -> None:
        self._rows = rows
        groups: dict[str, list[int]] = {}
        for place, group in enumerate(rows["group"]):
            groups.setdefault(group, []).append(place)
        self._groups = list(groups.values())
        self._tasks = min(tasks, len(self._groups))
        self._seed = seed
        self._process = process

    def __call__(self, number: int) -> tuple[Batch, Mapping[str, float]]:
        """The batch of this number, and its figures."""
        places = range(number * self._tasks, (number + 1) * self._tasks)
        mine = places[self._process[0] :: self._process[1]]
        groups = [[self._rows[row] for row in self._groups[self._index(place)]] for place in mine]
        rows = [row for group in groups for row in group]
        # By group: at the end of a lap the same one may be drawn twice.
        earned = [reward for group in groups for reward in {row["run_id"]: row["reward"] for row in group}.values()]
        batch = Batch(rows=[_weighed(row) for row in rows], trajectories=len(earned))
        return batch, {"reward": fmean(earned), "rows": float(len(rows))} if rows else {}

    def _index(self, place: int) -> int:
        lap, position = divmod(place, len(self._groups))
        order = list(range(len(self._groups)))
        Random(f"{self._seed}/{lap}").shuffle(order)
        return order[position]


def _weighed(row: Mapping[str, Any]) -> WeighedRow:
    kept = Row(
        row["run_id"],
        tuple(row["turns"]),
        row["prompt_ids"],
        row["completion_ids"],
        row["mask"],
        row["logprobs"],
    )
    return WeighedRow(kept, row["advantage"] / row["policy_tokens"])


def train(recipe: Recipe, *, weights: bool = True) -> PolicyTrainer:
    """The trainer that a recipe describes, ready to train.

    Raises:
        ConfigError: Something does not fit together.
    """
    args = policy_config(recipe, weights=weights)
    process = (args.process_index, args.world_size)
    draw = Replay(read_data(recipe, COLUMNS), tasks=recipe.rollout.tasks, seed=recipe.seed, process=process)
    return PolicyTrainer(
        load_model(recipe, weights=weights),
        args,
        draw,
        tokens_per_pass=recipe.tokens_per_pass,
        tokenizer=load_tokenizer(recipe),
        peft_config=lora_config(recipe.lora),
    )
