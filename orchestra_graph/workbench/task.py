"""A task: a question, its right answer, and the check of any answer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from orchestra_graph.errors import ConfigError
from orchestra_graph.workbench.knowledge import KnowledgeBase
from orchestra_graph.workbench.tasks import DIFFICULTIES, FAMILIES
from orchestra_graph.workbench.wording import SPLITS, Split
from orchestra_graph.workbench.world import World


@dataclass(frozen=True)
class Task:
    """One task of the workbench."""

    id: str
    """`family/split/difficulty/seed`: all of the task follows from it and the workbench's seed."""
    family: str
    difficulty: int
    """1 to 5."""
    split: Split
    seed: int
    title: str
    """A few words for a table."""
    question: str
    """All that a router and its experts need to know."""
    reference: str
    """The right answer; other forms of it may be right too."""

    async def check(self, answer: str, world: World) -> bool:
        """Whether an answer, given in a world of this task, is right.

        Args:
            answer: Text of any kind; a bad one is wrong, never an error.
            world: As the run left it: records are checked there.
        """
        family = FAMILIES[self.family]
        return await family.check(family.read(self.question), answer, world)


def make_task(knowledge: KnowledgeBase, family: str, split: Split, difficulty: int, seed: int) -> Task:
    """Draw the task that the arguments name.

    Raises:
        ConfigError: There is no such family, split or difficulty.
    """
    for name, value, known in (
        ("family", family, tuple(FAMILIES)),
        ("split", split, SPLITS),
        ("difficulty", difficulty, DIFFICULTIES),
    ):
        if value not in known:
            raise ConfigError(f"{name} = {value!r}; expected one of {', '.join(map(str, known))}")
    identity = f"{family}/{split}/{difficulty}/{seed}"
    rng, world, kind = Random(identity), World(seed, knowledge), FAMILIES[family]
    problem = kind.draw(rng, difficulty, world)
    return Task(
        id=identity,
        family=family,
        difficulty=difficulty,
        split=split,
        seed=seed,
        title=kind.title(problem),
        question=kind.ask(problem, rng, split),
        reference=kind.reference(problem, world),
    )
