"""The command `orchestra`. Each command is one file of this folder.

Exit codes: 0 done; 1 it failed, and one line says why and how to mend it; 2 the command line itself is wrong; 130
interrupted.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from orchestra_graph.cli.ask import ask
from orchestra_graph.cli.check import check
from orchestra_graph.cli.demo import demo
from orchestra_graph.cli.runs import runs
from orchestra_graph.errors import OrchestraError

app = typer.Typer(
    name="orchestra",
    help="A small router that picks the tool or expert for every turn, by skill, price, latency and preference.",
    epilog="Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong command line, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(ask)
app.command()(check)
app.add_typer(runs, name="runs")


def main() -> None:
    """Entry point: errors raised on purpose become one line on stderr."""
    try:
        app()
    except OrchestraError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
