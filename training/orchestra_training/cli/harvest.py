"""`orchestra harvest`: from logged runs to files that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from orchestra_graph.billing import describe
from orchestra_graph.catalog import Catalog
from orchestra_graph.cli.terminal import console, counted, plain, print_json, progress_console
from orchestra_graph.errors import ConfigError
from orchestra_graph.modules import import_named
from orchestra_training.cli.options import refuse_options
from orchestra_training.harvest.catalogs import catalogs_of
from orchestra_training.harvest.gather import NO_CATALOG, TEST_SHARE, harvest
from orchestra_training.harvest.redaction import Redact
from orchestra_training.harvest.report import HarvestReport
from orchestra_training.harvest.source import Source, SourceReport
from orchestra_training.harvest.sources import EXPECTED, LANGSMITH, Wanted, open_sources


def harvest_command(
    sources: Annotated[
        list[str],
        typer.Option("--from", help=f"{EXPECTED[0].upper()}{EXPECTED[1:]}; may be given again.", show_default=False),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder for train, test and report.", show_default=False)],
    test_share: Annotated[float, typer.Option(min=0, max=1, help="Part of the tasks that test.")] = TEST_SHARE,
    redact: Annotated[
        str | None,
        typer.Option(help="MODULE:FUNCTION that takes personal data out of a text.", show_default=False),
    ] = None,
    catalogs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run log of the same graph: runs of traces and checkpoints, which state only the hash of their "
            "catalog, are given it; may be given again.",
            show_default=False,
        ),
    ] = None,
    filter: Annotated[str | None, typer.Option(help="LangSmith: filter expression for roots of traces.")] = None,
    since: Annotated[datetime | None, typer.Option(help="LangSmith: traces that began then or later, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="LangSmith: traces that began before, UTC.")] = None,
    feedback: Annotated[
        str | None, typer.Option(help="LangSmith: feedback key that says whether a task was solved.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON.")] = False,
) -> None:
    """Turn logged runs into training data: merged by run, each with its fidelity, no question in both train and test.

    Interrupted, it goes on where it was when it is started again with the same options. What was skipped is counted
    and told, and all of it is in harvest.json.
    """
    output = console()
    if not any(source.startswith(LANGSMITH) for source in sources):
        given = {"--filter": filter, "--since": since, "--until": until, "--feedback": feedback}
        refuse_options(given, f"--from {LANGSMITH}PROJECT")
    wanted = Wanted(filter=filter, since=_utc(since), until=_utc(until), feedback=feedback)
    found = open_sources(sources, wanted)
    taking_out = None if redact is None else _function(redact)
    report = _harvest(output, found, to, test_share, taking_out, catalogs_of(catalogs or ()))
    if as_json:
        print_json(report.to_json())
    else:
        _show(output, report, to)


def _harvest(
    output: Console,
    sources: list[Source],
    to: Path,
    test_share: float,
    redact: Redact | None,
    catalogs: Mapping[str, Catalog],
) -> HarvestReport:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown = progress_console(output)
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as progress:
        bars = {source.name: progress.add_task(plain(source.name), total=None) for source in sources}

        def on_run(report: SourceReport) -> None:
            progress.update(bars[report.name], completed=report.runs + report.known, total=report.expected)

        return harvest(sources, to, test_share=test_share, redact=redact, catalogs=catalogs, on_run=on_run)


def _show(output: Console, report: HarvestReport, to: Path) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("source", "read", "runs", "skipped", "noted"):
        table.add_column(name, justify="right" if name in ("read", "runs") else "left")
    for source in report.sources:
        runs = str(report.written[source.name])
        table.add_row(plain(source.name), str(source.read), runs, _kinds(source.skipped), _kinds(source.noted))
    output.print(table)
    output.print()
    for name, split in report.splits.items():
        output.print(
            f"{name}: {counted(split.runs, 'run')} on {counted(split.tasks, 'task')}, {split.judged:,} judged, "
            f"{plain(str(to / split.file))}"
        )
    output.print(f"fidelity: {_kinds(report.fidelity) or 'none'}")
    if report.shortfalls:
        output.print(f"not exact: {_kinds(report.shortfalls)}")
    if report.clock_skew:
        output.print(f"ended before they started: {counted(report.clock_skew, 'run')}")
    if without := sum(source.noted[NO_CATALOG] for source in report.sources):
        output.print(
            f"catalog not known: {counted(without, 'run')}, of which no tokens can be rendered; "
            "fix: --catalogs RUNS.jsonl, a run log of the same graph",
            soft_wrap=True,
        )
    errors = console(stderr=True)
    for problem in [problem for source in report.sources for problem in source.problems]:
        errors.print(Text.assemble(("skipped or odd: ", "yellow"), plain(problem)), soft_wrap=True)


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))


def _utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _function(name: str) -> Redact:
    """What `--redact` names.

    Raises:
        ConfigError: There is no such function.
    """
    module, colon, attribute = name.partition(":")
    expected = "expected MODULE:FUNCTION, for example orchestra_graph.redact:hide_secrets"
    if not colon:
        raise ConfigError(f"--redact {name}: {expected}")
    try:
        found: Any = getattr(import_named(module), attribute)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported, and may exit
        raise ConfigError(f"--redact {name}: {describe(error)}; {expected}") from error
    if not callable(found):
        raise ConfigError(f"--redact {name}: {found!r:.60} cannot be called; {expected}")
    redact: Redact = found
    return redact
