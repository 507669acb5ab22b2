"""Commands of the training package, found by `orchestra` through the entry point group `orchestra_graph.commands`.

Each command is one file of this folder and imports what is heavy (torch, trl, datasets) inside its functions.
"""

from __future__ import annotations

import typer

from orchestra_graph.cli.runs import runs
from orchestra_training.cli.data import data
from orchestra_training.cli.describe import describe
from orchestra_training.cli.eval import evaluate
from orchestra_training.cli.harvest import harvest_command
from orchestra_training.cli.pairs import pairs
from orchestra_training.cli.score import score
from orchestra_training.cli.train import train


def register(app: typer.Typer) -> None:
    """Add the commands of this package.

    Args:
        app: The command `orchestra`.
    """
    app.add_typer(data, name="data")
    app.command()(describe)
    app.command("eval")(evaluate)
    app.command("harvest")(harvest_command)
    app.command()(pairs)
    app.command()(train)
    runs.command()(score)
