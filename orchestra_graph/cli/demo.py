"""`orchestra demo`: watch a router solve tasks of the workbench, then see it beside the baselines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from langchain_core.language_models import BaseChatModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from orchestra_graph.cli.render import show_event, summary_table
from orchestra_graph.cli.runs import open_log
from orchestra_graph.cli.terminal import console, heading, plain, print_json, progress_console
from orchestra_graph.report.summary import Summary, priciest_tool, summarise
from orchestra_graph.routers import Cheapest, Fixed, Random, Rules
from orchestra_graph.routers.bundled import tiny_router
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.workbench import Oracle, Task, Workbench
from orchestra_graph.workbench.trial import open_run, try_router
from orchestra_graph.workbench.wording import Split

SPLIT: Final[Split] = "held_out"
SHOWN_FIRST: Final = ("lookup", "arithmetic", "records", "programming")
"""Families in the order in which they are shown: the ones whose turns tell most come first."""
CAPTION: Final = (
    "tiny ships with the package: a small language model, trained on other tasks of the workbench. "
    "oracle knows every tool's limits: the most that routing can reach here. "
    "The workbench is a simulated economy: the figures say nothing of real models."
)


def demo(
    tasks: Annotated[int, typer.Option(min=1, help="Held-out tasks that each router solves.")] = 60,
    show: Annotated[int, typer.Option(min=0, help="Tasks shown turn by turn.")] = 4,
    seed: Annotated[int, typer.Option(help="Another seed gives other tasks.")] = 0,
    log: Annotated[
        Path | None, typer.Option(help="Append the runs of the table to this log: a *.jsonl or *.jsonl.zst.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Solve tasks of the bundled workbench, offline, and compare routers.

    The workbench is a simulated economy: tasks are executed and checked, experts are programs with real limits, prices
    and latencies are those of its catalog. No key, no network, no GPU.
    """
    output = console()
    bench = Workbench()
    run_log = None if log is None else open_log(log)
    drawn = bench.tasks(SPLIT, tasks, seed=seed)
    if show and not as_json:
        asyncio.run(_show(output, bench, _spread(drawn, show)))
    summaries = asyncio.run(_compare(output, bench, drawn, run_log))
    if as_json:
        print_json({"tasks": tasks, "seed": seed, "routers": [summary.to_json() for summary in summaries]})
        return
    heading(output, f"{tasks} held-out tasks, each router on all of them")
    output.print(summary_table(summaries))
    output.print()
    output.print(Text(CAPTION, "dim"))
    if log is not None:
        output.print(Text(f"runs: orchestra runs list {plain(str(log))}", "dim"))


def _routers(bench: Workbench) -> Mapping[str, BaseChatModel]:
    largest = priciest_tool(bench.catalog)
    return {
        "tiny": tiny_router(),
        "rules": Rules(),
        f"fixed ({largest})": Fixed(tool=largest),
        "cheapest": Cheapest(),
        "random": Random(),
        "oracle": Oracle(),
    }


async def _show(output: Console, bench: Workbench, tasks: Sequence[Task]) -> None:
    router = tiny_router()
    for number, task in enumerate(tasks, 1):
        heading(output, f"task {number}: {task.title}")
        output.print(Text(plain(task.question)))
        run = open_run(bench, router, task)
        turns = 0
        async for event in run.events():
            show_event(output, event)
            turns += event["type"] == "decision"
            if event["type"] == "answer":
                figures = await run.figures(event, turns)
                output.print(Text("        solved", "green") if figures.solved else Text("        not solved", "red"))
        output.print()


async def _compare(output: Console, bench: Workbench, tasks: Sequence[Task], run_log: RunLog | None) -> list[Summary]:
    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    summaries = []
    with Progress(*columns, console=progress_console(output), transient=True) as progress:
        for name, router in _routers(bench).items():
            bar = progress.add_task(name, total=len(tasks))
            runs = await try_router(
                bench, router, tasks, run_log=run_log, on_run=lambda *_, bar=bar: progress.advance(bar)
            )
            summaries.append(summarise(name, runs, bench.catalog))
    return summaries


def _spread(tasks: Sequence[Task], n: int) -> list[Task]:
    """A few tasks: one a family first, of middling difficulty, then the next of each."""
    places: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: abs(task.difficulty - 3)):
        places.setdefault(task.family, []).append(task)

    def rank(task: Task) -> tuple[int, int]:
        order = SHOWN_FIRST.index(task.family) if task.family in SHOWN_FIRST else len(SHOWN_FIRST)
        return places[task.family].index(task), order

    return sorted(tasks, key=rank)[:n]
