"""`orchestra runs score`: what the runs of a log earn, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.runs import Log
from orchestra_graph.cli.terminal import console, counted, fitting, plain, print_json, working
from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.evaluate.score import Reference, read_reference, utility
from orchestra_training.filters import FilterReport, homogeneous
from orchestra_training.groups import collect, example_id
from orchestra_training.reward.advantage import advantages
from orchestra_training.reward.guarded import guarded
from orchestra_training.reward.measures import measure
from orchestra_training.reward.paper import paper

_BY_IMPORTANCE: Final = (
    "run",
    "solved",
    "guarded",
    "dollars",
    "advantage",
    "group",
    "task",
    "seconds",
    "utility",
    "paper",
)
_TEXTS: Final = ("group", "run", "task")
_LEAST_TASK: Final = 16
"""Columns that a task is shown in at least; no figure needs as many."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What one run comes to."""

    run: str
    group: str
    task: str
    solved: bool
    dollars: float
    seconds: float
    guarded: float
    paper: float
    advantage: float | None
    """Within its group, of the guarded reward; None where the group teaches nothing."""
    utility: float | None
    """Against the reference, where one is given and has the example."""


def score(
    log: Log,
    reference: Annotated[
        Path | None, typer.Option(help="Runs of the untrained checkpoint, for the absolute utility.")
    ] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score runs whose purpose is evaluate as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a run, and one for the log.")] = False,
) -> None:
    """Score the judged runs of a log: rewards of the paper and our guarded ones, advantages within groups, utility."""
    output, read, report = console(), ReadReport(), FilterReport()
    known = None if reference is None else read_reference(reference)
    with working(output, "scoring the log"):
        scored = list(_scored(log, known, read, report, evaluate=evaluate))
    summary: dict[str, Any] = {
        "runs": read.runs,
        "scored": len(scored),
        "groups": len({run.group for run in scored}),
        "solved": sum(run.solved for run in scored),
        "left_out": {f"{name}: {kind}": count for (name, kind), count in report.counts.items()},
        "unreadable": dict(read.faults),
    }
    if as_json:
        for run in scored:
            print_json(asdict(run))
        print_json(summary)
    else:
        _print(output, scored)
        groups = f"{counted(len(scored), 'run')} in {counted(summary['groups'], 'group')}, {summary['solved']} solved"
        left = "".join(f"; left out: {count} {kind}" for kind, count in summary["left_out"].items())
        output.print(Text(groups + left, "dim"))
    errors = console(stderr=True)
    for problem in read.problems:
        errors.print(Text.assemble(("unreadable: ", "yellow"), plain(problem)), soft_wrap=True)


def _scored(
    log: Path, reference: Reference | None, read: ReadReport, report: FilterReport, *, evaluate: bool
) -> Iterator[Scored]:
    """The runs group by group; the log is read once, and of each run only its figures are kept."""
    tasks: dict[str, str] = {}
    utilities: dict[str, float] = {}

    def noted(run: Trajectory) -> Trajectory:
        tasks[run.run_id] = run.task.id or run.task.question[:60]
        if reference is not None and run.verdict is not None and run.verdict.outcome is not None:
            base = reference.measures.get(example_id(run))
            if base is not None:
                utilities[run.run_id] = utility(measure(run), base, run.preferences)
        return run

    for group in collect(map(noted, read_runs(log, report=read)), report, evaluate=evaluate):
        rewards, literal = group.rewards(guarded), group.rewards(paper)
        teaches = homogeneous(rewards, group.earned) is None
        gains: list[Any] = advantages(rewards) if teaches else [None] * len(rewards)
        for position, run_id in enumerate(group.run_ids):
            figures = group.measures[position]
            yield Scored(
                run=run_id,
                group=group.id[:8],
                task=tasks[run_id],
                solved=figures.solved,
                dollars=figures.dollars,
                seconds=figures.seconds,
                guarded=rewards[position],
                paper=literal[position],
                advantage=gains[position],
                utility=utilities.get(run_id),
            )


def _print(output: Console, runs: Sequence[Scored]) -> None:
    """The runs, without the columns that a narrow terminal has no room for; only the task is ever shortened."""
    if not runs:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    rows = list(map(_cells, runs))
    columns = fitting(output.width, rows, _BY_IMPORTANCE, most=_LEAST_TASK)
    for name in columns:
        gives_way = name == "task"
        table.add_column(name, justify="left" if name in _TEXTS else "right", no_wrap=not gives_way)
    for row in rows:
        table.add_row(*(Text(row[name], no_wrap=True, overflow="ellipsis") for name in columns))
    output.print(table, crop=False)


def _cells(run: Scored) -> dict[str, str]:
    return {
        "group": run.group,
        "run": plain(run.run[:8]),
        "task": plain(" ".join(run.task.split())),
        "solved": "yes" if run.solved else "no",
        "dollars": f"{run.dollars:.6f}",
        "seconds": f"{run.seconds:.1f}",
        "guarded": f"{run.guarded:.3f}",
        "paper": f"{run.paper:.3f}",
        "advantage": "" if run.advantage is None else f"{run.advantage:+.3f}",
        "utility": "" if run.utility is None else f"{run.utility:.3f}",
    }
