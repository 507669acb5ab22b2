"""Scores of runs that measure a policy: the paper's (6), and an absolute utility.

Both compare with one run of the untrained checkpoint on the same example, from a reference file that is written once.
Its first line states the format's version, the policy and the SHA-256 of the lines after it; each of those is one
example. What the user saw counts: the verdict, and calls by whomever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences, thrift
from orchestra_graph.report.page import refuse_place
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.checked import checked
from orchestra_training.groups import example_id
from orchestra_training.reward.measures import Measures, measure

REFERENCE_VERSION: Final = 1
CENTS: Final = 100
"""Cents in a dollar: in dollars (5) could not tell runs under 1 $ apart."""

Magnitude = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def score(run: Measures, reference: Measures, preferences: Preferences) -> float:
    """Equation (6) of the paper: `M_norm . P` of a solved run, else 0.

    Equation (5) gives M_norm: `M / max(1, M_0)` for calls and outcome, `M_0 / max(1, M)` for cents and wall-clock
    seconds. It has no upper end.

    Args:
        run: M.
        reference: M_0, of the untrained checkpoint on the same example.
        preferences: P; `avoid` has no place in it.

    By hand, with P = [search 0.5, outcome 1, compute 0.4, latency 0.1]: 3 searches against 2, 4 cents against 10,
    30 s against 60 s give 0.5 * 3/2 + 1 * 1/1 + 0.4 * 10/4 + 0.1 * 60/30 = 0.75 + 1 + 1 + 0.2 = 2.95.

    >>> preferences = Preferences(accuracy=1, cost=0.4, latency=0.1, prefer={"search": 0.5})
    >>> run = Measures(solved=True, earned=True, calls={"search": 3}, dollars=0.04, wall_seconds=30)
    >>> reference = Measures(solved=False, earned=False, calls={"search": 2}, dollars=0.10, wall_seconds=60)
    >>> round(score(run, reference, preferences), 4)
    2.95
    """
    if not run.solved:
        return 0.0
    return fsum(
        [
            *(
                weight * run.calls.get(tool, 0) / max(1, reference.calls.get(tool, 0))
                for tool, weight in preferences.prefer.items()
            ),
            preferences.accuracy,
            preferences.cost * CENTS * reference.dollars / max(1.0, CENTS * run.dollars),
            preferences.latency * reference.wall_seconds / max(1.0, run.wall_seconds),
        ]
    )


def utility(run: Measures, reference: Measures, preferences: Preferences) -> float:
    """Absolute utility, from 0 to 1: `solved * sum(P . b) / sum(P)`.

    b is 1 for a preferred tool that was used and for an avoided one that was not called, 1 for the outcome, and
    `M_0 / (M_0 + M)` for dollars and seconds of work: one half for a run that costs what the reference does. Without
    any weight it is 1 for a solved run.

    Args:
        run: M.
        reference: M_0, of the untrained checkpoint on the same example.
        preferences: P.

    By hand, with weights outcome 1, cost 0.4, latency 0.1, prefer search 0.5, avoid large 0.5: a run that searched and
    called large, at 2.5 cents against 7.5 and 30 s against 30 s, has
    (0.5 * 1 + 1 * 1 + 0.4 * 0.75 + 0.1 * 0.5 + 0.5 * 0) / 2.5 = 1.85 / 2.5 = 0.74.

    >>> preferences = Preferences(accuracy=1, cost=0.4, latency=0.1, prefer={"search": 0.5}, avoid={"large": 0.5})
    >>> calls = {"search": 3, "large": 1}
    >>> run = Measures(solved=True, earned=True, calls=calls, dollars=0.025, seconds=30)
    >>> reference = Measures(solved=True, earned=True, dollars=0.075, seconds=30)
    >>> round(utility(run, reference, preferences), 4)
    0.74
    """
    if not run.solved:
        return 0.0
    parts = [
        *((weight, float(run.calls.get(tool, 0) > 0)) for tool, weight in preferences.prefer.items()),
        (preferences.accuracy, 1.0),
        (preferences.cost, thrift(reference.dollars, run.dollars)),
        (preferences.latency, thrift(reference.seconds, run.seconds)),
        *((weight, float(run.calls.get(tool, 0) == 0)) for tool, weight in preferences.avoid.items()),
    ]
    whole = fsum(weight for weight, _ in parts)
    return fsum(weight * b for weight, b in parts) / whole if whole else 1.0


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Head(_Line):
    version: Literal[1]
    policy: str
    sha256: str


class _Example(_Line):
    example: str
    """From `example_id`."""
    run_id: str
    solved: bool
    earned: bool
    calls: dict[str, Annotated[int, Field(ge=0)]]
    chosen: dict[str, Annotated[int, Field(ge=0)]]
    dollars: Magnitude
    seconds: Magnitude
    wall_seconds: Magnitude


@dataclass(frozen=True, slots=True)
class Reference:
    """M_0 of the examples of a reference file."""

    path: Path
    policy: str
    hash: str
    """SHA-256 of the examples: scores against different references cannot be compared."""
    measures: Mapping[str, Measures]
    """By example."""

    def of(self, run: Trajectory) -> Measures:
        """M_0 of a run's example.

        Raises:
            ConfigError: The file has no such example.
        """
        found = self.measures.get(example_id(run))
        if found is None:
            raise ConfigError(
                f"{self.path}: no example with the task, catalog, preferences and budget of run {run.run_id} "
                f"(task {run.task.id or run.task.question[:60]!r}); fix: run the untrained checkpoint on it"
            )
        return found


@dataclass(frozen=True, slots=True)
class Scores:
    """How good the runs of a policy are."""

    runs: int
    score: float
    """Sum of (6) over the runs."""
    mean_score: float
    utility: float
    """Mean absolute utility."""
    reference: str
    """SHA-256 of the reference."""


def evaluate(runs: Iterable[Trajectory], reference: Reference) -> Scores:
    """Score judged runs.

    Raises:
        ConfigError: A run was not judged, or its example is not in the reference; or there are no runs.
    """
    scores: list[float] = []
    utilities: list[float] = []
    for run in runs:
        measures, known = measure(run), reference.of(run)
        scores.append(score(measures, known, run.preferences))
        utilities.append(utility(measures, known, run.preferences))
    if not scores:
        raise ConfigError("evaluate(runs=[]): expected at least one run")
    total = fsum(scores)
    return Scores(len(scores), total, total / len(scores), fsum(utilities) / len(scores), reference.hash)


def write_reference(path: str | Path, runs: Iterable[Trajectory]) -> str:
    """Freeze runs of the untrained checkpoint as the reference, one an example.

    Returns:
        SHA-256 of the examples.

    Raises:
        ConfigError: The file is there already; two runs are of one example, or of different policies; a run was not
            judged; there are none.
    """
    lines: dict[str, bytes] = {}
    policies: set[str] = set()
    for run in runs:
        example = example_id(run)
        if example in lines:
            raise ConfigError(f"run {run.run_id}: its example has a run already; expected one run an example")
        policies.add(_policy(run))
        record = {"example": example, "run_id": run.run_id, **asdict(measure(run))}
        del record["relative_dollars"]  # no score reads it, and a file that is made again keeps its hash
        lines[example] = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    if len(policies) != 1:
        raise ConfigError(f"the runs are of {sorted(policies)}; expected runs of one policy")
    body = b"".join(lines.values())
    sha256 = hashlib.sha256(body).hexdigest()
    head = {"version": REFERENCE_VERSION, "policy": policies.pop(), "sha256": sha256}
    refuse_written(path)
    try:
        with open(path, "xb") as file:
            file.write(orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE) + body)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return sha256


def refuse_written(path: str | Path) -> None:
    """Refuse a place where no new reference can be written.

    Raises:
        ConfigError: The file is there already, or its folder is not there.
    """
    if Path(path).exists():
        raise ConfigError(f"{path} is there already: a reference is written once; fix: name another file")
    refuse_place(path)


def read_reference(path: str | Path, *, sha256: str | None = None) -> Reference:
    """Read a reference file.

    Args:
        path: Written by `write_reference`.
        sha256: The hash that it must have, for example the one that a published table states.

    Raises:
        ConfigError: It cannot be read, was changed since, or is another one than wanted; names file, line and field.
    """
    try:
        first, _, body = Path(path).read_bytes().partition(b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    head = checked(_Head, first, f"{path}:1")
    found = hashlib.sha256(body).hexdigest()
    if found != head.sha256:
        raise ConfigError(f"{path}:1: sha256 = {head.sha256}; the lines after it have {found}: the file was changed")
    if sha256 not in (None, found):
        raise ConfigError(f"{path}:1: sha256 = {found}; expected {sha256}: it is another reference")
    examples = [checked(_Example, line, f"{path}:{n}") for n, line in enumerate(body.splitlines(), start=2)]
    measures = {line.example: Measures(**line.model_dump(exclude={"example", "run_id"})) for line in examples}
    return Reference(Path(path), head.policy, found, measures)


def _policy(run: Trajectory) -> str:
    if run.policy is None:
        raise ConfigError(f"run {run.run_id}: policy = None; expected the untrained checkpoint's name")
    return " ".join(filter(None, [run.policy.name, run.policy.weights_hash]))
