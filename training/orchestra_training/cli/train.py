"""`orchestra train`: carries out a recipe."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from orchestra_graph.errors import MissingError
from orchestra_training.cli.options import refuse_beside
from orchestra_training.trainers.recipe import Kind, find_recipe, read_recipe


def train(
    kind: Annotated[
        Kind, typer.Argument(help="sft, rejection, dpo, kto, grpo, explore or replay.", show_default=False)
    ],
    recipe: Annotated[
        str, typer.Option(help="What to do: a TOML file, or one of the package, as qwen3_8b_sft.", show_default=False)
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, for example trainer.max_steps=10."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything but the weights, say what it would be, and stop.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train a router by a recipe."""
    if dry_run:
        refuse_beside({"--resume": resume or None}, "--dry-run, which trains nothing")
    path = find_recipe(recipe)
    read = read_recipe(path, changes=changes or (), kind=kind)
    try:
        if dry_run:
            typer.echo(f"recipe: {path}")
            from orchestra_training.trainers.dry_run import dry_run as check  # noqa: PLC0415  (torch takes seconds)

            for line in check(read):
                typer.echo(line)
            return
        from orchestra_training.trainers.launch import is_launched, launch  # noqa: PLC0415  (see above)
        from orchestra_training.trainers.run import run  # noqa: PLC0415  (see above)
    except ImportError as error:
        raise MissingError(f"the package {error.name}", "pip install 'orchestra-graph[train]'") from error
    if read.accelerate and not is_launched(os.environ):
        launch(read, sys.argv)
    trained = run(read, resume=resume)
    typer.echo(f"{trained.model}: {trained.steps} steps")
