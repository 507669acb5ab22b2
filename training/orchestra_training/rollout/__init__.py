"""Rollouts: tasks run through the same graph that serves, for training.

    rollouts = Rollouts(tasks=WorkbenchTasks(), size=16)
    runs = await rollouts.batch(actor, step, range(8))

`task` says what a task is, for the workbench and for tasks of your own; `run` carries out groups of rollouts, many at
once. A rollout is a trajectory as a run log holds it, with its verdict; one that breaks is a trajectory without one.
"""

from orchestra_training.rollout.run import Actor, Rollouts, roll_out
from orchestra_training.rollout.task import Place, RolloutTask, TaskSource, find_tasks
from orchestra_training.rollout.workbench import WorkbenchTasks

__all__ = ["Actor", "Place", "RolloutTask", "Rollouts", "TaskSource", "WorkbenchTasks", "find_tasks", "roll_out"]
