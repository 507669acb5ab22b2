"""Where the batches of online GRPO come from: rollouts of the weights as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from orchestra_graph.portal import Portal
from orchestra_graph.runlog.files import Appender
from orchestra_graph.runlog.log import write_run
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.batch import Batch
from orchestra_training.groups import Reward
from orchestra_training.metrics import figures
from orchestra_training.reward.measures import is_solved
from orchestra_training.rollout.workers import RolloutError

Roll = Callable[[int, Sequence[int]], Coroutine[Any, Any, list[Trajectory]]]
"""From the number of a batch and the indexes of its tasks to their rollouts, group after group."""

MOST_BROKEN = 0.5
"""Share of rollouts without an outcome in a batch above which training stops: something is wrong with tasks, tools,
server or judge."""


class Online:
    """Draws a batch by carrying out rollouts.

    Args:
        roll: Carries them out.
        busy: Seconds that the policy has computed and tokens that it has written so far, where that is known.
        tasks: Tasks of a batch, over all processes.
        process: This process's number, and how many there are; each takes its share of the tasks.
        make: What is learnt from the rollouts.
        reward: What a run earns, for the figures.
        log: Run log that keeps the rollouts.
    """

    def __init__(
        self,
        roll: Roll,
        busy: Callable[[], tuple[float, int]] | None = None,
        *,
        tasks: int,
        process: tuple[int, int] = (0, 1),
        make: Callable[[Sequence[Trajectory]], Batch],
        reward: Reward,
        log: Appender | None = None,
    ) -> None:
        self._roll = roll
        self._busy = busy
        self._indexes = range(process[0], tasks, process[1])
        self._make = make
        self._reward = reward
        self._log = log
        self._portal = Portal()

    def __call__(self, number: int) -> tuple[Batch, Mapping[str, float]]:
        """The batch of this number, and its figures.

        Raises:
            RolloutError: Most rollouts broke, or nobody could judge them.
        """
        busy = self._busy() if self._busy is not None else None
        started = time.perf_counter()
        runs = self._portal.run(self._roll(number, self._indexes))
        rolled_out = time.perf_counter()
        _refuse_broken(runs)
        self._keep(runs)
        batch = self._make(runs)
        told = figures(runs, batch, self._reward)
        told["seconds/reward"] = time.perf_counter() - rolled_out
        told["seconds/rollout"] = rolled_out - started
        told["rollouts_per_second"] = len(runs) / (rolled_out - started)
        told["rows"] = float(len(batch.rows))
        if self._busy is not None and busy is not None:
            seconds, written = self._busy()
            told["seconds/generation"] = seconds - busy[0]
            # The graph's work, tools and verdicts; what went on while replies were computed is not counted again.
            told["seconds/tools"] = max(0.0, told["seconds/rollout"] - told["seconds/generation"])
            told["tokens_per_second"] = (written - busy[1]) / max(1e-9, seconds - busy[0])
        return batch, told

    def _keep(self, runs: Sequence[Trajectory]) -> None:
        if self._log is None:
            return
        for run in runs:
            record = run.model_dump(mode="json", exclude_unset=True)
            write_run(self._log, run.run_id, record, record.get("captures", {}))


def _refuse_broken(runs: Sequence[Trajectory]) -> None:
    broken = [run for run in runs if is_solved(run.verdict) is None]
    if len(broken) > MOST_BROKEN * len(runs):
        why = next(filter(None, map(_why, broken)), "no verdict")
        raise RolloutError(f"{len(broken)} of {len(runs)} rollouts broke; the first: {why}")


def _why(run: Trajectory) -> str | None:
    """What broke a run; a judge that could not tell gives its reason."""
    if run.error or run.verdict is None:
        return run.error
    return f"no outcome by {run.verdict.by}: {getattr(run.verdict, 'reason', 'no reason given')}"
