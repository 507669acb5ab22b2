"""What is left out of training, each time with the reason.

A filter looks at one run, one turn or one group and says what is wrong with it, or None. `FilterReport.passes` counts
and lists what it found:

    report = FilterReport()
    runs = keep_runs(read_runs("runs.jsonl"), [for_evaluation, invalid_output, stale(step=40, steps=2)], report)

Filters of turns take a turn's tokens out of training, not its charges out of the reward.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.state import NO_ANSWER
from orchestra_graph.turns import Turn
from orchestra_training.reward import FLOORS
from orchestra_training.reward.credit import not_chosen
from orchestra_training.reward.measures import is_solved

LEAST_SPREAD: Final = FLOORS["paper"]
"""Sample standard deviation of a group's rewards below which it teaches nothing (paper, section 3.2)."""


class Fault(NamedTuple):
    """What is wrong with a run, a turn or a group."""

    filter: str
    kind: str
    """One of a few words, to be counted."""
    detail: str
    """The value and what was expected, for a person."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """One thing that was left out."""

    id: str
    """Id of the run, the turn or the group."""
    fault: Fault


@dataclass(slots=True)
class FilterReport:
    """What one or several filters let pass, and what they left out."""

    kept: int = 0
    dropped: list[Dropped] = field(default_factory=list)

    def passes(self, id: str, fault: Fault | None) -> bool:
        """Note what a filter found.

        Args:
            id: Id of the run, the turn or the group.
            fault: What is wrong with it.

        Returns:
            Whether nothing is wrong.
        """
        if fault is None:
            self.kept += 1
        else:
            self.dropped.append(Dropped(id, fault))
        return fault is None

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How many were left out, by filter and kind."""
        return Counter((dropped.fault.filter, dropped.fault.kind) for dropped in self.dropped)


T = TypeVar("T")

RunFilter = Callable[[Trajectory], Fault | None]
TurnFilter = Callable[[Turn], Fault | None]


def for_evaluation(run: Trajectory) -> Fault | None:
    """Runs whose tasks measure a policy, so that it must not be trained on them."""
    if run.purpose != "evaluate":
        return None
    return Fault("for_evaluation", "evaluate", "purpose = evaluate; expected train or serve")


def unjudged(run: Trajectory) -> Fault | None:
    """Runs of which nobody knows whether they solved their task."""
    if is_solved(run.verdict) is not None:
        return None
    by = "" if run.verdict is None else f" by {run.verdict.by}"
    return Fault("unjudged", "no_verdict", f"no outcome{by}; expected one from 0 to 1")


def unreached(run: Trajectory) -> Fault | None:
    """Runs that ended because the router's model could not be reached: they say nothing of the policy."""
    if run.stopped_by != "router":
        return None
    problems = [turn["decision"].get("problem") for turn in run.turns if turn["decision"]["by"] == "router"]
    last = problems[-1] if problems else None
    return Fault("unreached", "router_error", last["detail"]) if last and last["kind"] == "router_error" else None


def invalid_output(run: Trajectory) -> Fault | None:
    """Runs without a valid answer (paper, section 3.2)."""
    if run.ended != "answered":
        return Fault("invalid_output", run.ended, run.error or f"the run is {run.ended}; expected an answer")
    if run.answer is None or not run.answer.strip() or run.answer == NO_ANSWER:
        return Fault("invalid_output", "no_answer", f"answer = {run.answer!r}; expected a text")
    if run.stopped_by == "router":
        return Fault("invalid_output", "gave_up", "stopped by the router; expected an answer of its own")
    return None


def stale(*, step: int, steps: int) -> RunFilter:
    """Runs of a policy that is too old to be learnt from.

    Args:
        step: Training step of the policy that learns.
        steps: How many steps older a run's policy may be; the recipe says it.

    Raises:
        ConfigError: One of them is negative.
    """
    if step < 0 or steps < 0:
        raise ConfigError(f"stale(step={step}, steps={steps}): expected numbers from 0 on")

    def check(run: Trajectory) -> Fault | None:
        made_at = None if run.policy is None else run.policy.step
        if made_at is None:
            return Fault("stale", "unknown", "policy.step is not stated; expected the training step of the weights")
        if made_at > step:
            return Fault("stale", "newer", f"policy.step = {made_at}; expected at most {step}, the policy's own")
        if step - made_at > steps:
            return Fault("stale", "old", f"policy.step = {made_at}; expected at least {step - steps}")
        return None

    return check


def other_choice(turn: Turn) -> Fault | None:
    """Turns that the policy did not choose: they earn it no reward."""
    why = not_chosen(turn)
    return None if why is None else Fault("other_choice", why, f"decided by {turn['decision']['by']}: {why}")


def bad_format(turn: Turn) -> Fault | None:
    """Turns whose reply is not, or not as a whole, a well-formed call (the paper's format filter)."""
    problem = turn["decision"].get("problem")
    if problem is None or problem["kind"] in ("truncated", "router_error"):
        return None
    return Fault("bad_format", problem["kind"], problem["detail"])


def truncated(turn: Turn) -> Fault | None:
    """Turns whose reply was cut off at the length limit."""
    problem = turn["decision"].get("problem")
    if problem is None or problem["kind"] != "truncated":
        return None
    return Fault("truncated", "truncated", problem["detail"])


TURN_FILTERS: Final[tuple[TurnFilter, ...]] = (other_choice, bad_format, truncated)
"""What every recipe leaves out of the backward pass."""


def keep_runs(runs: Iterable[Trajectory], filters: Sequence[RunFilter], report: FilterReport) -> Iterator[Trajectory]:
    """Runs that pass all filters; the first that finds something is noted."""
    for run in runs:
        if report.passes(run.run_id, _first(run, filters)):
            yield run


def keep_turns(run: Trajectory, report: FilterReport, filters: Sequence[TurnFilter] = TURN_FILTERS) -> list[Turn]:
    """Turns of a run that pass all filters; the first that finds something is noted."""
    return [turn for turn in run.turns if report.passes(turn["id"], _first(turn, filters))]


def homogeneous(rewards: Sequence[float], solved: Sequence[bool], *, floor: float = LEAST_SPREAD) -> Fault | None:
    """Groups whose runs earn about the same (paper, section 3.2).

    Args:
        rewards: One a run.
        solved: Whether the run earned its outcome; tells what sort of group is left out.
        floor: Least sample standard deviation of a group that stays. That of a single run is 0.

    >>> homogeneous([0.0, 0.0, 0.0], [False, False, False]).kind
    'all_failed'
    >>> homogeneous([1.0, 1.4], [True, True]) is None
    True
    """
    spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    if spread >= floor:
        return None
    kind = "all_solved" if all(solved) else "mixed" if any(solved) else "all_failed"
    runs = "1 run" if len(rewards) == 1 else f"{len(rewards)} runs"
    return Fault("homogeneous", kind, f"{runs}, rewards with a deviation of {spread:.3g}; expected at least {floor:g}")


def _first(item: T, filters: Sequence[Callable[[T], Fault | None]]) -> Fault | None:
    return next((fault for check in filters if (fault := check(item)) is not None), None)
