"""What routers are tried on: examples, and the sets that they come from.

A set makes its examples from their places, so that any process can make any of them and nothing has to be sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestra_graph.catalog import Catalog
from orchestra_graph.engine import final_answer_spec
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.runlog.record import Task, Trajectory, Verdict
from orchestra_graph.tools.base import Tool


@dataclass(frozen=True, slots=True)
class Example:
    """One thing that every router does."""

    index: int
    """Place in its set."""
    unit: int
    """Examples of one unit share their task: the bootstrap draws units."""
    kind: str
    """What sort of example it is within its set, for example a family of tasks, a wish, or a budget."""
    task_id: str
    question: str
    catalog: Catalog
    """All tools that its runs have."""
    preferences: Preferences = field(default_factory=Preferences)
    budget: Budget = field(default_factory=Budget)
    identity: Mapping[str, str] = field(default_factory=dict)
    """For each name in the catalog, the expert behind it; empty where names are drawn for nobody."""
    judged_by: str | None = None
    """Hash of the right answer and of the rule, in sets whose files may be corrected."""

    def expert(self, tool: str) -> str:
        """Who is behind a name of the catalog: names may be drawn, experts can be compared."""
        return self.identity.get(tool, tool)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one run of an example needs; made for each run."""

    tools: Sequence[Tool]
    verdict: Callable[[str | None], Awaitable[Verdict]]
    """Judges the run's answer once the run has ended."""


class ExampleSet(ABC):
    """A named set of examples."""

    name: str
    origin: str
    """Where it is from, for messages."""
    split: str | None = None
    seed: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def example(self, index: int) -> Example:
        """The example at a place; the same place always gives the same."""

    @abstractmethod
    def trial(self, example: Example) -> Trial:
        """What a run of the example needs."""

    def counts(self, kind: str) -> bool:
        """Whether examples of a kind are part of the set's own figures; others are there to be compared with."""
        return True


def as_given(example: Example) -> Trajectory:
    """A run of an example before anybody has decided anything: what its log will say of what it was given."""
    catalog = example.preferences.apply(example.catalog)
    if not catalog.terminals:  # the graph does the same
        catalog = Catalog.of([*catalog.tools.values(), final_answer_spec()])
    return Trajectory(
        run_id=example.task_id,
        task=Task(id=example.task_id, question=example.question),
        catalog=catalog,
        preferences=example.preferences,
        budget=example.budget,
        ended="abandoned",
    )


def check_sets(sets: Sequence[ExampleSet]) -> None:
    """Refuse two sets of one name: results are kept by it.

    Raises:
        ConfigError: Names both.
    """
    first: dict[str, ExampleSet] = {}
    for examples in sets:
        other = first.setdefault(examples.name, examples)
        if other is not examples:
            raise ConfigError(
                f"two sets are named {examples.name!r}: {other.origin} and {examples.origin}; expected unique names; "
                "fix: rename a file"
            )
