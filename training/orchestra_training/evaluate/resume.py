"""Finds in a run log what an evaluation has played already, so that it is not played, and paid, again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.evaluate.examples import Example, ExampleSet
from orchestra_training.evaluate.play import Job
from orchestra_training.evaluate.played import Key, Played, decided_by, judged_by, key_of, played
from orchestra_training.evaluate.routers import RouterSpec
from orchestra_training.evaluate.score import Reference
from orchestra_training.filters import unreached
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

    def logged(self, log: Path, report: ReadReport, *, places: int | None = None) -> Iterator[Trajectory]:
        """The judged runs of a log that are part of this evaluation: the same example, decided by the same policy.

        Args:
            log: It need not be there.
            report: Filled while reading.
            places: Only the first examples of each set.
        """
        for run in read_runs(log, report=report) if log.exists() else ():
            key = key_of(run)
            if key is None or is_solved(run.verdict) is None or unreached(run) or not self._has(key):
                continue
            member = self._members[key.router, key.member]
            if (places is None or key.place < places) and decided_by(run, member.identity):
                if _is_of(run, self.example(key)):
                    yield run

    def key(self, run: Trajectory) -> Key:
        """The key of a run of `logged`."""
        key = key_of(run)
        assert key is not None
        return key

    def example(self, key: Key) -> Example:
        """The example of a run of this evaluation."""
        return self._by_name[key.condition, key.seed].example(key.place)

    def played(self, run: Trajectory, reference: Reference | None) -> Played:
        """Sum up a run of `logged`."""
        key = self.key(run)
        return played(key, self.example(key), run, reference)

    def _has(self, key: Key) -> bool:
        """Whether a run is part of this evaluation."""
        examples = self._by_name.get((key.condition, key.seed))
        return examples is not None and 0 <= key.place < len(examples) and (key.router, key.member) in self._members

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
    """Whether a run was given this example: a later release may draw others, and a user edits files."""
    return (
        run.task.question == example.question
        and run.catalog is not None
        and run.catalog.tools.keys() >= example.catalog.tools.keys()
        and all(run.catalog.tools[name] == spec for name, spec in example.catalog.tools.items())
        and run.preferences == example.preferences
        and run.budget == example.budget
        and judged_by(run, example)
    )
