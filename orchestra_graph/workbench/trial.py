"""Runs a router on tasks of the workbench and judges the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from orchestra_graph.events import AnswerEvent, Event
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.report.summary import RunFigures
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.workbench.bench import Workbench
from orchestra_graph.workbench.task import Task
from orchestra_graph.workbench.world import World

JUDGE: Final = "workbench"
"""Who gives the verdicts here."""

CONCURRENT = 8
"""Runs at a time: tasks that run programs share the machine's cores."""


@dataclass(slots=True)
class Run:
    """One run of a task: ask for its `result`, or iterate over its `events` and then ask for the `figures`."""

    bench: Workbench
    task: Task
    world: World
    graph: Any
    context: dict[str, Any] = field(default_factory=dict)
    """Given to the graph: what the run log says of the task, preferences."""
    run_log: RunLog | None = None
    """Told the verdict."""

    async def events(self) -> AsyncIterator[Event]:
        """The custom events of the run, as they happen."""
        async for event in self.graph.astream(_question(self.task), context=self.context, stream_mode="custom"):
            yield event

    async def result(self) -> RunFigures:
        """Carry the run out at once, and judge it."""
        state: dict[str, Any] = {}
        answer: Any = None
        modes = ["custom", "values"]
        async for mode, part in self.graph.astream(_question(self.task), context=self.context, stream_mode=modes):
            if mode == "values":
                state = part
            elif part["type"] == "answer":
                answer = part
        return await self.figures(answer, len(state["turns"]))

    async def figures(self, answer: AnswerEvent, turns: int) -> RunFigures:
        """Judge the run that has ended with this event, and tell the run log."""
        solved = await self.bench.verdict(self.task, answer["answer"], self.world)
        if self.run_log is not None:
            self.run_log.judge(answer["run"], Verdict(outcome=float(solved), by=JUDGE))
        return RunFigures(solved=solved, ledger=answer["ledger"], turns=turns)


def open_run(
    bench: Workbench,
    router: BaseChatModel,
    task: Task,
    *,
    budget: Budget | None = None,
    run_log: RunLog | None = None,
    about: Mapping[str, Any] | None = None,
) -> Run:
    """Build the graph of a run in a fresh world; a router that gives up gets no help from a fallback.

    Args:
        bench: Where the task is from.
        router: Any chat model that calls tools.
        task: What to solve.
        budget: What the run may spend.
        run_log: Where the run is written, and its verdict.
        about: What the log says of the run beside the task's id: fields of `orchestra_graph.state.About`.
    """
    world = bench.world(task)
    graph = create_orchestrator(
        router, bench.tools(world), catalog=bench.catalog, budget=budget, run_log=run_log, fallback=None
    )
    return Run(bench, task, world, graph.compile(), {"task": {"id": task.id, **(about or {})}}, run_log)


async def try_router(
    bench: Workbench,
    router: BaseChatModel,
    tasks: Sequence[Task],
    *,
    run_log: RunLog | None = None,
    on_run: Callable[[Task, RunFigures], None] | None = None,
) -> list[RunFigures]:
    """Run a router on each task once.

    Args:
        bench: Where the tasks are from.
        router: Any chat model that calls tools.
        tasks: What to solve.
        run_log: Where the runs are written.
        on_run: Told of each run as it ends.

    Returns:
        Figures in the order of the tasks.
    """
    places = asyncio.Semaphore(CONCURRENT)

    async def one(task: Task) -> RunFigures:
        async with places:
            figures = await open_run(bench, router, task, run_log=run_log).result()
        if on_run is not None:
            on_run(task, figures)
        return figures

    return list(await asyncio.gather(*map(one, tasks)))


def _question(task: Task) -> dict[str, Any]:
    return {"messages": [("user", task.question)]}
