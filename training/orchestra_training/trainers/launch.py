"""Starts a training in several processes, through accelerate: `[accelerate]` of a recipe is its configuration."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from orchestra_training.trainers.recipe import Recipe

FILE: Final = "accelerate.json"
LAUNCHED: Final = "ACCELERATE_MIXED_PRECISION"
"""In the environment of processes that accelerate has started."""


def accelerate_config(recipe: Recipe) -> Any:
    """The configuration as accelerate reads it; None for one process.

    Raises:
        ConfigError: Accelerate refuses it.
    """
    if not recipe.accelerate:
        return None
    from accelerate.commands.config.config_args import load_config_from_file  # noqa: PLC0415  (takes seconds)

    try:
        with TemporaryDirectory() as folder:
            return load_config_from_file(str(write(recipe, Path(folder))))
    except (ValueError, TypeError, KeyError) as error:
        raise recipe.error(("accelerate",), f": {error}") from error


def write(recipe: Recipe, folder: Path) -> Path:
    """Write it into a folder; without a number of machines it is one."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"compute_environment": "LOCAL_MACHINE", "num_machines": 1, "machine_rank": 0}
    path.write_text(json.dumps({**usual, **recipe.accelerate}, indent=2), encoding="utf-8")
    return path


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether this process is one of several that accelerate has started."""
    return LAUNCHED in environment


def launch(recipe: Recipe, arguments: Sequence[str]) -> None:
    """Become `accelerate launch`, which runs this command again in each process.

    Args:
        recipe: With `[accelerate]`.
        arguments: Of this command, the program first.

    Raises:
        ConfigError: Accelerate refuses its configuration.
    """
    accelerate_config(recipe)
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(write(recipe, recipe.output))]
    os.execv(start[0], [*start, *arguments])
