"""Examples into a Parquet file, a few at a time, under the columns of their kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
from pyarrow import parquet

from orchestra_graph.errors import ConfigError

Kind = Literal["sft", "dpo", "kto", "grpo", "replay"]

_IDS: Final = pa.list_(pa.int32())
_NAMES: Final = pa.list_(pa.string())
_MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

COLUMNS: Final[dict[Kind, pa.Schema]] = {
    "sft": pa.schema([("input_ids", _IDS), ("labels", _IDS), ("run_id", pa.string()), ("turns", _NAMES)]),
    "dpo": pa.schema(
        [
            ("prompt_ids", _IDS),
            ("chosen_ids", _IDS),
            ("rejected_ids", _IDS),
            ("chosen_reward", pa.float64()),
            ("rejected_reward", pa.float64()),
            ("chosen_run", pa.string()),
            ("rejected_run", pa.string()),
        ]
    ),
    "kto": pa.schema(
        [
            ("prompt_ids", _IDS),
            ("completion_ids", _IDS),
            ("label", pa.bool_()),
            ("run_id", pa.string()),
            ("turn", pa.string()),
        ]
    ),
    "grpo": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("task_id", pa.string()),
            ("question", pa.string()),
            ("preferences", pa.string()),
            ("budget", pa.string()),
            ("catalog", pa.string()),
            ("runs", pa.int32()),
            ("judged", pa.int32()),
            ("solved", pa.int32()),
        ]
    ),
    "replay": pa.schema(
        [
            ("prompt_ids", _IDS),
            ("completion_ids", _IDS),
            ("mask", pa.list_(pa.int8())),
            ("logprobs", pa.list_(pa.float64())),
            ("reward", pa.float64()),
            ("advantage", pa.float64()),
            ("policy_tokens", pa.int64()),
            ("run_id", pa.string()),
            ("group", pa.string()),
            ("step", pa.int64()),
            ("turns", _NAMES),
        ]
    ),
}

_AT_A_TIME: Final = 256
"""Examples that are held: some have 32,000 tokens."""


def write(examples: Iterable[dict[str, Any]], kind: Kind, path: Path) -> int:
    """Write a Parquet file.

    Args:
        examples: With the columns of the kind.
        kind: Says the columns.
        path: The file; it must not be there.

    Returns:
        How many examples it holds.
    """
    rows, schema, source = 0, COLUMNS[kind], iter(examples)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while some := list(islice(source, _AT_A_TIME)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            rows += len(some)
    return rows


def train_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder that are trained on: those of `train`, where files are named by their split.

    `build` names them so, as the Hugging Face hub does: `train-00000-of-00001.parquet`.
    """
    files = sorted(folder.glob("*.parquet"))
    return [file for file in files if file.name.startswith(("train-", "train."))] or files


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The examples of a Parquet file, a few at a time.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_A_TIME):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {told}; expected a data set; fix: build it again") from error
