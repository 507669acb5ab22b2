"""`orchestra check`: reads a catalog and says what is wrong with it, or what it holds. No model is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from orchestra_graph.catalog import Catalog, ModelSpec, ToolSpec
from orchestra_graph.cli.terminal import console, counted, one_line, plain, print_json
from orchestra_graph.runlog.measure import seconds_by_tool
from orchestra_graph.tools.build import what_is_missing

_HEADS: Final = ("tool", "kind", "$/M in", "$/M out", "$/call", "$/s", "p50", "ends", "model")
_NUMBERS: Final = ("$/M in", "$/M out", "$/call", "$/s", "p50")


def check(
    catalog: Annotated[Path, typer.Argument(help="A catalog file, TOML.", show_default=False)],
    log: Annotated[
        Path | None, typer.Option(help="A run log: show the latencies measured in it, as `ask --log` uses them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the catalog as one line of JSON.")] = False,
) -> None:
    """Check a catalog file: every problem with its line, or the table of its tools. No model is called.

    A note tells what `orchestra ask` will still miss, for example a key: the file is valid all the same.
    """
    read = Catalog.from_toml(catalog)
    if log is not None:
        read = read.with_measured_latency(seconds_by_tool(log))
    if as_json:
        print_json(read.json_data)
        return
    output = console()
    output.print(_table(read))
    for note in [*_notes(read), *([] if log is None else [_measured(read, log)])]:
        output.print(Text.assemble(("note: ", "yellow"), plain(note)))
    valid = f"valid: {counted(len(read.tools), 'tool')}, hash {read.hash[:12]}"
    output.print(Text.assemble((valid, "green"), f"  {plain(str(catalog))}"))


def _table(catalog: Catalog) -> Table:
    """The tools and the router; dollars as they are billed. Columns that nobody fills are left out."""
    lines = _lines(catalog)
    cells = {name: _cells(name, line) for name, line in lines.items()}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    used = [place for place, head in enumerate(_HEADS) if any(row[place] for row in cells.values())]
    for place in used:
        head = _HEADS[place]
        table.add_column(
            head, justify="right" if head in _NUMBERS else "left", no_wrap=head != "model", overflow="fold"
        )
    for name, row in cells.items():
        table.add_row(*(Text(row[place]) for place in used), style="" if name in catalog.tools else "dim")
    return table


def _cells(name: str, line: ModelSpec) -> list[str]:
    price = line.price
    amounts = (price.input, price.output, price.per_call, price.per_second)
    prices = ["?", "?", "", ""] if price.source == "unknown" else [_amount(amount) for amount in amounts]
    p50 = f"{round(line.latency.p50, 3):g} s" if line.latency.p50 else ""
    kind = ends = ""
    if isinstance(line, ToolSpec):
        kind = f"expert, {line.role}" if line.kind == "expert" else line.kind
        ends = "yes" if line.terminal else ""
    return [name, kind, *prices, p50, ends, one_line(line.model or "")]


def _amount(dollars: float) -> str:
    return f"{dollars:.6f}".rstrip("0").rstrip(".") if dollars else ""


def _lines(catalog: Catalog) -> dict[str, ModelSpec]:
    router = {"router": catalog.router} if catalog.router.model else {}
    return {**router, **catalog.tools}


def _notes(catalog: Catalog) -> list[str]:
    lines = _lines(catalog)
    notes = what_is_missing(lines, os.environ)
    notes += [
        f"{name}: no price is known for {spec.model}; it will be billed at $0 and marked so"
        for name, spec in lines.items()
        if spec.model and spec.price.source == "unknown"
    ]
    looked_up = [name for name, spec in lines.items() if spec.price.source == "genai-prices"]
    if looked_up:
        notes.append(f"{', '.join(looked_up)}: priced from the genai-prices library")
    if not catalog.terminals:
        notes.append("no tool ends the run: the router will answer by itself, through final_answer")
    return notes


def _measured(catalog: Catalog, log: Path) -> str:
    names = [name for name, spec in catalog.tools.items() if spec.latency.source == "measured"]
    if not names:
        return f"{log}: too few answered calls to measure a latency; the catalog's stand"
    return f"{', '.join(names)}: latency measured in {log}"
