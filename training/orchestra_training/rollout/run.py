"""Carries out rollouts: groups of them on the same task, many at once, through `create_orchestrator` itself.

No fallback router, no constraint and, as the protocol is switched, no repair: what is trained is what the policy wrote.
A rollout that breaks, in its place, its graph or its verdict, is a trajectory that says so and has no verdict. One that
has grown until the policy cannot read it any more has no answer, and is judged so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from uuid import uuid4

from langchain_core.language_models import BaseChatModel

from orchestra_graph.billing import is_overflow
from orchestra_graph.errors import RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.runlog.memory import MemoryLog
from orchestra_graph.runlog.record import Policy, Trajectory, Verdict
from orchestra_training.exploration import EXPLORES, Explorer
from orchestra_training.filters import unreached
from orchestra_training.metrics import LABELS
from orchestra_training.rollout.task import RolloutTask, TaskSource

DEADLINE: Final = 1800.0
"""Seconds after which a rollout counts as broken: a tool that never returns must not hold up the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who decides in a rollout."""

    router: BaseChatModel
    """The trainer's model in process, or a vLLM server; its replies carry token ids and logprobs."""
    protocol: Protocol
    """With repair switched off, where it has any."""
    policy: Policy
    """Which weights these are."""
    max_malformed: int = 1
    """Malformed replies in a row that end a rollout."""

    def having(self, policy: Policy) -> Actor:
        """The same with these weights."""
        return replace(self, policy=policy)

    def exploring(self, reply: int) -> Actor:
        """The same but for one reply; the router's engine must be able to explore."""
        router: Any = self.router
        return replace(self, router=router.model_copy(update={"engine": Explorer(router.engine, reply)}))


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Where batches of rollouts come from."""

    tasks: TaskSource
    seed: int = 0
    size: int = 16
    """Rollouts of a task, its group."""
    explorers: int = 0
    """Rollouts of a task beside its group, see `orchestra_training.exploration`."""
    concurrent: int = 1024
    """Rollouts at a time."""
    deadline: float = DEADLINE
    session: str = ""
    """Tells the groups of one start of a training from those of another: one that is resumed rolls out the steps behind
    its last checkpoint again, with other weights."""

    async def batch(self, actor: Actor, step: int, indexes: Sequence[int]) -> list[Trajectory]:
        """The rollouts of a step.

        Args:
            actor: Who decides.
            step: Counts batches from 0.
            indexes: Tasks of the step, or this process's share of them.

        Returns:
            Group after group, in the order of the indexes.
        """
        groups = await asyncio.gather(*(self.group(actor, step, index) for index in indexes))
        return [run for runs in groups for run in runs]

    async def group(self, actor: Actor, step: int, index: int, places: Sequence[int] | None = None) -> list[Trajectory]:
        """The rollouts of one task, or those at some places of the group; explorers follow it."""
        task = self.tasks(self.seed, step, index)
        drawn = f"{self.seed}/{step}/{index}"
        about = {
            "id": task.id,
            "group_id": f"{self.session}/{drawn}" if self.session else drawn,
            "split": task.split,
            "purpose": "train",
            "seeds": {"seed": self.seed, "step": step, "index": index},
            LABELS: dict(task.labels),
        }

        async def rollout(place: int) -> Trajectory:
            told, who = {**about, "rollout": place}, actor
            if place >= self.size:
                told[EXPLORES] = place - self.size
                who = actor.exploring(place - self.size)
            async with self._free:
                return await roll_out(task, who, told, deadline=self.deadline)

        return list(await asyncio.gather(*map(rollout, places or range(self.size + self.explorers))))

    @cached_property
    def _free(self) -> asyncio.Semaphore:
        """Room for rollouts, of whatever group."""
        return asyncio.Semaphore(self.concurrent)


async def roll_out(task: RolloutTask, actor: Actor, about: dict[str, Any], *, deadline: float = DEADLINE) -> Trajectory:
    """One rollout, with its verdict; never raises for what happens in it.

    Args:
        task: What is done.
        actor: Who decides.
        about: What the log says of it, as for `orchestra_graph.state.About`.
        deadline: Seconds it may take.
    """
    log = MemoryLog()
    verdict: Verdict | None = None
    error: Exception | None = None
    try:
        async with asyncio.timeout(deadline):
            place = task.open()
            graph = create_orchestrator(
                actor.router,
                place.tools,
                catalog=task.catalog,
                preferences=task.preferences,
                budget=task.budget,
                protocol=actor.protocol,
                constraint=None,
                run_log=log,
                fallback=None,
                max_malformed=actor.max_malformed,
            ).compile()
            try:
                state = await graph.ainvoke({"messages": [("user", task.question)]}, context={"task": about})
                answer = state["answer"]
            except RouterError as refused:
                if not is_overflow(refused):
                    raise
                answer, error = None, refused
            verdict = await place.verdict(answer)
    except Exception as caught:  # kept in the trajectory, counted by whoever trains on it
        error = caught
    return _told(task, actor, about, log, verdict, error)


def _told(
    task: RolloutTask,
    actor: Actor,
    about: dict[str, Any],
    log: MemoryLog,
    verdict: Verdict | None,
    error: Exception | None,
) -> Trajectory:
    """The trajectory of a rollout that has ended, whichever way."""
    # One that broke before its graph began has left nothing.
    run = next(iter(log.take()), None) or Trajectory.model_validate(
        {**about, "run_id": uuid4().hex, "task": {"id": task.id, "question": task.question}, "ended": "failed"}
    )
    lost = unreached(run)
    if error is None and lost is not None:
        error, verdict = RouterError(lost.detail), None
    changes: dict[str, Any] = {"policy": actor.policy, "verdict": verdict}
    if error is not None:
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        changes |= {"error": told, "ended": "failed"}
        if not run.captures:
            changes["verdict"] = None  # a first prompt that is too long is not the policy's fault
    return run.model_copy(update=changes)
