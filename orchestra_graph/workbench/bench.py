"""`Workbench`: tasks, tools, verdicts and random catalogs, all drawn from seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import count
from random import Random

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.base import Tool
from orchestra_graph.workbench.experts import build_tools
from orchestra_graph.workbench.knowledge import KnowledgeBase
from orchestra_graph.workbench.sample import ASPECTS, Aspect, Episode, draw_episode, with_wish
from orchestra_graph.workbench.task import Task, make_task
from orchestra_graph.workbench.tasks import DIFFICULTIES, FAMILIES
from orchestra_graph.workbench.wishes import WishKind
from orchestra_graph.workbench.wording import Split
from orchestra_graph.workbench.world import World


class Workbench:
    """An offline world of tasks and experts.

    Args:
        seed: Gives the knowledge base.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._knowledge = KnowledgeBase(seed)

    @property
    def catalog(self) -> Catalog:
        """The fixed catalog: `orchestra_graph/catalogs/workbench.toml`."""
        return _catalog()

    def tasks(self, split: Split, n: int, *, families: Sequence[str] = tuple(FAMILIES), seed: int = 0) -> list[Task]:
        """Draw tasks; every run of `5 * len(families)` holds each family at each difficulty once.

        Args:
            split: Which phrasings and seeds.
            n: How many.
            families: Names in `FAMILIES`.
            seed: Another seed gives other tasks.
        """
        tasks = []
        for index in range(n):
            lap, place = divmod(index, len(families))
            family, difficulty = families[place], DIFFICULTIES[(lap + place) % len(DIFFICULTIES)]
            tasks.append(self._task(family, split, difficulty, Random(f"{seed}/{split}/{index}").getrandbits(32)))
        return tasks

    def task(self, identity: str) -> Task:
        """The task of an id, for example `arithmetic/train/3/17`.

        Raises:
            ConfigError: The id is not of the form `family/split/difficulty/seed`.
        """
        match identity.split("/"):
            case [family, ("train" | "held_out") as split, difficulty, seed] if (difficulty + seed).isdecimal():
                return self._task(family, split, int(difficulty), int(seed))
        raise ConfigError(
            f"task id {identity!r}; expected family/split/difficulty/seed, for example algebra/train/3/17"
        )

    def sample(
        self,
        seed: int,
        index: int,
        *,
        split: Split = "train",
        vary: Collection[Aspect] = ASPECTS,
        wish: WishKind | None = None,
    ) -> Episode:
        """Draw a task with a catalog and preferences of its own; the same arguments give the same.

        Args:
            seed: Seed of the whole stream.
            index: Place in the stream.
            split: Split of the task's phrasing, of the tools' descriptions and of the preference texts.
            vary: What is drawn of `ASPECTS`; the rest is as in the fixed catalog.
            wish: What the user wants, in place of preferences that are drawn. Tasks and catalogs are drawn until it
                counts: see `orchestra_graph.workbench.sample.with_wish`.

        Raises:
            ConfigError: `vary` names something else.
        """
        unknown = set(vary) - set(ASPECTS)
        if unknown:
            raise ConfigError(f"vary = {sorted(unknown)}; expected some of {', '.join(ASPECTS)}")
        attempts = (self._draw(f"episode/{seed}/{split}/{index}{again}", split, vary, wish) for again in _again())
        return next(episode for episode in attempts if episode is not None)

    def _draw(self, stream: str, split: Split, vary: Collection[Aspect], wish: WishKind | None) -> Episode | None:
        rng = Random(stream)
        family, difficulty = rng.choice(tuple(FAMILIES)), rng.choice(DIFFICULTIES)
        task = self._task(family, split, difficulty, rng.getrandbits(32))
        episode = draw_episode(task, self.catalog, rng, vary=vary)
        return episode if wish is None else with_wish(episode, rng, wish)

    def world(self, task: Task | None = None) -> World:
        """A fresh world for one run: of a task, or of any question."""
        return World(0 if task is None else task.seed, self._knowledge)

    def tools(
        self, world: World, *, catalog: Catalog | None = None, identity: Mapping[str, str] | None = None
    ) -> list[Tool]:
        """The tools of a catalog, bound to one run's world.

        Args:
            world: From `world`.
            catalog: An episode's; the fixed one by default.
            identity: An episode's; by default every name is an expert's own.
        """
        catalog = catalog or self.catalog
        return build_tools(world, catalog, identity or {name: name for name in catalog.tools})

    async def verdict(self, task: Task, answer: str | None, world: World) -> bool:
        """Whether a run solved its task.

        Args:
            task: The task.
            answer: The run's answer; None where it gave none.
            world: The run's world, as the run left it.
        """
        return await task.check(answer or "", world)

    def _task(self, family: str, split: Split, difficulty: int, seed: int) -> Task:
        return make_task(self._knowledge, family, split, difficulty, seed)


@cache
def _catalog() -> Catalog:
    with resources.as_file(resources.files("orchestra_graph") / "catalogs" / "workbench.toml") as path:
        return Catalog.from_toml(path)


def _again() -> Iterator[str]:
    """What tells the streams of one episode apart, the first of which has no mark."""
    yield ""
    yield from (f"/{attempt}" for attempt in count(1))
