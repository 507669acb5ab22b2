"""`orchestra runs`: look into a run log, and mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestra_graph.cli.render import ledger_table, money, one_line, show_event
from orchestra_graph.errors import RunLogError
from orchestra_graph.ledger import totals
from orchestra_graph.runlog.read import ReadReport, read_run, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.runlog.repair import repair as repair_log

runs = typer.Typer(help="Look into a run log, and mend it.", no_args_is_help=True)

Log = Annotated[Path, typer.Argument(help="A run log: *.jsonl or *.jsonl.zst.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one run a line.")]


@runs.command("list")
def list_runs(log: Log, as_json: Json = False) -> None:
    """List the runs of a log, oldest first."""
    console, report = Console(), ReadReport()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "started", "router", "turns", "dollars", "seconds", "ended", "question", "answer"):
        table.add_column(name, justify="right" if name in ("turns", "dollars", "seconds") else "left", no_wrap=True)
    for run in read_runs(log, report=report):
        if as_json:
            print(run.model_dump_json(exclude={"turns", "captures", "catalog"}))
            continue
        table.add_row(*_row(run))
    if not as_json:
        console.print(table)
        console.print(f"[dim]{report.runs} runs, {report.superseded} earlier lines[/]")
    for problem in report.problems:
        Console(stderr=True).print(f"[yellow]unreadable:[/] {problem}", highlight=False)


@runs.command()
def show(
    log: Log, run: Annotated[str, typer.Argument(help="The first characters of a run's id.")], as_json: Json = False
) -> None:
    """Show one run turn by turn, with its ledger."""
    found = _find(log, run)
    if as_json:
        print(found.model_dump_json())
        return
    console = Console()
    console.print(f"[bold]run {found.run_id}[/]  {found.started_at or ''}")
    console.print(found.task.question, markup=False, highlight=False)
    for event in _events(found):
        show_event(console, event)
    console.print()
    console.print(ledger_table(totals({turn["id"]: turn for turn in found.turns})))


@runs.command()
def repair(
    log: Log,
    older_than: Annotated[
        float | None, typer.Option(help="Hours. Also fold runs from other machines, and waiting ones, that are older.")
    ] = None,
) -> None:
    """Fold runs that failed or were abandoned into lines of the log."""
    report = repair_log(log, older_than=None if older_than is None else older_than * 3600)
    console = Console()
    console.print(
        f"folded {len(report.folded)}, already in the log {len(report.finished)}, running {len(report.running)}"
    )
    if report.waiting:
        console.print(f"waiting for a person: {len(report.waiting)}")
    if report.unclear:
        console.print(f"of another machine: {len(report.unclear)}; fold them by age with --older-than HOURS")
    if report.torn:
        console.print(f"records that could not be read: {report.torn}")


def _row(run: Trajectory) -> list[str]:
    started = f"{run.started_at:%Y-%m-%d %H:%M:%S}" if run.started_at else ""
    dollars, seconds = (run.totals["dollars"], run.totals["wall_seconds"]) if run.totals else (0.0, 0.0)
    ended = run.ended if run.stopped_by in (None, "answer") else f"{run.ended} ({run.stopped_by})"
    router = run.policy.name if run.policy else ""
    texts = [_short(run.task.question, 40), _short(run.answer or run.error or "", 30)]
    return [run.run_id[:8], started, router, str(len(run.turns)), money(dollars), f"{seconds:.1f}", ended, *texts]


def _short(text: str, length: int) -> str:
    line = one_line(text).replace("[", r"\[")
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _find(log: Path, start: str) -> Trajectory:
    if len(start) == 32:
        return read_run(log, start)
    found = [run for run in read_runs(log, report=ReadReport()) if run.run_id.startswith(start)]
    if len(found) != 1:
        count = "no run" if not found else f"{len(found)} runs"
        raise RunLogError(f"{log}: {count} whose id starts with {start!r}; expected one; see orchestra runs list {log}")
    return found[0]


def _events(run: Trajectory) -> list[dict[str, object]]:
    """The run's turns as the events of its stream."""
    events: list[dict[str, object]] = []
    for turn in run.turns:
        mine = {key: charge for key, charge in turn["charges"].items() if key.startswith(f"{turn['id']}#")}
        events.append({"type": "decision", **turn, "charges": mine})
        for call in turn["decision"]["calls"]:
            outcome = turn["outcomes"].get(call["id"])
            if outcome is not None and not outcome.get("unsent"):
                charges = {k: c for k, c in turn["charges"].items() if k.startswith(f"{call['id']}#")}
                events.append({"type": "outcome", "call": call, "outcome": outcome, "charges": charges})
    if run.answer is not None and run.totals is not None:
        events.append(
            {"type": "answer", "answer": run.answer, "stopped_by": run.stopped_by or "answer", "ledger": run.totals}
        )
    return events
