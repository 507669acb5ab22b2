"""Finds in a run log what an evaluation has played already, so that it is not played, and paid, again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.evaluate.examples import Example, ExampleSet
from orchestra_training.evaluate.play import Job
from orchestra_training.evaluate.played import Key, Played, key_of, played, weights_of
from orchestra_training.evaluate.routers import RouterSpec
from orchestra_training.evaluate.score import Reference
from orchestra_training.reward.measures import is_solved


class Plan:
    """What an evaluation is to play.

    Args:
        routers: Who plays.
        sets: What is played.
    """

    def __init__(self, routers: Sequence[RouterSpec], sets: Sequence[ExampleSet]) -> None:
        self._routers = routers
        self._sets = sets
        self._members = {(spec.name, place): member for spec in routers for place, member in enumerate(spec.members)}
        self._by_name = {(examples.name, examples.seed): examples for examples in sets}

    @property
    def runs(self) -> int:
        """Runs in all."""
        return len(self._members) * sum(map(len, self._sets))

    def logged(self, log: Path, report: ReadReport) -> Iterator[Trajectory]:
        """The judged runs of a log that are part of this evaluation: the same example, decided by the same weights."""
        for run in read_runs(log, report=report) if log.exists() else ():
            key = key_of(run)
            member = None if key is None else self._members.get((key.router, key.member))
            example = None if key is None else self.example(key)
            if member is None or example is None or is_solved(run.verdict) is None:
                continue
            if member.weights == weights_of(run) and _is_of(run, example):
                yield run

    def example(self, key: Key) -> Example | None:
        """The example of a run, if it is part of this evaluation."""
        examples = self._by_name.get((key.condition, key.seed))
        return examples.example(key.place) if examples is not None and 0 <= key.place < len(examples) else None

    def played(self, run: Trajectory, reference: Reference | None) -> Played:
        """Sum up a run of `logged`."""
        key = key_of(run)
        example = None if key is None else self.example(key)
        assert key is not None and example is not None
        return played(key, example, run, reference)

    def jobs(self, done: set[Key]) -> list[Job]:
        """What is left."""
        jobs = []
        for place, examples in enumerate(self._sets):
            for index in range(len(examples)):
                left = tuple(
                    (router, member)
                    for router, spec in enumerate(self._routers)
                    for member in range(len(spec.members))
                    if Key(spec.name, member, examples.name, examples.seed, index) not in done
                )
                if left:
                    jobs.append(Job(place, index, left))
        return jobs


def _is_of(run: Trajectory, example: Example) -> bool:
    """Whether a run was given this example: a later release may draw others."""
    return (
        run.task.question == example.question
        and run.catalog is not None
        and run.catalog.tools.keys() >= example.catalog.tools.keys()
        and all(run.catalog.tools[name].price == spec.price for name, spec in example.catalog.tools.items())
        and run.preferences == example.preferences
        and run.budget == example.budget
    )
