"""Reads the data sets that recipes name."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import Any, Final

from datasets import Dataset, load_dataset, load_from_disk

from orchestra_training.datasets.write import train_files
from orchestra_training.trainers.recipe import Recipe

_FORMATS: Final = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def read_data(recipe: Recipe, columns: Sequence[str]) -> Any:
    """The data set of a recipe, with these columns only.

    Args:
        recipe: Names a folder that `save_to_disk` wrote or that holds parquet files (of splits, `train` is read), or a
            file.
        columns: That it must have.

    Raises:
        ConfigError: It is not there, is empty, or lacks a column.
    """
    assert recipe.data is not None  # checked when the recipe was read
    path, key = recipe.data.path, ("data", "path")
    if not path.exists():
        raise recipe.error(key, f' = "{path}": no such data set')
    if path.is_dir() and (path / "state.json").exists():
        data = load_from_disk(str(path))
    elif path.is_dir():
        files = [glob.escape(str(file)) for file in train_files(path)]
        if not files:
            raise recipe.error(key, f' = "{path}": no *.parquet in this folder')
        data = load_dataset("parquet", data_files=files, split="train")
    elif path.suffix in _FORMATS:
        data = load_dataset(_FORMATS[path.suffix], data_files=glob.escape(str(path)), split="train")
    else:
        raise recipe.error(key, f' = "{path}"; expected a folder, *.parquet or *.jsonl')
    missing = [name for name in columns if name not in data.column_names]
    if missing:
        has = ", ".join(data.column_names)
        raise recipe.error(key, f' = "{path}": no column {", ".join(missing)}; it has {has}')
    if not len(data):
        raise recipe.error(key, f' = "{path}": no rows')
    assert isinstance(data, Dataset)
    return data.select_columns(list(columns))
