"""Supervised fine-tuning scores only what is learnt, and learns the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from orchestra_training.tiny.model import TinyShape, make, train_tokenizer
from orchestra_training.trainers import sft
from orchestra_training.trainers.recipe import Recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),  # TRL's default
]

SHAPE = TinyShape(vocabulary=320, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=48)
ROWS = [([7, 8, 9, 10, 11], [-100, -100, -100, 10, 11]), ([7, 8, 12], [-100, -100, 12]), ([9] * 8, [-100] * 7 + [9])]


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    torch.set_num_threads(1)
    make(tmp_path / "base", train_tokenizer(["take skip"] * 4, SHAPE.vocabulary), SHAPE, seed=1)
    data = Dataset.from_dict({"input_ids": [ids for ids, _ in ROWS], "labels": [labels for _, labels in ROWS]})
    data.to_parquet(tmp_path / "lessons.parquet")
    recipe = {
        "kind": "sft",
        "output": tmp_path / "out",
        "model": {"path": str(tmp_path / "base"), "dtype": "float32"},
        "data": {"path": tmp_path / "lessons.parquet"},
        "trainer": {
            "max_steps": 8,
            "per_device_train_batch_size": 3,
            "learning_rate": 1e-2,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
        },
    }
    return sft.train(Recipe.model_validate(recipe))


def test_loss_and_gradient_are_those_of_all_positions(trainer: Any) -> None:
    inputs = trainer.data_collator([trainer.train_dataset[n] for n in range(3)])
    model = trainer.model.train()
    expected = model(**inputs).loss
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    loss = trainer.compute_loss(model, inputs)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_it_learns(trainer: Any) -> None:
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
