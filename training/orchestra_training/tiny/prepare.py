"""From demonstrations to what the training of the tiny router starts with: its tokenizer, models with random weights,
and the lessons as rows of tokens.

    python -m orchestra_training.tiny.prepare demonstrations.jsonl.zst --to tiny/ --seeds 3

It writes `tiny/base-0`, `tiny/base-1`, ..., each a model with the same tokenizer, and `tiny/lessons`, a data set with
`input_ids` and `labels` for `orchestra train sft`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from datasets import Dataset

from orchestra_graph.preferences import Budget
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.routers.bundled import WORDS, words_of
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.render import Renderer
from orchestra_training.rows import Row, rows_of
from orchestra_training.tiny.demonstrate import by_chance
from orchestra_training.tiny.model import TinyShape, make, train_tokenizer

TEXT_RUNS: Final = 4_000
"""Runs whose texts the tokenizer is learnt from."""
IGNORED: Final = -100
"""Label of a token that is read, not learnt."""


def texts_of(run: Trajectory) -> Iterator[str]:
    """What the router reads before the first call of a run, line by line."""
    if run.catalog is None or not run.turns:
        return
    situation = Situation(run.task.question, run.catalog, run.preferences, Budget())
    for view, _ in ScanProtocol().replies(situation, run.turns[0]["decision"]):
        yield str(view.messages[0].text)


def lesson(row: Row) -> dict[str, list[int]]:
    """A row as `SFTTrainer` takes it."""
    labels = [token if own else IGNORED for token, own in zip(row.completion_ids, row.mask, strict=True)]
    return {"input_ids": row.prompt_ids + row.completion_ids, "labels": [IGNORED] * len(row.prompt_ids) + labels}


def lessons(log: Path, model: Path) -> Iterator[dict[str, list[int]]]:
    """The decisions of the oracle in a log, as the model of a folder reads and says them."""
    renderer = Renderer.from_folder(model, ScanProtocol.name)
    for run in read_runs(log):
        yield from map(lesson, rows_of(renderer.render(run), filters=(by_chance,)))


def main(
    log: Annotated[Path, typer.Argument(help="Demonstrations.")],
    to: Annotated[Path, typer.Option(help="Folder that is written.")],
    seeds: Annotated[int, typer.Option(min=1, help="Models with random weights.")] = 3,
) -> None:
    """Make tokenizer, models and lessons."""
    shape = TinyShape()
    texts = [text for _, run in zip(range(TEXT_RUNS), read_runs(log), strict=False) for text in texts_of(run)]
    tokenizer = train_tokenizer(texts, shape.vocabulary)
    words = "\n".join(sorted(set().union(*map(words_of, texts))))
    for seed in range(seeds):
        folder = to / f"base-{seed}"
        make(folder, tokenizer, shape, seed=seed)
        (folder / WORDS).write_text(f"{words}\n", encoding="utf-8")
    made = Dataset.from_list(list(lessons(log, to / "base-0")))
    (to / "lessons").mkdir(parents=True, exist_ok=True)
    made.to_parquet(to / "lessons" / "train.parquet")
    print(f"{to}: {len(tokenizer.get_vocab())} tokens, {len(made)} lessons")


if __name__ == "__main__":
    typer.run(main)
