"""Demonstrations for the tiny router: runs of the workbench in which the oracle decides, now and then after a mistake,
so that the router also learns what to do where it should never have come. A mistake is any call at all, or the one that
should come last: who asks for the answer too early is the commonest of all, and has to learn to go back.

    python -m orchestra_training.tiny.demonstrate --runs 12000 --to demonstrations.jsonl.zst

They run through the graph that serves and are a run log like any other. What is to be learnt from a log, this one or
that of a router's own rollouts, is what the oracle says wherever its runs came: `orchestra_training.tiny.lessons`.
Catalogs are drawn from the whole ladder, from the fixed one to names, descriptions and prices that come once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Annotated, Final

import typer
from rich.progress import Progress

from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.routers.base import Choice, Scene
from orchestra_graph.routers.programs import candidates
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.workbench import Oracle, Workbench
from orchestra_graph.workbench.sample import ASPECTS, Aspect, Episode
from orchestra_training.metrics import LABELS

LADDER: Final[tuple[tuple[Aspect, ...], ...]] = (("wishes",), ("tools", "prices", "wishes"), ASPECTS, ASPECTS)
"""What is drawn in every fourth episode each, besides the task."""

SHARES: Final = (1.0, 0.8, 0.5)
"""Share of the oracle's calls, in every third run each."""
HASTY: Final = 0.5
"""Share of the other calls that end a plan before its time."""

BY_CHANCE: Final = "drawn at random, to see what follows"
TOO_EARLY: Final = "the last call of the plan, to see what follows"
MOST_CALLS: Final = 10
CHUNK: Final = 50
"""Runs that a process carries out at a time."""


class Demonstrator(Oracle):
    """The oracle, which now and then makes a mistake."""

    share: float
    seed: int

    def choose(self, scene: Scene) -> Choice:
        """The oracle's call, its plan's last one, or any."""
        rng = Random(f"{self.seed}/{len(scene.past)}")
        if rng.random() < self.share or len(scene.past) >= MOST_CALLS:
            return super().choose(scene)
        steps = self.left_to_do(scene)
        if steps and rng.random() < HASTY:
            return Choice(steps[-1], TOO_EARLY)
        return Choice(rng.choice(candidates(scene)).name, BY_CHANCE)


def draw(bench: Workbench, seed: int, index: int) -> tuple[Episode, Budget]:
    """An episode of the ladder and a budget that seldom binds."""
    rng = Random(f"demonstration/{seed}/{index}")
    episode = bench.sample(seed, index, vary=LADDER[index % len(LADDER)])
    dearest = max(
        spec.price.dollars(input_tokens=300, output_tokens=100, calls=1) for spec in episode.catalog.tools.values()
    )
    limits = {
        "dollars": dearest * rng.uniform(1, 20),
        "seconds": rng.uniform(60, 600),
        "turns": rng.randint(4, 20),
    }
    return episode, Budget.model_validate({name: limit for name, limit in limits.items() if rng.random() < 0.3})


async def demonstrate(bench: Workbench, log: RunLog, seed: int, indexes: Iterable[int]) -> None:
    """Carry out the runs of these indexes and log them; nobody judges them."""
    places = asyncio.Semaphore(8)

    async def one(index: int) -> None:
        async with places:
            await _run(bench, log, seed, index)

    await asyncio.gather(*map(one, indexes))


async def _run(bench: Workbench, log: RunLog, seed: int, index: int) -> None:
    episode, budget = draw(bench, seed, index)
    world = bench.world(episode.task)
    router = Demonstrator(identity=episode.identity, share=SHARES[index % len(SHARES)], seed=index)
    graph = create_orchestrator(
        router,
        bench.tools(world, catalog=episode.catalog, identity=episode.identity),
        catalog=episode.catalog,
        preferences=episode.preferences,
        budget=budget,
        run_log=log,
        fallback=None,
    ).compile()
    about = {
        "id": episode.task.id,
        "purpose": "train",
        "split": "train",
        "seeds": {"seed": seed, "index": index},
        LABELS: dict(episode.identity),
    }
    await graph.ainvoke({"messages": [("user", episode.task.question)]}, context={"task": about})


def _chunk(path: Path, seed: int, indexes: Sequence[int]) -> int:
    asyncio.run(demonstrate(Workbench(), RunLog(path), seed, indexes))
    return len(indexes)


def main(
    to: Annotated[Path, typer.Option(help="The run log that is written.")],
    runs: Annotated[int, typer.Option(min=1, help="How many.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Another seed gives other tasks.")] = 0,
    processes: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
) -> None:
    """Log demonstrations."""
    if to.exists():
        # Its runs would stand twice in the lessons.
        raise typer.BadParameter(f"{to} is there already; fix: remove it, or name another", param_hint="--to")
    chunks = [range(start, min(runs, start + CHUNK)) for start in range(0, runs, CHUNK)]
    # Spawned: a fork copies locks of threads that are not there.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool, Progress() as progress:
        bar = progress.add_task("demonstrations", total=runs)
        for done in as_completed([pool.submit(partial(_chunk, to, seed), list(chunk)) for chunk in chunks]):
            progress.advance(bar, done.result())


if __name__ == "__main__":
    typer.run(main)
