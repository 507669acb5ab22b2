"""The command `orchestra`. Each command is one file of this folder; packages beside this one add theirs.

A package adds commands by an entry point of the group `orchestra_graph.commands`: a function that takes the app.

Exit codes: 0 done; 1 it failed, and one line says why and how to mend it; 2 the command line itself is wrong; 130
interrupted.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from orchestra_graph.cli.ask import ask
from orchestra_graph.cli.catalog import catalog
from orchestra_graph.cli.check import check
from orchestra_graph.cli.demo import demo
from orchestra_graph.cli.doctor import doctor
from orchestra_graph.cli.retriever import retriever
from orchestra_graph.cli.runs import runs
from orchestra_graph.cli.serve import serve
from orchestra_graph.cli.terminal import accept_any_text, print_error
from orchestra_graph.errors import OrchestraError

app = typer.Typer(
    name="orchestra",
    epilog="Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong command line, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo)
app.command()(ask)
app.command()(check)
app.command()(serve)
app.command()(doctor)
app.add_typer(catalog, name="catalog")
app.add_typer(retriever, name="retriever")
app.add_typer(runs, name="runs")
for plugin in entry_points(group="orchestra_graph.commands"):
    plugin.load()(app)


def main() -> None:
    """Entry point: errors raised on purpose become one line on stderr."""
    # The turns show what failed; without a handler Python would print the library's log, tracebacks among it.
    logging.getLogger("orchestra_graph").addHandler(logging.NullHandler())
    accept_any_text()
    try:
        app()
    except OrchestraError as error:
        print_error(str(error))
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"orchestra-graph {version('orchestra-graph')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A small router that picks the tool or expert for every turn, by skill, price, latency and preference."""
