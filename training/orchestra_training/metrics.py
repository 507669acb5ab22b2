"""Figures of a batch of runs, by the names under which trainers log them.

reward, reward/spread                     mean, and mean deviation within a group
reward/{accuracy,cost,latency,...}        what each term adds to the mean reward
success, dollars, seconds, turns          means over judged runs
share/TOOL, share_priciest                of the calls; a task may label tools that have made-up names
malformed, broken                         of the turns without a call; of the runs without a verdict
explored                                  of the groups: those of which an explorer did better
filtered/groups, filtered/FILTER          of the groups; of the groups, runs or turns that each filter judged
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import fsum
from statistics import fmean, pstdev
from typing import Final

from orchestra_graph.preferences import Preferences
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.report.summary import priciest_tool
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.turns import sent_calls
from orchestra_training.batch import Batch
from orchestra_training.exploration import explores
from orchestra_training.filters import bad_format, invalid_output
from orchestra_training.groups import Group, Reward
from orchestra_training.reward import proportional
from orchestra_training.reward.measures import measure

LABELS: Final = "labels"
"""Field of a run's task: what to call tools in figures, by their names in its catalog."""

_NOTHING: Final = Preferences(accuracy=0, cost=0, latency=0)
_TERMS: Final[Mapping[str, Callable[[Preferences], Preferences]]] = {
    "accuracy": lambda all: _NOTHING.model_copy(update={"accuracy": all.accuracy}),
    "cost": lambda all: _NOTHING.model_copy(update={"cost": all.cost}),
    "latency": lambda all: _NOTHING.model_copy(update={"latency": all.latency}),
    "prefer": lambda all: _NOTHING.model_copy(update={"prefer": all.prefer}),
    "avoid": lambda all: _NOTHING.model_copy(update={"avoid": all.avoid}),
}


def figures(runs: Sequence[Trajectory], batch: Batch, reward: Reward) -> dict[str, float]:
    """The figures of a step.

    Args:
        runs: All rollouts, the broken ones among them, and explorers, which count in `reward` and `explored` alone.
        batch: What was made of them.
        reward: By which they were scored.
    """
    explorers = sum(map(explores, runs))
    runs = [run for run in runs if not explores(run)]
    judged = [run for run in runs if run.verdict is not None and run.verdict.outcome is not None]
    found = {"broken": 1 - len(judged) / len(runs)} if runs else {}
    found |= _rewards(batch, reward)
    found |= _means(judged)
    found |= _shares(judged)
    found |= _filters(runs, batch)
    if explorers:
        found["explored"] = batch.explored / max(1, len(batch.groups))
    return found


def _rewards(batch: Batch, reward: Reward) -> dict[str, float]:
    rewards = [value for group in batch.rewards for value in group]
    if not rewards:
        return {}
    found = {"reward": fmean(rewards), "reward/spread": fmean(map(pstdev, batch.rewards))}
    for name, only in _TERMS.items():
        parts = [value for group in batch.groups for value in _part(group, reward, only)]
        found[f"reward/{name}"] = fmean(parts)
    return found


def _part(group: Group, reward: Reward, only: Callable[[Preferences], Preferences]) -> list[float]:
    """What one term adds to each run's reward."""
    term = only(group.preferences)
    if not _whole(term):
        return [0.0] * len(group.measures)
    # It divides by the sum of the weights; the other rewards are linear in them.
    share = _whole(term) / _whole(group.preferences) if reward is proportional else 1.0
    return [share * part for part in reward(group.measures, term)]


def _whole(preferences: Preferences) -> float:
    weights = (preferences.accuracy, preferences.cost, preferences.latency)
    return fsum([*weights, *preferences.prefer.values(), *preferences.avoid.values()])


def _means(judged: Sequence[Trajectory]) -> dict[str, float]:
    if not judged:
        return {}
    measures = [measure(run) for run in judged]
    turns = [turn for run in judged for turn in run.turns]
    return {
        "success": fmean(run.solved for run in measures),
        "dollars": fmean(run.dollars for run in measures),
        "seconds": fmean(run.seconds for run in measures),
        "turns": len(turns) / len(judged),
        "malformed": sum(not turn["decision"]["calls"] for turn in turns) / max(1, len(turns)),
    }


def _shares(judged: Sequence[Trajectory]) -> dict[str, float]:
    calls: Counter[str] = Counter()
    dear = 0
    for run in judged:
        labels = (run.task.model_extra or {}).get(LABELS, {})
        priciest = None if run.catalog is None else priciest_tool(run.catalog)
        for tool in _called(run):
            calls[labels.get(tool, tool)] += 1
            dear += tool == priciest
    total = calls.total()
    if not total:
        return {}
    return {**{f"share/{tool}": count / total for tool, count in calls.items()}, "share_priciest": dear / total}


def _called(run: Trajectory) -> Iterator[str]:
    for turn in run.turns:
        yield from (call["tool"] for call, _ in sent_calls(turn) if call["tool"] != FINAL_ANSWER)


def _filters(runs: Sequence[Trajectory], batch: Batch) -> dict[str, float]:
    turns = [turn for run in runs for turn in run.turns]
    return {
        "filtered/groups": batch.filtered_share,
        "filtered/turns": sum(bad_format(turn) is not None for turn in turns) / max(1, len(turns)),
        "filtered/runs": sum(invalid_output(run) is not None for run in runs) / max(1, len(runs)),
    }
