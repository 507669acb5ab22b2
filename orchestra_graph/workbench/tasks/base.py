"""What a family of tasks is: drawing a problem, asking it in words, reading it back, solving it, checking an answer.

The question's text is the only thing that experts, the oracle and the check read: `read` is the inverse of `ask`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Generic, TypeVar

from orchestra_graph.workbench.database import Database
from orchestra_graph.workbench.wording import Phrases, Split
from orchestra_graph.workbench.world import World

Sizes = Mapping[str, int]
"""How big a problem is in its family's own units; an expert's limits are in the same units."""

DIFFICULTIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Desk:
    """What lies before an expert when it works: the contents of the evidence, and the records if it may touch them."""

    evidence: Sequence[str] = ()
    database: Database | None = None


@dataclass(frozen=True)
class Working:
    """What an expert wrote."""

    text: str
    """Its steps, or why it cannot answer."""
    answer: str | None = None
    """None where it gives none: the run goes on."""


P = TypeVar("P")


class Family(ABC, Generic[P]):
    """One family of tasks; `P` is its problem, a value read from the question."""

    name: ClassVar[str]
    frames: ClassVar[Phrases]
    """Sentences around `{ask}`."""

    @abstractmethod
    def draw(self, rng: Random, difficulty: int, world: World) -> P:
        """Draw a problem.

        Args:
            rng: The only source of chance.
            difficulty: 1 to 5.
            world: The knowledge base and the records that the problem is about.
        """

    @abstractmethod
    def phrase(self, problem: P, rng: Random, split: Split) -> str:
        """Put a problem in words, as they stand in a frame."""

    @abstractmethod
    def parse(self, ask: str) -> P | None:
        """Read the words of `phrase`; None if they are something else."""

    @abstractmethod
    def sizes(self, problem: P) -> Sizes:
        """Measure a problem."""

    @abstractmethod
    def title(self, problem: P) -> str:
        """Name a problem in a few words, for a table."""

    @abstractmethod
    def solve(self, problem: P, limits: Sizes, desk: Desk) -> Working:
        """Work as an expert with these limits does: right within them, and beyond them wrong or at a loss."""

    @abstractmethod
    def reference(self, problem: P, world: World) -> str:
        """The right answer."""

    @abstractmethod
    async def check(self, problem: P, answer: str, world: World) -> bool:
        """Whether an answer is right; never raises for a bad one."""

    def code(self, problem: P) -> str | None:
        """A Python program that prints the answer; None where code cannot help."""
        return None

    def ask(self, problem: P, rng: Random, split: Split) -> str:
        """Ask a problem in a phrasing of the split."""
        return self.frames.draw(rng, split, ask=self.phrase(problem, rng, split))

    def read(self, question: str) -> P | None:
        """Read a question of either split; None if it is none of this family."""
        # People leave the last mark out.
        for text in (question, f"{question}?", f"{question}."):
            for frame in self.frames.matches(text):
                problem = self.parse(frame["ask"])
                if problem is not None:
                    return problem
        return None


def within(sizes: Sizes, limits: Sizes) -> bool:
    """Whether every size is within its limit; a size without a limit is unbounded."""
    return all(size <= limits[unit] for unit, size in sizes.items() if unit in limits)
