"""Plays runs: a router on an example, through the same graph that serves; logged, judged, summed up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final

from orchestra_graph.errors import RouterError, ServerError, ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_training.evaluate.examples import Example, ExampleSet, Trial
from orchestra_training.evaluate.played import Key, Played, about, played
from orchestra_training.evaluate.routers import RouterSpec, take_seat
from orchestra_training.evaluate.score import Reference
from orchestra_training.filters import unreached
from orchestra_training.reward.measures import is_solved
from orchestra_training.verdicts.ruling import ruling

BROKEN_FIRST: Final = 5
"""Runs of a router that break before any of its runs ends: it cannot be reached, and nothing more is tried."""
REFUSED_IN_A_ROW: Final = 5
"""Verdicts that cannot be asked for, one after another, after which no more runs are paid for."""

_ended: ContextVar[list[Mapping[str, Any]]] = ContextVar("orchestra_training_ended")


class WatchedLog(RunLog):
    """A run log that hands the trajectory of a run to whoever started it, as it is written."""

    def finish(self, run_id: str, trajectory: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Write the run's line."""
        captures = super().finish(run_id, trajectory)
        _ended.get().append(trajectory)
        return captures


@dataclass(frozen=True, slots=True)
class Job:
    """One example, for all members that are still to play it."""

    set: int
    """Place of its set."""
    index: int
    members: tuple[tuple[int, int], ...]
    """Places of router and member."""


@dataclass(slots=True)
class Stage:
    """Everything that playing needs."""

    routers: Sequence[RouterSpec]
    sets: Sequence[ExampleSet]
    log: RunLog
    reference: Reference | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of servers by environment variable."""
    _broken_first: dict[str, int] = field(default_factory=dict)
    """By router: runs that broke before any had ended; -1 from then on."""
    _refused: int = 0
    """Verdicts in a row that could not be asked for."""

    async def play(self, job: Job) -> AsyncIterator[Played]:
        """One run a member, one after another."""
        examples = self.sets[job.set]
        example = examples.example(job.index)
        for router, place in job.members:
            spec = self.routers[router]
            key = Key(spec.name, place, examples.name, examples.seed, job.index)
            member = spec.members[place]
            seat = take_seat(spec.name, member, example, self.keys)
            trial = examples.trial(example)
            graph = create_orchestrator(
                seat.router,
                trial.tools,
                catalog=seat.catalog,
                preferences=example.preferences,
                budget=example.budget,
                protocol=seat.protocol,
                run_log=self.log,
                fallback=None,
            )
            told = about(key, example, split=examples.split, identity=member.identity)
            ended: list[Mapping[str, Any]] = []
            _ended.set(ended)
            try:
                state = await graph.compile().ainvoke(
                    {"messages": [("user", example.question)]}, context={"task": told}
                )
            except RouterError as error:
                yield self._broken(key, example, str(error))
                continue
            # Nested orchestrators end before the run that they are part of.
            run = Trajectory.model_validate(ended[-1])
            fault = unreached(run)
            if fault is not None:
                yield self._broken(key, example, fault.detail, run)
                continue
            self._broken_first[spec.name] = -1
            verdict = await self._verdict(trial, state["answer"])
            self.log.judge(run.run_id, verdict)
            yield self._ended(key, example, run, verdict)

    async def _verdict(self, trial: Trial, answer: str | None) -> Verdict:
        """The verdict; one without an outcome where who gives it refused this answer.

        Raises:
            ServerError: The judge's server refused several in a row.
            ToolError: The sandbox could not run several in a row.
        """
        try:
            verdict = await trial.verdict(answer)
        except (ServerError, ToolError) as error:
            self._refused += 1
            if self._refused >= REFUSED_IN_A_ROW:
                raise
            return ruling(None, "nobody", str(error))
        self._refused = 0
        return verdict

    def _ended(self, key: Key, example: Example, run: Trajectory, verdict: Verdict) -> Played:
        """A run that ended; one that nobody could judge counts as not solved, and is told."""
        if is_solved(verdict) is not None:
            return played(key, example, run.model_copy(update={"verdict": verdict}), self.reference)
        unsolved = run.model_copy(update={"verdict": verdict.model_copy(update={"outcome": 0.0})})
        reason = getattr(verdict, "reason", verdict.by)
        return replace(played(key, example, unsolved, self.reference), error=f"no verdict: {reason}")

    def _broken(self, key: Key, example: Example, error: str, run: Trajectory | None = None) -> Played:
        """A run whose router failed: not solved, and told; without a verdict, so that it is played again.

        Raises:
            RouterError: None of the router's first runs has ended.
        """
        broken = self._broken_first.get(key.router, 0)
        if broken >= 0:
            self._broken_first[key.router] = broken + 1
            if broken + 1 >= BROKEN_FIRST:
                raise RouterError(f"router {key.router!r}: its first {BROKEN_FIRST} runs broke: {error}")
        if run is not None:
            unsolved = run.model_copy(update={"verdict": Verdict(outcome=0.0, by="nobody")})
            return replace(played(key, example, unsolved, self.reference), run_id=None, error=error)
        worth = None if self.reference is None else 0.0
        return Played(key, example.unit, example.kind, None, solved=False, score=worth, utility=worth, error=error)


async def play_all(stage: Stage, jobs: Iterable[Job], on_run: Callable[[Played], None], *, concurrent: int) -> None:
    """Play jobs in this process, several at a time.

    Args:
        stage: What playing needs.
        jobs: What to play.
        on_run: Told of each run as it ends.
        concurrent: Jobs at a time.

    Raises:
        OrchestraError: A run cannot be played; runs that have ended are in the log.
    """
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            async for run in stage.play(job):
                on_run(run)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrent):
            group.create_task(work())
