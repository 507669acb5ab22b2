"""From demonstrations to what the training of the tiny router starts with: its tokenizer, models with random weights,
and the lessons as rows of tokens.

    python -m orchestra_training.tiny.prepare demonstrations.jsonl.zst --to tiny/ --seeds 3

It writes `tiny/base-0`, `tiny/base-1`, ..., each a model with the same tokenizer; `tiny/lessons`, a data set with
`input_ids` and `labels` for `orchestra train sft`; and `tiny/prepared.json`, which says how much there was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import pyarrow as pa
import typer
from pyarrow import parquet
from rich.progress import track
from tokenizers import Tokenizer

from orchestra_graph.protocols.scan import SKIP, TAKE
from orchestra_graph.routers.bundled import WORDS, words_of
from orchestra_graph.runlog.read import read_runs
from orchestra_training.tiny.lessons import Lesson, lessons_of
from orchestra_training.tiny.model import CHOOSE, TinyShape, make, train_tokenizer

TEXTS: Final = 30_000
"""Lessons whose texts the tokenizer is learnt from."""
IGNORED: Final = -100
"""Label of a token that is read, not learnt."""

PREPARED: Final = "prepared.json"

_GROUP: Final = 20_000
_ROWS: Final = pa.schema([("input_ids", pa.list_(pa.int16())), ("labels", pa.list_(pa.int16()))])


def rows(lessons: Iterable[Lesson], tokenizer: Tokenizer) -> Iterator[dict[str, list[int]]]:
    """Lessons as `orchestra train sft` takes them: the prompt is read, the word is learnt."""
    waiting, words = iter(lessons), {word: tokenizer.encode(word).ids[0] for word in (TAKE, SKIP)}
    while some := list(islice(waiting, 1000)):
        prompts = tokenizer.encode_batch([lesson.prompt + CHOOSE for lesson in some], add_special_tokens=False)
        for lesson, prompt in zip(some, prompts, strict=True):
            word = words[lesson.word]
            yield {"input_ids": [*prompt.ids, word], "labels": [IGNORED] * len(prompt.ids) + [word]}


def main(
    log: Annotated[Path, typer.Argument(help="Demonstrations.")],
    to: Annotated[Path, typer.Option(help="Folder that is written.")],
    seeds: Annotated[int, typer.Option(min=1, help="Models with random weights.")] = 3,
) -> None:
    """Make tokenizer, models and lessons."""
    shape = TinyShape()
    runs = list(read_runs(log))
    made = [lesson for run in track(runs, "lessons") for lesson in lessons_of(run)]
    texts = [lesson.prompt for lesson in made]
    tokenizer = train_tokenizer(texts[:TEXTS], shape.vocabulary)
    # A catalog is refused by the words of its descriptions.
    described = {spec.description for run in runs if run.catalog for spec in run.catalog.tools.values()}
    words = "\n".join(sorted(set().union(*map(words_of, described))))
    for seed in range(seeds):
        folder = to / f"base-{seed}"
        make(folder, tokenizer, shape, seed=seed)
        (folder / WORDS).write_text(f"{words}\n", encoding="utf-8")
    (to / "lessons").mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(
        to / "lessons" / "train.parquet", _ROWS, compression="zstd", compression_level=9, use_dictionary=False
    ) as file:
        lines = rows(made, tokenizer)
        while group := list(islice(lines, _GROUP)):
            file.write_table(pa.Table.from_pylist(group, _ROWS))
    told = {"runs": len(runs), "lessons": len(made), "take": sum(lesson.word == TAKE for lesson in made)}
    (to / PREPARED).write_text(json.dumps(told), encoding="utf-8")
    print(f"{to}: {len(tokenizer.get_vocab())} tokens, {len(made)} lessons")


if __name__ == "__main__":
    typer.run(main)
