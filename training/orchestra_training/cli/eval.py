"""`orchestra eval`: routers side by side on the same tasks, with bounds.

What computes is imported when the command runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.terminal import (
    console,
    counted,
    heading,
    money,
    one_line,
    plain,
    print_json,
    progress_console,
    working,
)
from orchestra_graph.errors import ConfigError
from orchestra_graph.report.curves import Curves, read_curves
from orchestra_graph.report.page import write_page

if TYPE_CHECKING:
    from orchestra_training.evaluate.evaluation import Evaluation, MakeSet, Outcome
    from orchestra_training.evaluate.played import Played
    from orchestra_training.evaluate.routers import RouterSpec

UNKNOWN: Final = "-"
WORKBENCH: Final = "The workbench is a simulated economy: its figures say nothing of real models."
CAPTION: Final = "In brackets: 95% bounds of a bootstrap over tasks and seeds, paired on the same tasks."


def evaluate(
    routers: Annotated[
        list[str] | None,
        typer.Argument(
            help="rules, cheapest, random:SEED, fixed:TOOL, strongest, oracle, local:FOLDER, MODEL@URL; "
            "NAME=SPEC,SPEC for one router of several seeds. By default all baselines.",
            show_default=False,
        ),
    ] = None,
    router_file: Annotated[
        Path | None, typer.Option("--routers", help="A TOML file with a table [routers.NAME] for each router.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--condition",
            "-c",
            help="in-distribution (default), prices, unseen, preferences or budget; may be repeated; `all` for all.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Held-out tasks a condition.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed gives other tasks.")] = 0,
    log: Annotated[
        Path, typer.Option(help="Run log, *.jsonl or *.jsonl.zst; runs that it holds are not run again.")
    ] = Path("evaluation.jsonl"),
    reference: Annotated[
        Path | None, typer.Option(help="Reference file; without it there is neither utility nor score.")
    ] = None,
    make_reference: Annotated[
        str | None, typer.Option(help="Run this router alone and freeze its runs as the file --reference.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Router that the others are compared with; `rules`, else the first one.")
    ] = None,
    turn_limits: Annotated[str, typer.Option(help="Turns of the condition budget.")] = "1,2,3,4,6,10",
    dollar_limits: Annotated[
        str, typer.Option(help="Dollars of the condition budget.")
    ] = "0.0002,0.0005,0.001,0.002,0.005,0.01",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Tasks at a time in each process.")] = 8,
    draws: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 2000,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with charts and runs to this file; it needs no network.")
    ] = None,
    curves: Annotated[
        list[Path] | None,
        typer.Option(help="Training curves for the page: trainer_state.json, or lines of JSON with a step."),
    ] = None,
    page_runs: Annotated[int, typer.Option(min=1, help="Runs that the page lists at most.")] = 3000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Run routers on the same tasks and compare them: success, utility, dollars, seconds, tool shares, with bounds.

    Each run is logged with its verdict; a command that was interrupted goes on where it stopped.

    Exit code 1 also where runs broke.
    """
    from orchestra_training.evaluate import evaluation  # noqa: PLC0415  (needs NumPy, 100 ms)

    sets = _sets(condition or ["in-distribution"], tasks, seed, turn_limits, dollar_limits)
    named = _routers([make_reference] if make_reference else routers, None if make_reference else router_file)
    wanted = evaluation.Evaluation(
        routers=named,
        sets=sets,
        log=log,
        reference=None if make_reference else reference,
        workers=workers or _cores(),
        concurrent=concurrent,
        keys=_keys(named),
    )
    output, trained = console(), list(map(read_curves, curves or ()))
    if make_reference is not None:
        if reference is None:
            raise typer.BadParameter("--make-reference needs --reference FILE, the file to write.")
        with _progress(output) as told:
            evaluation.carry_out(wanted, on_start=told.start, on_run=told.add)
        print_json(
            {
                "reference": str(reference),
                "sha256": evaluation.make_reference(wanted, reference),
                "router": make_reference,
            }
        )
        return
    with _progress(output) as told:
        outcome = evaluation.carry_out(wanted, on_start=told.start, on_run=told.add)
    result = {
        **outcome.tables(against=_against(against, wanted), draws=draws),
        "seed": seed,
        "tasks": tasks,
        "routers": {
            r.name: [m.model_dump(mode="json", exclude_defaults=True) for m in r.members] for r in wanted.routers
        },
        "note": WORKBENCH,
        "resumed": outcome.resumed,
        "seconds": round(told.seconds, 3),
        "runs_per_second": round((len(outcome.runs) - outcome.resumed) / told.seconds, 2),
    }
    if html is not None:
        with working(output, "writing the page"):
            _write_page(html, wanted, result, trained, page_runs)
    if as_json:
        print_json(result)
    else:
        for name, figures in result["conditions"].items():
            _print_condition(output, name, figures)
        output.print(Text(f"{CAPTION} {WORKBENCH}", "dim"))
        output.print(Text(f"runs: orchestra runs list {plain(str(log))}", "dim"))
        if html is not None:
            output.print(Text(f"page: {plain(str(html))}", "dim"))
    _tell_broken(outcome)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keys(routers: Sequence[RouterSpec]) -> dict[str, str]:
    names = [member.api_key_env for router in routers for member in router.members]
    return {name: os.environ[name] for name in names if name is not None and name in os.environ}


def _routers(specs: Sequence[str] | None, file: Path | None) -> list[RouterSpec]:
    from orchestra_training.evaluate.routers import BASELINES, parse_router, read_routers  # noqa: PLC0415

    found = [] if file is None else read_routers(file)
    given = specs if specs or found else BASELINES
    return [*found, *map(parse_router, given or ())]


def _sets(conditions: Sequence[str], tasks: int, seed: int, turns: str, dollars: str) -> list[MakeSet]:
    from orchestra_training.evaluate.conditions import CONDITIONS, WorkbenchSet, standard_budgets  # noqa: PLC0415

    names = [name for given in conditions for name in (CONDITIONS if given == "all" else (given,))]
    budgets = standard_budgets([int(n) for n in _numbers("--turn-limits", turns)], _numbers("--dollar-limits", dollars))
    return [partial(WorkbenchSet, name, tasks=tasks, seed=seed, budgets=budgets) for name in dict.fromkeys(names)]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}; expected numbers with commas between them") from error


def _against(name: str | None, wanted: Evaluation) -> str:
    names = [router.name for router in wanted.routers]
    if name is not None and name not in names:
        raise ConfigError(f"--against {name}: no such router; expected one of {', '.join(names)}")
    return name or ("rules" if "rules" in names else names[0])


def _write_page(
    path: Path, wanted: Evaluation, result: Mapping[str, Any], trained: Sequence[Curves], most: int
) -> None:
    from orchestra_training.evaluate.evaluation import run_table  # noqa: PLC0415  (needs NumPy, 100 ms)

    runs = run_table(wanted, most=most)
    write_page(path, title="Routers side by side", result=result, runs=runs, curves=trained)


class _Told:
    """What the progress bar shows."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("runs", total=None, solved="", dollars="")
        self._started = time.perf_counter()
        self._dollars = 0.0
        self._solved = self._runs = 0
        self.seconds = 0.0

    def start(self, runs: int) -> None:
        self._bar.update(self._task, total=runs)

    def add(self, run: Played) -> None:
        self._dollars += run.dollars
        self._solved += run.solved
        self._runs += 1
        self._bar.update(
            self._task, advance=1, dollars=money(self._dollars), solved=f"{self._solved / self._runs:.0%} solved"
        )

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._started


@contextmanager
def _progress(output: Console) -> Iterator[_Told]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[solved]}"),
        TextColumn("{task.fields[dollars]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shown = progress_console(output)
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bar:
        told = _Told(bar)
        yield told
        told.stop()


def _tell_broken(outcome: Outcome) -> None:
    errors = console(stderr=True)
    for problem in outcome.unreadable:
        errors.print(Text.assemble(("unreadable: ", "yellow"), plain(problem)), soft_wrap=True)
    if outcome.broken:
        last = outcome.broken[-1]
        text = f"{counted(len(outcome.broken), 'run')} broke and count as not solved, for example {last.key.router}: "
        errors.print(Text.assemble(("broken: ", "red"), plain(text), one_line(last.error or "")), soft_wrap=True)
        raise typer.Exit(1)


_COLUMNS: Final[Mapping[str, str]] = {
    "success": "solved",
    "utility": "utility",
    "score": "score",
    "dollars": "$/task",
    "seconds": "s/task",
    "turns": "turns",
    "priciest_share": "to priciest",
    "malformed_share": "malformed",
}
_PERCENT: Final = ("success", "priciest_share", "malformed_share")
_BOUNDED: Final = ("success", "utility")


def _print_condition(output: Console, name: str, figures: Mapping[str, Any]) -> None:
    routers = figures["routers"]
    heading(output, f"{name}: {counted(figures['units'], 'task')}")
    known = [column for column in _COLUMNS if all(column in row for row in routers.values())]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("router", no_wrap=True)
    against = figures.get("against")
    gain = "utility" if "utility" in known else "success"
    for column in [*(_COLUMNS[c] for c in known), *([f"{gain} over {plain(against)}"] if against else [])]:
        table.add_column(column, justify="right", no_wrap=True)
    by_gain = sorted(routers, key=lambda router: -(routers[router][gain]["value"] or 0))
    for router in by_gain:
        cells = [_cell(column, routers[router][column]) for column in known]
        if against:
            found = figures["differences"].get(router)
            cells.append("" if found is None else _signed(found[gain]["difference"]))
        table.add_row(Text(plain(router)), *cells)
    output.print(table)
    _print_kinds(output, figures, by_gain, gain)
    output.print()


def _print_kinds(output: Console, figures: Mapping[str, Any], routers: Sequence[str], metric: str) -> None:
    """The same figure, kind by kind."""
    kinds = [kind for kind in figures["routers"][routers[0]]["kinds"] if " instead of " not in kind]
    if len(kinds) < 2:
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column(f"{_COLUMNS[metric]} by kind", no_wrap=True, style="dim")
    for kind in kinds:
        table.add_column(plain(kind), justify="right", no_wrap=True)
    for router in routers:
        found = figures["routers"][router]["kinds"]
        table.add_row(
            Text(plain(router)), *(_value(metric, found[kind].get(metric, {}).get("value")) for kind in kinds)
        )
    output.print()
    output.print(table)


def _cell(column: str, found: Mapping[str, float | None]) -> str:
    value = _value(column, found["value"])
    if column not in _BOUNDED or found["low"] is None:
        return value
    return f"{value} [{_value(column, found['low'])}, {_value(column, found['high'])}]"


def _value(column: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if column in _PERCENT:
        return f"{value:.1%}"
    if column == "dollars":
        return f"${value:.5f}"
    return f"{value:.3f}" if column in ("utility", "score") else f"{value:.1f}"


def _signed(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return UNKNOWN
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
