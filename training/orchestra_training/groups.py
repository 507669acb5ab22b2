"""Groups: runs that may be compared with each other, and what they earn.

Runs of one task are comparable when they saw the same catalog, preferences and budget and were decided by the same
version of one policy. Only what a reward needs is kept of a run, so that a log of any length can be grouped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from orchestra_graph.catalog import Catalog
from orchestra_graph.preferences import Preferences
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.filters import Fault, FilterReport, RunFilter, for_evaluation, unjudged, unreached
from orchestra_training.reward.measures import Measures, measure

Reward = Callable[[Sequence[Measures], Preferences], list[float]]
"""From the runs of a group and their preferences to one reward a run, for example `guarded`."""


@dataclass(slots=True)
class Group:
    """Runs that are compared with each other."""

    id: str
    """Hash of what they have in common."""
    preferences: Preferences
    run_ids: list[str] = field(default_factory=list)
    measures: list[Measures] = field(default_factory=list)
    """In the order of `run_ids`."""

    def rewards(self, reward: Reward) -> list[float]:
        """What each run earns."""
        return reward(self.measures, self.preferences)

    @property
    def earned(self) -> list[bool]:
        """Whether each run earned its outcome."""
        return [run.earned for run in self.measures]


def collect(
    runs: Iterable[Trajectory],
    report: FilterReport,
    *,
    evaluate: bool = False,
    key: Callable[[Trajectory], str] | None = None,
) -> list[Group]:
    """Sort runs into groups, in the order of their first runs.

    Args:
        runs: Judged runs, in any order.
        report: Notes the runs that are in no group: for evaluation, not judged, ended because the router could
            not be reached, of a policy or catalog not stated.
        evaluate: Whether runs whose purpose is `evaluate` are wanted as well.
        key: What the runs of a group have in common; `group_id` by default, `example_id` where runs of several policies
            are compared.
    """
    key = group_id if key is None else key
    checks: list[RunFilter] = [unjudged, unreached, incomparable, *([] if evaluate else [for_evaluation])]
    groups: dict[str, Group] = {}
    for run in runs:
        fault = next((fault for check in checks if (fault := check(run)) is not None), None)
        if report.passes(run.run_id, fault):
            id = key(run)
            group = groups.get(id)
            if group is None:
                group = groups[id] = Group(id, run.preferences)
            group.run_ids.append(run.run_id)
            group.measures.append(measure(run))
    return list(groups.values())


def incomparable(run: Trajectory) -> Fault | None:
    """Runs that do not say who decided, or from which catalog."""
    if run.policy is None:
        return Fault("incomparable", "policy", "policy is not stated; expected its name, weights and step")
    if _catalog(run) is None:
        return Fault("incomparable", "catalog", "neither catalog nor catalog_hash is stated")
    return None


def example_id(run: Trajectory) -> str:
    """Hash of what a run was given, whoever decided it: task, tools, preferences and budget."""
    task, catalog, *rest = _given(run)
    # The catalog's own hash has the router's line in it: another router, or its address, is no other example.
    tools = catalog if run.catalog is None else Catalog(tools=run.catalog.tools).hash
    return _hash([task, tools, *rest])


def group_id(run: Trajectory) -> str:
    """Hash of what the runs of a group have in common: the example, the policy's version, and the group's own id."""
    policy = None if run.policy is None else [run.policy.name, run.policy.weights_hash, run.policy.step]
    return _hash([*_given(run), policy, run.protocol, run.group_id])


def _given(run: Trajectory) -> list[Any]:
    task = [run.task.id, run.task.question]
    return [task, _catalog(run), run.preferences.json_data, run.budget.json_data]


def _catalog(run: Trajectory) -> str | None:
    return run.catalog_hash or (None if run.catalog is None else run.catalog.hash)


def _hash(values: list[Any]) -> str:
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
