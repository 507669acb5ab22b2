"""An evaluation from its parts: what is in the log, what is left to play, and the figures of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from orchestra_graph.errors import ConfigError
from orchestra_graph.report.runs import RunTable
from orchestra_graph.runlog.read import ReadReport
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.evaluate.examples import Example, ExampleSet, as_given, check_sets
from orchestra_training.evaluate.play import Stage, WatchedLog
from orchestra_training.evaluate.played import Key, Played
from orchestra_training.evaluate.processes import play_in_processes
from orchestra_training.evaluate.resume import Plan
from orchestra_training.evaluate.routers import RouterSpec, check_names
from orchestra_training.evaluate.score import Reference, read_reference, refuse_written, write_reference
from orchestra_training.evaluate.tables import RESULT_VERSION, condition
from orchestra_training.groups import example_id

MakeSet = Callable[[], ExampleSet]
"""Makes a set in any process: picklable, for example `partial(WorkbenchSet, "unseen", tasks=2000)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is evaluated, and how."""

    routers: Sequence[RouterSpec]
    sets: Sequence[MakeSet]
    log: Path
    reference: Path | None = None
    """M_0 of every example; without it there is neither utility nor score."""
    workers: int = 1
    concurrent: int = 8
    """Jobs at a time in each process."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of servers by environment variable, as far as members name them."""


@dataclass(slots=True)
class Outcome:
    """All runs of an evaluation."""

    sets: list[ExampleSet]
    runs: dict[Key, Played] = field(default_factory=dict)
    resumed: int = 0
    """Runs that were in the log already."""
    unreadable: list[str] = field(default_factory=list)
    """Lines of the log that could not be read."""
    reference: Reference | None = None
    aside: list[str] = field(default_factory=list)
    """Routers that know what no router can."""

    @property
    def broken(self) -> list[Played]:
        """Runs whose router failed or that have no verdict: not solved, and played again next time."""
        return [run for run in self.runs.values() if run.error is not None]

    def tables(self, *, against: str | None, draws: int) -> dict[str, Any]:
        """The figures, as JSON values.

        Args:
            against: Router that the others are compared with.
            draws: Of the bootstrap.
        """
        reference = self.reference
        conditions = {}
        for examples in self.sets:
            runs: dict[str, list[Played]] = {}
            for key, run in self.runs.items():
                if (key.condition, key.seed) == (examples.name, examples.seed):
                    runs.setdefault(key.router, []).append(run)
            conditions[examples.name] = condition(
                runs, against=against, counts=examples.counts, draws=draws, aside=self.aside
            )
        return {
            "version": RESULT_VERSION,
            "reference": None if reference is None else {"policy": reference.policy, "sha256": reference.hash},
            "conditions": conditions,
        }


def carry_out(
    wanted: Evaluation,
    *,
    on_start: Callable[[int], None] = lambda runs: None,
    on_run: Callable[[Played], None] = lambda run: None,
) -> Outcome:
    """Play what is not in the log yet.

    Args:
        wanted: The evaluation.
        on_start: Told how many runs there are in all.
        on_run: Told of each run, those of the log first.

    Raises:
        OrchestraError: Something does not fit together, or a router cannot be reached.
    """
    check_names(wanted.routers)
    sets = [make() for make in wanted.sets]
    check_sets(sets)
    reference = None if wanted.reference is None else read_reference(wanted.reference)
    aside = [spec.name for spec in wanted.routers if any(member.program == "oracle" for member in spec.members)]
    outcome = Outcome(sets, reference=reference, aside=aside)
    plan = Plan(wanted.routers, sets)
    on_start(plan.runs)

    def keep(run: Played) -> None:
        outcome.runs[run.key] = run
        on_run(run)

    report = ReadReport()
    for run in plan.logged(wanted.log, report):
        found = plan.played(run, reference)
        if found.key not in outcome.runs:
            keep(found)
    outcome.resumed = len(outcome.runs)
    outcome.unreadable = report.problems
    jobs = plan.jobs(set(outcome.runs))
    if reference is not None:
        _check_examples(reference, (sets[job.set].example(job.index) for job in jobs))
    play_in_processes(
        partial(_stage, wanted, reference),
        jobs,
        keep,
        workers=wanted.workers,
        concurrent=wanted.concurrent,
    )
    return outcome


def make_reference(wanted: Evaluation, path: Path) -> str:
    """Freeze the runs of an evaluation's one router as the reference.

    Returns:
        SHA-256 of the reference.

    Raises:
        ConfigError: The file is there, runs are missing, or there is more than one policy.
    """
    check_reference(wanted, path)
    plan = Plan(wanted.routers, [make() for make in wanted.sets])
    runs = {plan.key(run): run for run in plan.logged(wanted.log, ReadReport())}
    if len(runs) < plan.runs:
        raise ConfigError(
            f"{wanted.log}: {plan.runs - len(runs)} of {plan.runs} runs are missing; expected one an example; "
            "fix: carry the evaluation out until none breaks"
        )
    # Conditions may share examples, for example one without a wish.
    found = {example_id(run): run for run in runs.values()}
    return write_reference(path, found.values())


def check_reference(wanted: Evaluation, path: Path) -> None:
    """Refuse an evaluation that cannot become the reference; for the beginning, before anything is paid.

    Raises:
        ConfigError: It has more than one policy, or the file cannot be a new one.
    """
    refuse_written(path)
    members = sum(len(router.members) for router in wanted.routers)
    if members != 1:
        names = ", ".join(router.name for router in wanted.routers)
        raise ConfigError(f"router {names}: {members} members; expected one: a reference is one run an example")


def run_table(wanted: Evaluation, *, most: int) -> dict[str, Any]:
    """Runs of an evaluation for a page: the first examples of each set, with all that was made of them.

    Args:
        wanted: An evaluation that has been carried out.
        most: Runs at most, about the same number a set.
    """
    sets = [make() for make in wanted.sets]
    plan = Plan(wanted.routers, sets)
    members = sum(len(router.members) for router in wanted.routers)
    places = max(1, most // (members * len(sets)))
    order = {examples.name: place for place, examples in enumerate(sets)}
    runs: dict[Key, Trajectory] = {}
    for run in plan.logged(wanted.log, ReadReport(), places=places):
        runs.setdefault(plan.key(run), run)
    table = RunTable()
    for key in sorted(runs, key=lambda key: (order[key.condition], key.place)):
        example = plan.example(key)
        labels = {"router": key.router, "condition": key.condition, "kind": example.kind}
        table.add(runs[key], experts=example.identity, **labels)
    return table.to_json()


def _check_examples(reference: Reference, examples: Iterable[Example]) -> None:
    """Refuse examples that are not in the reference before any of their runs is paid.

    Raises:
        ConfigError: Names the first.
    """
    for example in examples:
        if example_id(as_given(example)) not in reference.measures:
            raise ConfigError(
                f"{reference.path}: no example with the task, catalog, preferences and budget of {example.task_id!r} "
                f"({example.question[:60]!r}); expected all that is to be run; fix: name the seed, the tasks and the "
                "conditions that it was made with, or make another with --make-reference"
            )


def _stage(wanted: Evaluation, reference: Reference | None) -> Stage:
    return Stage(wanted.routers, [make() for make in wanted.sets], WatchedLog(wanted.log), reference, wanted.keys)
