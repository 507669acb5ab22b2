"""Tasks of the workbench: without end, each with a catalog, prices and preferences that nobody has seen before."""

from __future__ import annotations

from functools import partial
from typing import Final

from orchestra_graph.preferences import Budget
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.workbench.bench import Workbench
from orchestra_graph.workbench.sample import Episode
from orchestra_graph.workbench.wording import Split
from orchestra_training.rollout.task import Place, RolloutTask
from orchestra_training.verdicts.ruling import ruling

BY: Final = "workbench"
MOST_INDEXES: Final = 1_000_000
"""Tasks of a step; the stream of the workbench is cut into pieces of this length."""


class WorkbenchTasks:
    """Samples the workbench.

    Args:
        split: Split of phrasings, descriptions and preference texts.
        seed: Gives the workbench's knowledge base.
        budget: What a rollout may spend, as for `Budget`.
    """

    def __init__(self, *, split: Split = "train", seed: int = 0, budget: dict[str, float] | None = None) -> None:
        self._bench = Workbench(seed=seed)
        self._split = split
        self._budget = Budget.model_validate(budget or {})

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        """The task of this seed, step and index."""
        episode = self.episode(seed, step, index)
        return RolloutTask(
            id=episode.task.id,
            question=episode.task.question,
            open=partial(self._open, episode),
            catalog=episode.catalog,
            preferences=episode.preferences,
            budget=self._budget,
            split=episode.task.split,
            labels=episode.identity,
        )

    def episode(self, seed: int, step: int, index: int) -> Episode:
        """The workbench's own view of a task: which expert is behind each name as well."""
        return self._bench.sample(seed, step * MOST_INDEXES + index, split=self._split)

    def _open(self, episode: Episode) -> Place:
        world = self._bench.world(episode.task)

        async def verdict(answer: str | None) -> Verdict:
            return ruling(float(await self._bench.verdict(episode.task, answer, world)), BY)

        return Place(self._bench.tools(world, catalog=episode.catalog, identity=episode.identity), verdict)
