"""`orchestra eval`: routers side by side on the same tasks, with bounds.

What computes is imported when the command runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from orchestra_graph.cli.runs import open_log
from orchestra_graph.cli.terminal import (
    console,
    counted,
    money,
    one_line,
    plain,
    print_json,
    progress_console,
    working,
)
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.report.curves import Curves, read_curves
from orchestra_graph.report.page import refuse_place, write_page
from orchestra_training.cli.eval_sets import (
    DOLLAR_LIMITS,
    TURN_LIMITS,
    question_sets,
    refuse_unknown_tools,
    workbench_sets,
)
from orchestra_training.cli.eval_tables import print_condition
from orchestra_training.cli.options import refuse_beside, refuse_options

if TYPE_CHECKING:
    from orchestra_training.evaluate.evaluation import Evaluation, Outcome
    from orchestra_training.evaluate.played import Played
    from orchestra_training.evaluate.routers import RouterSpec

WORKBENCH: Final = "The workbench is a simulated economy: its figures say nothing of real models."
PAGE_RUNS: Final = 3000
CAPTION: Final = "In brackets: 95% bounds of a bootstrap over tasks and seeds, paired on the same tasks."


def evaluate(
    routers: Annotated[
        list[str] | None,
        typer.Argument(
            help="rules, cheapest, random:SEED, fixed:TOOL, strongest, oracle, tiny, local:FOLDER, MODEL@URL; "
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
            help="Of the workbench: in-distribution (default), prices, unseen, preferences, budget; `all` for all.",
            show_default=False,
        ),
    ] = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option(help="Questions instead: JSON lines of your own, or a file of HLE, FRAMES or ToolScale."),
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="The tools that answer --questions; real money is spent.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Line whose model gives verdicts by `judge`.")] = None,
    models: Annotated[Path | None, typer.Option(help="Catalog with that line, where it is another one.")] = None,
    world: Annotated[str | None, typer.Option(help="FILE.py:NAME of the databases and functions of ToolScale.")] = None,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Tasks a condition, 200 by default; the first ones of a file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other tasks.")] = 0,
    log: Annotated[
        Path, typer.Option(help="Run log, *.jsonl or *.jsonl.zst; runs that it holds are not run again.")
    ] = Path("evaluation.jsonl.zst"),
    reference: Annotated[
        Path | None, typer.Option(help="Reference file; without it there is neither utility nor score.")
    ] = None,
    make_reference: Annotated[
        str | None, typer.Option(help="Run this router alone and freeze its runs as the file --reference.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Router that the others are compared with; `rules`, else the first one.")
    ] = None,
    turn_limits: Annotated[
        str | None, typer.Option(help="Turns of the condition budget.", show_default=TURN_LIMITS)
    ] = None,
    dollar_limits: Annotated[
        str | None, typer.Option(help="Dollars of the condition budget.", show_default=DOLLAR_LIMITS)
    ] = None,
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
    page_runs: Annotated[
        int | None, typer.Option(min=1, help="Runs that the page lists at most.", show_default=str(PAGE_RUNS))
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Run routers on the same tasks and compare them: success, utility, dollars, seconds, tool shares, with bounds.

    Each run is logged with its verdict; a command that was interrupted goes on where it stopped.

    Exit code 1 also where runs broke.
    """
    try:
        from orchestra_training.evaluate import evaluation  # noqa: PLC0415  (needs NumPy, 100 ms)
    except ImportError as error:
        raise MissingError(f"the package {error.name}", "pip install 'orchestra-graph[demo]'") from error

    open_log(log)
    log.parent.mkdir(parents=True, exist_ok=True)  # others may be written beside it
    if not questions:
        refuse_options(
            {"--catalog": catalog, "--judge": judge, "--models": models, "--world": world}, "--questions FILE"
        )
    if judge is None:
        refuse_options({"--models": models}, "--judge LINE")
    if make_reference is not None:
        if reference is None:
            raise typer.BadParameter("--make-reference needs --reference FILE, the file to write.")
        others = {"ROUTERS": routers or None, "--routers": router_file, "--html": html}
        refuse_beside(others, "--make-reference, which runs its one router")
    if html is None:
        refuse_options({"--curves": curves or None, "--page-runs": page_runs}, "--html FILE")
    else:
        refuse_place(html)
    conditions = condition or ([] if questions else ["in-distribution"])
    verdicts = log.with_name(f"{log.name}.verdicts")
    sets = [
        *workbench_sets(conditions, tasks, seed, turn_limits, dollar_limits),
        *question_sets(
            questions or (), tasks, catalog=catalog, judge=judge, models=models, world=world, verdicts=verdicts
        ),
    ]
    named = _routers(
        [make_reference] if make_reference else routers,
        None if make_reference else router_file,
        on_workbench=not questions,
    )
    if questions and catalog is not None:
        refuse_unknown_tools(named, catalog)
    wanted = evaluation.Evaluation(
        routers=named,
        sets=sets,
        log=log,
        reference=None if make_reference else reference,
        workers=workers or _cores(),
        concurrent=concurrent,
        keys=_keys(named),
    )
    output, trained, base = console(), list(map(read_curves, curves or ())), _against(against, wanted)
    if make_reference is not None:
        assert reference is not None
        evaluation.check_reference(wanted, reference)
        with _progress(output) as told:
            outcome = evaluation.carry_out(wanted, on_start=told.start, on_run=told.add)
        _tell_broken(outcome)
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
        **outcome.tables(against=base, draws=draws),
        "seed": seed,
        "routers": {
            r.name: [m.model_dump(mode="json", exclude_defaults=True) for m in r.members] for r in wanted.routers
        },
        **({"note": WORKBENCH} if conditions else {}),
        "resumed": outcome.resumed,
        "seconds": round(told.seconds, 3),
        "runs_per_second": round((len(outcome.runs) - outcome.resumed) / told.seconds, 2),
    }
    if html is not None:
        with working(output, "writing the page"):
            _write_page(html, wanted, result, trained, page_runs or PAGE_RUNS)
    if as_json:
        print_json(result)
    else:
        for name, figures in result["conditions"].items():
            print_condition(output, name, figures)
        output.print(Text(f"{CAPTION} {WORKBENCH}" if conditions else CAPTION, "dim"))
        output.print(Text(f"runs: orchestra runs list {plain(str(log))}", "dim"))
        if html is not None:
            output.print(Text(f"page: {plain(str(html))}", "dim"))
    _tell_broken(outcome)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keys(routers: Sequence[RouterSpec]) -> dict[str, str]:
    names = [member.api_key_env for router in routers for member in router.members]
    return {name: os.environ[name] for name in names if name is not None and name in os.environ}


def _routers(specs: Sequence[str] | None, file: Path | None, *, on_workbench: bool) -> list[RouterSpec]:
    from orchestra_training.evaluate.routers import BASELINES, PLAIN, parse_router, read_routers  # noqa: PLC0415

    found = [] if file is None else read_routers(file)
    given = specs if specs or found else BASELINES if on_workbench else PLAIN
    return [*found, *map(parse_router, given or ())]


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
    # A page compares with one router; all pairs would be most of it.
    conditions = {
        name: {key: part for key, part in figures.items() if key != "pairs"}
        for name, figures in result["conditions"].items()
    }
    shown = {**result, "conditions": conditions}
    write_page(path, title="Routers side by side", result=shown, runs=runs, curves=trained)


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
