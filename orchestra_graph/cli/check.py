"""`orchestra check`: reads a catalog and says what is wrong with it, or what it holds. No model is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestra_graph.catalog import Catalog, ModelSpec, Price


def check(
    catalog: Annotated[Path, typer.Argument(help="A catalog file, TOML.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the catalog as JSON.")] = False,
) -> None:
    """Check a catalog file: every problem with its line, or the table of tools. No model is called."""
    read = Catalog.from_toml(catalog)
    console = Console()
    if as_json:
        print(read.model_dump_json(indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("tool", "kind", "price", "source", "p50", "ends the run", "model"):
        table.add_column(name, overflow="fold")
    for spec in read.tools.values():
        kind = f"{spec.kind} ({spec.role})" if spec.kind == "expert" else spec.kind
        table.add_row(
            spec.name,
            kind,
            _price(spec.price),
            spec.price.source,
            f"{spec.latency.p50:g} s",
            "yes" if spec.terminal else "",
            spec.model or "",
        )
    console.print(table)
    if read.router.model:
        console.print(f"router: {read.router.model}, {_price(read.router.price)} ({read.router.price.source})")
    for warning in _warnings(read):
        console.print(f"[yellow]note:[/] {warning}", highlight=False)
    console.print(f"[green]{catalog} is valid:[/] {len(read.tools)} tools, hash {read.hash[:12]}", highlight=False)


def _warnings(catalog: Catalog) -> list[str]:
    notes = []
    lines: dict[str, ModelSpec] = {"router": catalog.router, **catalog.tools}
    for name, spec in lines.items():
        if spec.api_key_env and spec.api_key_env not in os.environ:
            notes.append(f"{name}: the environment variable {spec.api_key_env} is not set")
        if spec.model and spec.price.source == "unknown":
            notes.append(f"{name}: no price is known for {spec.model}; it will be billed at $0 and marked so")
    if not catalog.terminals:
        notes.append("no tool ends the run: the router will answer by itself, through final_answer")
    return notes


def _price(price: Price) -> str:
    parts = []
    if price.input or price.output:
        parts.append(f"${price.input:g} in, ${price.output:g} out per M")
    if price.per_call:
        parts.append(f"${price.per_call:g} a call")
    if price.per_second:
        parts.append(f"${price.per_second:g} a second")
    return "; ".join(parts) or ("unknown" if price.source == "unknown" else "free")
