"""The tasks of a log, asked again: what `orchestra data build grpo` found, in places of your own.

    def open_place(task: LoggedTask) -> Place:
        async def verdict(answer: str | None) -> Verdict:
            return await judge(task.question, answer)

        return Place(tools=[small, large], verdict=verdict)

A recipe names both:

    [tasks]
    source = "logged"
    options = { data = "data/tasks", place = "your_module:open_place" }

A log does not say what the right answer is, so it is the place that judges: by a model, by your own records.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from random import Random

from pydantic import BaseModel, ConfigDict, Json, ValidationError

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences
from orchestra_graph.runlog.record import LoggedBudget
from orchestra_training.datasets.write import read, train_files
from orchestra_training.rollout.task import Place, RolloutTask, find


class LoggedTask(BaseModel):
    """A row of the data set."""

    model_config = ConfigDict(frozen=True)

    question: str
    task_id: str | None = None
    preferences: Json[Preferences]
    budget: Json[LoggedBudget]
    catalog: Json[Catalog] | None = None
    """The tools as the runs saw them; the place has those, and those that the user would never have."""
    runs: int
    """How often it was run, `judged` and `solved`."""
    judged: int
    solved: int


class LoggedTasks:
    """A `TaskSource`: in every step another order, in which no task comes twice before all have had their turn.

    Args:
        data: Folder that `orchestra data build grpo` wrote.
        place: `module:name` of a function that opens a fresh place for a task.

    Raises:
        ConfigError: The data set is not there or of another kind, or the function is not there.
    """

    def __init__(self, *, data: str, place: str) -> None:
        self._tasks = read_tasks(Path(data))
        self._open: Callable[[LoggedTask], Place] = find(place)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        """The task of this seed, step and index."""
        order = self._order(seed, step)
        task = self._tasks[order[index % len(order)]]
        return RolloutTask(
            id=task.task_id or task.question,
            question=task.question,
            open=partial(self._open, task),
            catalog=task.catalog,
            preferences=task.preferences,
            budget=task.budget,
        )

    def _shuffled(self, seed: int, step: int) -> list[int]:
        return Random(f"logged/{seed}/{step}").sample(range(len(self._tasks)), len(self._tasks))


def read_tasks(folder: Path) -> list[LoggedTask]:
    """The tasks of a data set; where it has several splits, those of `train`.

    Raises:
        ConfigError: It is not there, or it is no data set of tasks.
    """
    rows = [row for file in train_files(folder) for row in read(file)]
    if not rows:
        raise ConfigError(f"{folder}: no tasks there; expected a folder that `orchestra data build grpo` wrote")
    try:
        return [LoggedTask.model_validate(row) for row in rows]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{folder}: {place}: {first['msg']}; expected a folder that `orchestra data build grpo` wrote"
        ) from error
