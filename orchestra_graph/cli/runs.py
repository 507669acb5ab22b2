"""`orchestra runs`: look into a run log, and mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.render import ledger_table, show_event
from orchestra_graph.cli.terminal import console, counted, money, one_line, plain, print_json, working
from orchestra_graph.errors import RunLogError
from orchestra_graph.events import AnswerEvent, DecisionEvent, Event, OutcomeEvent
from orchestra_graph.journal import owner_of
from orchestra_graph.ledger import totals
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import ReadReport, read_run, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.runlog.repair import repair as repair_log
from orchestra_graph.turns import Charge, Turn

runs = typer.Typer(help="Look into a run log, and mend it.", no_args_is_help=True)

ID_LENGTH: Final = 32
"""Characters of a run's id."""
_NARROW: Final = 110
"""Columns below which the list leaves some out."""
_COLUMNS: Final = ("run", "started", "router", "turns", "dollars", "seconds", "ended", "question", "answer")
_NARROW_COLUMNS: Final = ("run", "started", "dollars", "seconds", "ended", "question")
_TEXTS: Final = ("question", "answer")
_NUMBERS: Final = ("turns", "dollars", "seconds")

Log = Annotated[Path, typer.Argument(help="A run log: *.jsonl or *.jsonl.zst.", show_default=False)]


def open_log(path: Path) -> RunLog:
    """The log that `--log` names.

    Raises:
        RunLogError: It cannot be one; found before anything is paid.
    """
    if path.is_dir():
        raise RunLogError(f"--log {path} is a folder; expected a file, for example {path / 'runs.jsonl'}")
    return RunLog(path)


@runs.command("list")
def list_runs(
    log: Log,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a run, without its turns.")] = False,
) -> None:
    """List the runs of a log, oldest first."""
    output, report = console(), ReadReport()
    found = []
    with working(output, "reading the log"):
        for run in read_runs(log, report=report):
            if as_json:
                print_json(run.model_dump(mode="json", exclude={"turns", "captures", "catalog"}))
            else:
                found.append(_cells(run))
    if not as_json:
        _print_list(output, found)
        earlier = f", {counted(report.superseded, 'earlier line')}" if report.superseded else ""
        output.print(Text(f"{counted(report.runs, 'run')}{earlier}", "dim"))
    errors = console(stderr=True)
    for problem in report.problems:
        errors.print(Text.assemble(("unreadable: ", "yellow"), plain(problem)), soft_wrap=True)


@runs.command()
def show(
    log: Log,
    run: Annotated[str, typer.Argument(help="The first characters of a run's id.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's line.")] = False,
) -> None:
    """Show one run turn by turn, with its ledger."""
    output = console()
    with working(output, "reading the log"):
        found = _find(log, run)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    started = f"{found.started_at:%Y-%m-%d %H:%M:%S}" if found.started_at else "at an unknown time"
    output.print(Text.assemble(("run ", "bold"), (plain(found.run_id), "bold"), (f"  started {started}", "dim")))
    output.print(Text(plain(found.task.question)))
    for event in _events(found):
        show_event(output, event)
    if found.ended != "answered":
        why = f": {one_line(found.error)}" if found.error else ""
        output.print(Text(f"{found.ended}{why}", "bold red"))
    output.print()
    output.print(ledger_table(totals({turn["id"]: turn for turn in found.turns})))


@runs.command()
def repair(
    log: Log,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, help="Hours. Also fold waiting runs and those of other machines that are older."),
    ] = None,
) -> None:
    """Fold runs that failed or were abandoned into lines of the log."""
    output = console()
    with working(output, "reading what is left over"):
        report = repair_log(log, older_than=None if older_than is None else older_than * 3600)
    output.print(
        f"folded {len(report.folded)}, already in the log {len(report.finished)}, running {len(report.running)}"
    )
    if report.waiting:
        output.print(f"waiting for a person: {len(report.waiting)}; fold them by age with --older-than HOURS")
    if report.unclear:
        output.print(f"of another machine: {len(report.unclear)}; fold them by age with --older-than HOURS")
    if report.torn:
        output.print(f"records that could not be read: {report.torn}")


def _print_list(output: Console, rows: list[dict[str, str]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    columns = _COLUMNS if output.width >= _NARROW else _NARROW_COLUMNS
    for name in columns:
        # Question and answer give way where the terminal is narrow; each stays one line.
        gives_way = name in _TEXTS
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=not gives_way)
    for row in rows:
        table.add_row(*(Text(row[name], no_wrap=True, overflow="ellipsis") for name in columns))
    output.print(table)


def _cells(run: Trajectory) -> dict[str, str]:
    dollars, seconds = (run.totals["dollars"], run.totals["wall_seconds"]) if run.totals else (0.0, 0.0)
    return {
        "run": plain(run.run_id[:8]),
        "started": f"{run.started_at:%Y-%m-%d %H:%M}" if run.started_at else "",
        "router": one_line(run.policy.name, 20) if run.policy else "",
        "turns": str(len(run.turns)),
        "dollars": money(dollars),
        "seconds": f"{seconds:.1f}",
        "ended": run.ended if run.stopped_by in (None, "answer") else f"by {run.stopped_by}",
        "question": one_line(run.task.question, 60),
        "answer": one_line(run.answer or run.error or "", 40),
    }


def _find(log: Path, start: str) -> Trajectory:
    if len(start) == ID_LENGTH:
        return read_run(log, start)
    found = [run for run in read_runs(log, report=ReadReport()) if run.run_id.startswith(start)]
    if len(found) != 1:
        count = "no run" if not found else f"{len(found)} runs"
        raise RunLogError(
            f"{log}: {count} whose id starts with {start!r}; expected one; `orchestra runs list {log}` shows them"
        )
    return found[0]


def _events(run: Trajectory) -> Iterator[Event]:
    """The run's turns as the events of its stream."""
    for turn in run.turns:
        yield _decision(run.run_id, turn)
        for call in turn["decision"]["calls"]:
            outcome = turn["outcomes"].get(call["id"])
            if outcome is not None and not outcome.get("unsent"):
                yield OutcomeEvent(
                    type="outcome",
                    run=run.run_id,
                    turn=turn["id"],
                    call=call,
                    outcome=outcome,
                    charges=_charges(turn, call["id"]),
                )
    if run.answer is not None and run.totals is not None:
        yield AnswerEvent(
            type="answer",
            run=run.run_id,
            answer=run.answer,
            stopped_by=run.stopped_by or "answer",
            ledger=run.totals,
        )


def _decision(run_id: str, turn: Turn) -> DecisionEvent:
    return DecisionEvent(
        type="decision",
        run=run_id,
        turn=turn["id"],
        index=turn["index"],
        decision=turn["decision"],
        charges=_charges(turn, turn["id"]),
        outcomes=turn["outcomes"],
        seconds=turn["seconds"],
    )


def _charges(turn: Turn, owner: str) -> dict[str, Charge]:
    """Charges of a turn's decision, or of one of its calls."""
    return {key: charge for key, charge in turn["charges"].items() if owner_of(key) == owner}
