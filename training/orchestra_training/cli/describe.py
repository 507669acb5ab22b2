"""`orchestra describe`: what a catalog's experts are good and bad at, found by trying them."""

from __future__ import annotations

import asyncio
import difflib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from orchestra_graph.catalog import Catalog
from orchestra_graph.catalog_file import parse_catalog
from orchestra_graph.cli.runs import open_log
from orchestra_graph.cli.terminal import console, money, one_line, plain, print_json, progress_console
from orchestra_graph.errors import CatalogError, ConfigError
from orchestra_graph.tools.build import build_tools
from orchestra_graph.tools.sandbox import Bubblewrap
from orchestra_training.cli.models import chat_model, model_name
from orchestra_training.cli.options import refuse_options
from orchestra_training.descriptions.findings import Finding, find
from orchestra_training.descriptions.rewriting import merged, refuse_text
from orchestra_training.descriptions.samples import Sample, question_samples, workbench_samples
from orchestra_training.descriptions.writer import Describer
from orchestra_training.questions import Judges, read_questions
from orchestra_training.verdicts import Judge, Mathematics


def describe(
    catalog: Annotated[Path, typer.Argument(help="A catalog file, TOML; it is changed.", show_default=False)],
    tool: Annotated[
        list[str] | None, typer.Option(help="Only this tool; may be given again.", show_default="all experts")
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(help="Questions, JSON lines with question, answer, verdict; else the workbench's, offline."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Tasks for each tool.")] = 10,
    seed: Annotated[int, typer.Option(help="Another seed draws other tasks.")] = 0,
    writer: Annotated[
        str | None,
        typer.Option(help="Line whose model writes the descriptions; without one only figures are filled in."),
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Line whose model gives verdicts by `judge`.")] = None,
    models: Annotated[Path | None, typer.Option(help="Catalog with these lines, where it is another one.")] = None,
    log: Annotated[Path | None, typer.Option(help="Append the runs to this log.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one line of JSON.")] = False,
) -> None:
    """Try the experts of a catalog on sample tasks, and write into it what they are good at, cost and take.

    Without `--tasks` the tools must be named as the workbench's, whose programs answer at simulated prices. With them
    the catalog's own models answer, and real money is spent. Each line is written as soon as its tool has been tried;
    comments, order and edits made meanwhile stay. A price is filled in where none is known.

    Exit code 1 also where a tool could not be tried or described; the others are written all the same.
    """
    if tasks is None:
        refuse_options({"--judge": judge}, "--tasks FILE")
    if writer is None and judge is None:
        refuse_options({"--models": models}, "--writer LINE or --judge LINE")
    output = console()
    text = _read(catalog)
    read = parse_catalog(text, str(catalog))
    lines = read if models is None else Catalog.from_toml(models)
    names = _names(read, tool or [])
    refuse_text(text, str(catalog), names)
    if not dry_run:
        _refuse_place(catalog)
    describer = None if writer is None else Describer(chat_model("--writer", writer, lines))
    asked = (
        None
        if judge is None
        else Judge(chat_model("--judge", judge, lines, temperature=0), name=model_name(judge, lines))
    )
    samples = _samples(read, names, tasks, asked, count, seed)
    run_log = None if log is None else open_log(log)
    findings: list[Finding] = []

    async def work(progress: Progress) -> str:
        changed = text
        bars = {name: progress.add_task(plain(name), total=len(samples)) for name in names}
        async for finding in find(
            read,
            names,
            samples,
            describer=describer,
            run_log=run_log,
            on_attempt=lambda name, _: progress.advance(bars[name]),
        ):
            findings.append(finding)
            before = read.tools[finding.line.name]
            changed = merged(changed, str(catalog), before, finding.line)
            if not dry_run:  # into the file as it is now: trying takes minutes, in which somebody may have edited it
                _write(catalog, merged(_read(catalog), str(catalog), before, finding.line))
        return changed

    columns = (TextColumn("{task.description:14}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=progress_console(output), transient=True) as progress:
        changed = asyncio.run(work(progress))
    diff = "".join(
        difflib.unified_diff(
            text.splitlines(keepends=True), changed.splitlines(keepends=True), str(catalog), str(catalog)
        )
    )
    if as_json:
        tools = {finding.line.name: _json(finding) for finding in findings}
        print_json({"catalog": str(catalog), "written": not dry_run, "tools": tools, "diff": diff})
    else:
        _show(output, findings)
        if dry_run:
            output.print(Text(plain(diff)), end="", soft_wrap=True)
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(str(path), [f"cannot be read ({error}); expected a catalog in TOML"]) from error


def _names(catalog: Catalog, wanted: Sequence[str]) -> list[str]:
    """The tools to try, in the catalog's order."""
    catalog.restrict(wanted)  # names those that are not there
    names = [name for name, spec in catalog.tools.items() if (name in wanted if wanted else spec.kind == "expert")]
    if not names:
        raise ConfigError("the catalog has no expert; fix: name the tools to try with --tool")
    return names


def _samples(
    catalog: Catalog, names: Sequence[str], tasks: Path | None, judge: Judge | None, count: int, seed: int
) -> list[Sample]:
    if tasks is None:
        return workbench_samples(catalog, count, seed=seed)
    questions = read_questions(tasks)
    is_mathematical = any(question.verdict == "mathematics" for question in questions)
    judges = Judges(mathematics=Mathematics(Bubblewrap()) if is_mathematical else None, judge=judge)
    is_searching = any(catalog.tools[name].role == "search" for name in names)
    retrievers = [name for name, spec in catalog.tools.items() if is_searching and spec.kind == "search"]
    tools = build_tools(catalog.restrict([*names, *retrievers]), os.environ)
    return question_samples(questions, tools, judges, count, seed=seed)


def _write(path: Path, text: str) -> None:
    """Replace the file at once: an interrupt leaves the old one or the new one."""
    path = path.resolve()  # behind a link: the file is replaced, not the link
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text.encode())
        os.chmod(file.name, path.stat().st_mode)
        os.replace(file.name, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _refuse_place(path: Path) -> None:
    """Refuse a folder that no new file can be written into, before anything is paid."""
    path = path.resolve()
    try:
        tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be written ({error.strerror}); fix: look with --dry-run")


def _json(finding: Finding) -> dict[str, Any]:
    line = finding.line
    return {
        "description": line.description,
        "measured": None if line.measured is None else line.measured.model_dump(),
        "latency": line.latency.model_dump(),
        "failed": None if finding.figures is None else finding.figures.failed,
        "problem": finding.problem,
    }


def _show(output: Console, findings: Sequence[Finding]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for head in ("tool", "tasks", "solved", "$/call", "p50", "p95", "failed"):
        table.add_column(head, justify="left" if head == "tool" else "right")
    table.add_column("description")
    for finding in findings:
        table.add_row(*(Text(cell) for cell in _cells(finding)))
    output.print(table)
    for finding in findings:
        if finding.problem:
            output.print(Text.assemble((f"{finding.line.name}: ", "yellow"), one_line(finding.problem)), soft_wrap=True)


def _cells(finding: Finding) -> list[str]:
    line, found = finding.line, finding.figures
    if found is None:
        return [line.name, *[""] * 6, one_line(line.description)]
    success, latency = found.measured.success, line.latency
    return [
        line.name,
        str(found.measured.tasks),
        "" if success is None else f"{success:.0%}",
        money(found.measured.dollars),
        f"{latency.p50:g} s",
        f"{latency.p95:g} s",
        str(found.failed or ""),
        one_line(line.description),
    ]
