"""What the tiny router is trained on after its lessons: the whole ladder of catalogs, and some budgets that bind."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from orchestra_graph.catalog import Catalog
from orchestra_graph.preferences import Budget
from orchestra_graph.workbench.sample import Episode
from orchestra_graph.workbench.wishes import draw_preferences
from orchestra_training.rollout.task import RolloutTask
from orchestra_training.rollout.workbench import MOST_INDEXES, WorkbenchTasks
from orchestra_training.tiny.demonstrate import LADDER


class LadderTasks(WorkbenchTasks):
    """A `TaskSource`: tasks of the workbench, every rung of `LADDER` in turn."""

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        """The task of this seed, step and index."""
        task = super().__call__(seed, step, index)
        assert task.catalog is not None  # the workbench always states it
        return replace(task, budget=draw_budget(Random(f"budget/{seed}/{step}/{index}"), task.catalog))

    def episode(self, seed: int, step: int, index: int) -> Episode:
        """The workbench's own view of a task."""
        vary = LADDER[index % len(LADDER)]
        return self._bench.sample(seed, step * MOST_INDEXES + index, split=self._split, vary=vary)


class PreferringTasks(LadderTasks):
    """A `TaskSource`: the ladder's tasks, four of eight for users who prefer a tool."""

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        """The task of this seed, step and index."""
        task = super().__call__(seed, step, index)
        assert task.catalog is not None  # the workbench always states it
        if index % (2 * len(LADDER)) >= len(LADDER):
            return task
        rng, tools = Random(f"prefer/{seed}/{step}/{index}"), list(task.catalog.tools)
        while not (preferences := draw_preferences(rng, self._split, tools)).prefer:
            pass
        return replace(task, preferences=preferences)


def draw_budget(rng: Random, catalog: Catalog) -> Budget:
    """No limit for three tasks in four; else what may bind, in the size of the catalog's own prices and times."""
    specs = catalog.tools.values()
    dearest = max(spec.price.dollars(input_tokens=300, output_tokens=100, calls=1) for spec in specs)
    limits = {
        "dollars": dearest * 10 ** rng.uniform(-1.5, 1),
        "seconds": max(spec.latency.p50 for spec in specs) * rng.uniform(0.5, 6),
        "turns": rng.randint(1, 4),
    }
    shares = {"dollars": 0.1, "seconds": 0.05, "turns": 0.1}
    return Budget.model_validate({name: limit for name, limit in limits.items() if rng.random() < shares[name]})
