"""`orchestra demo`: watch a router solve tasks of the workbench, then see it beside the baselines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer
from langchain_core.language_models import BaseChatModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestra_graph.cli.render import show_event, summary_table
from orchestra_graph.report.summary import Summary, priciest_tool, summarise
from orchestra_graph.routers import Cheapest, Fixed, Random, Rules
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.workbench import Oracle, Task, Workbench
from orchestra_graph.workbench.trial import open_run, try_router

SPLIT = "held_out"


def demo(
    tasks: Annotated[int, typer.Option(min=1, help="Held-out tasks that each router solves.")] = 60,
    show: Annotated[int, typer.Option(min=0, help="Tasks shown turn by turn.")] = 4,
    seed: Annotated[int, typer.Option(help="Another seed gives other tasks.")] = 0,
    log: Annotated[Path | None, typer.Option(help="Write every run to this log, one JSON line each.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")] = False,
) -> None:
    """Solve tasks of the bundled workbench, offline, and compare routers.

    The workbench is a simulated economy: tasks are executed and checked, experts are programs with real limits, prices
    and latencies are those of its catalog. No key, no network, no GPU.
    """
    console = Console(stderr=as_json)
    bench = Workbench()
    run_log = RunLog(log) if log is not None else None
    drawn = bench.tasks(SPLIT, tasks, seed=seed)
    if show and not as_json:
        asyncio.run(_show(console, bench, _spread(drawn, show)))
    summaries = asyncio.run(_compare(console, bench, drawn, run_log))
    if as_json:
        print(orjson.dumps([summary.to_json() for summary in summaries], option=orjson.OPT_INDENT_2).decode())
        return
    console.rule(f"[bold]{tasks} held-out tasks, each router on all of them")
    console.print(summary_table(summaries))
    console.print(
        "\n[dim]oracle knows every tool's limits: the most that routing can reach here. "
        "The workbench is a simulated economy.[/]"
    )
    if log is not None:
        console.print(f"[dim]runs: orchestra runs list {log}[/]")


def _routers(bench: Workbench) -> Mapping[str, BaseChatModel]:
    largest = priciest_tool(bench.catalog)
    return {
        "rules": Rules(),
        f"fixed ({largest})": Fixed(tool=largest),
        "cheapest": Cheapest(),
        "random": Random(),
        "oracle": Oracle(),
    }


async def _show(console: Console, bench: Workbench, tasks: Sequence[Task]) -> None:
    for number, task in enumerate(tasks, 1):
        console.rule(f"[bold]task {number}: {task.title}")
        console.print(task.question, highlight=False, markup=False)
        run = open_run(bench, Rules(), task)
        turns = 0
        async for event in run.events():
            show_event(console, event)
            turns += event["type"] == "decision"
            if event["type"] == "answer":
                figures = await run.figures(event["answer"], event["ledger"], turns)
                console.print("  [green]solved[/]" if figures.solved else "  [red]not solved[/]")
        console.print()


async def _compare(console: Console, bench: Workbench, tasks: Sequence[Task], run_log: RunLog | None) -> list[Summary]:
    routers = _routers(bench)
    columns = (TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    summaries = []
    with Progress(*columns, console=console, transient=True) as progress:
        for name, router in routers.items():
            bar = progress.add_task(name, total=len(tasks))
            runs = await try_router(
                bench, router, tasks, run_log=run_log, on_run=lambda *_, bar=bar: progress.advance(bar)
            )
            summaries.append(summarise(name, runs, bench.catalog))
    return summaries


def _spread(tasks: Sequence[Task], n: int) -> list[Task]:
    """A few tasks, one a family as far as they go, the middling difficulties first."""
    chosen: dict[str, Task] = {}
    for task in sorted(tasks, key=lambda task: abs(task.difficulty - 3)):
        chosen.setdefault(task.family, task)
    order = ("lookup", "arithmetic", "records", "programming")
    return sorted(chosen.values(), key=lambda task: order.index(task.family) if task.family in order else 9)[:n]
