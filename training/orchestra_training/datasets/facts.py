"""What is in run logs and in data sets, in figures: what `orchestra data show` prints and cards state."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestra_graph.runlog.record import Trajectory
from orchestra_training.datasets.source import Logs
from orchestra_training.filters import FilterReport, homogeneous
from orchestra_training.groups import collect, example_id
from orchestra_training.harvest.fidelity import fidelity
from orchestra_training.reward.guarded import guarded
from orchestra_training.reward.measures import is_solved
from orchestra_training.rows import Row, rows_of

IDS: Final = frozenset({"input_ids", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids"})
"""Columns of tokens."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Count, mean, least, median, 95th percentile and largest of some numbers; nothing but the count of none.

    The percentile is by nearest rank: the least number that 95 in 100 of them are not above.
    """
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "mean": statistics.fmean(ordered),
        "least": ordered[0],
        "median": statistics.median(ordered),
        "p95": ordered[-(-95 * len(ordered) // 100) - 1],
        "largest": ordered[-1],
    }


def told(report: FilterReport) -> dict[str, Any]:
    """A report as JSON: how many were kept, and left out by filter and kind."""
    counts = sorted(report.counts.items())
    return {"kept": report.kept, "left_out": {f"{filter}: {kind}": count for (filter, kind), count in counts}}


def of_logs(logs: Logs, runs: Iterable[Trajectory] | None = None) -> tuple[dict[str, Any], Row | None]:
    """Figures of run logs, and one row of them.

    Args:
        logs: They are read once.
        runs: The same runs, where somebody watches the reading.
    """
    seen, report = _Seen(), FilterReport()
    groups = collect(seen.counted(logs if runs is None else runs), report, evaluate=True)
    rewards = [group.rewards(guarded) for group in groups]
    kinds = Counter(
        "mixed rewards" if (fault := homogeneous(earned, group.earned)) is None else fault.kind
        for group, earned in zip(groups, rewards, strict=True)
    )
    return {
        "runs": seen.runs,
        "read": read_facts(logs),
        **{name: dict(sorted(counts.items())) for name, counts in seen.counts.items()},
        "examples": len(seen.examples),
        "groups": {
            "count": len(groups),
            "runs": spread([len(group.run_ids) for group in groups]),
            "kinds": dict(kinds),
        },
        "ungrouped": told(report)["left_out"],
        "rewards": spread([value for earned in rewards for value in earned]),
        "turns": told(seen.turns),
        "rows": {name: spread(lengths) for name, lengths in seen.lengths.items()},
    }, seen.sample


def read_facts(logs: Logs) -> dict[str, Any]:
    """What the last reading of logs came upon."""
    read = logs.read
    return {
        "lines": read.lines,
        "runs": read.runs,
        "superseded": read.superseded,
        "verdicts": read.verdicts,
        "duplicates": logs.duplicates,
        "faults": dict(sorted(read.faults.items())),
    }


def of_examples(examples: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Figures of each column of a data set, and its first example.

    Lists are told by their lengths, numbers by their values, flags and texts by how many there are of which.
    """
    numbers: dict[str, array[float]] = {}
    flags: dict[str, Counter[str]] = {}
    first: Mapping[str, Any] | None = None
    for example in examples:
        first = example if first is None else first
        for name, value in _numbers(example):
            numbers.setdefault(name, array("d")).append(value)
        for name, value in example.items():
            if isinstance(value, bool):
                flags.setdefault(name, Counter())[str(value).lower()] += 1
    return {
        **{name: spread(values) for name, values in numbers.items()},
        **{n: dict(c) for n, c in flags.items()},
    }, first


def _numbers(example: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in example.items():
        if name in IDS:
            yield name, len(value)
        elif name == "labels":
            yield "trained tokens", sum(label >= 0 for label in value)
        elif name == "mask":
            yield "trained tokens", sum(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


@dataclass(slots=True)
class _Seen:
    """What was seen of the runs so far."""

    runs: int = 0
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {
            name: Counter()
            for name in ("purpose", "ended", "split", "policy", "judged_by", "solved", "fidelity", "shortfall")
        }
    )
    examples: set[str] = field(default_factory=set)
    turns: FilterReport = field(default_factory=FilterReport)
    lengths: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("q") for name in ("prompt tokens", "completion tokens", "trained tokens")}
    )
    sample: Row | None = None

    def counted(self, runs: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """The runs, which are counted as they go by."""
        for run in runs:
            self._count(run)
            yield run

    def _count(self, run: Trajectory) -> None:
        self.runs += 1
        stated, solved = fidelity(run), is_solved(run.verdict)
        for name, value in (
            ("purpose", run.purpose),
            ("ended", run.ended),
            ("split", run.split or "not stated"),
            ("policy", _policy(run)),
            ("judged_by", "nobody" if run.verdict is None else run.verdict.by),
            ("solved", {True: "yes", False: "no", None: "not judged"}[solved]),
            ("fidelity", stated.fidelity),
            ("shortfall", stated.kind),
        ):
            if value is not None:
                self.counts[name][value] += 1
        self.examples.add(example_id(run))
        for row in rows_of(run, report=self.turns):
            self.sample = self.sample or row
            counted = (len(row.prompt_ids), len(row.completion_ids), sum(row.mask))
            for lengths, length in zip(self.lengths.values(), counted, strict=True):
                lengths.append(length)


def _policy(run: Trajectory) -> str:
    if run.policy is None:
        return "not stated"
    return run.policy.name if run.policy.step is None else f"{run.policy.name}, step {run.policy.step}"


def files_of(folder: Path) -> list[Path]:
    """The Parquet files of a data set; none where it is no data set."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder] if folder.suffix == ".parquet" else []
