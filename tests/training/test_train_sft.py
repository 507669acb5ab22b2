"""Supervised fine-tuning scores only what is learnt, and learns the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from orchestra_training.tiny.model import TinyShape, make, train_tokenizer
from orchestra_training.trainers import sft
from orchestra_training.trainers.data import read_data
from orchestra_training.trainers.dry_run import dry_run
from orchestra_training.trainers.models import trainer_config
from orchestra_training.trainers.recipe import Recipe
from orchestra_training.trainers.run import run
from transformers import AutoModelForCausalLM
from transformers.training_args import ParallelMode
from trl import SFTConfig

from orchestra_graph.errors import ConfigError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),  # TRL's default
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # asked by PEFT
]

SHAPE = TinyShape(vocabulary=320, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=48)
ROWS = [([7, 8, 9, 10, 11], [-100, -100, -100, 10, 11]), ([7, 8, 12], [-100, -100, 12]), ([9] * 8, [-100] * 7 + [9])]


def recipe_for(tmp_path: Path, **changed: Any) -> Recipe:
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
            "weight_decay": 0.1,
            "per_device_train_batch_size": 3,
            "learning_rate": 1e-2,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
        },
    }
    return Recipe.model_validate({**recipe, **changed})


@pytest.fixture(params=[None, {"learning_rate": 2e-2}], ids=["adamw", "muon"])
def trainer(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    return sft.train(recipe_for(tmp_path, muon=request.param))


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


def test_examples_in_one_row_do_not_read_each_other(tmp_path: Path) -> None:
    given = recipe_for(tmp_path)
    table = {**given.trainer, "padding_free": True}
    trainer = sft.train(given.model_copy(update={"trainer": table}))
    rows = [trainer.train_dataset[n] for n in range(3)]
    flat = trainer.data_collator(rows)
    assert flat["input_ids"].shape == (1, sum(len(ids) for ids, _ in ROWS))
    model = trainer.model.train()
    apart = [model(**{name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}).loss.item() for row in rows]
    learnt = [sum(label != -100 for label in labels) for _, labels in ROWS]
    expected = sum(loss * count for loss, count in zip(apart, learnt, strict=True)) / sum(learnt)
    assert trainer.compute_loss(model, flat).item() == pytest.approx(expected, rel=1e-5)


def test_muon_has_the_matrices_of_the_layers_and_adamw_all_else(tmp_path: Path) -> None:
    trainer = sft.train(recipe_for(tmp_path, muon={"learning_rate": 3e-2}))
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    matrices, embeddings, vectors = ({names[id(weight)] for weight in group["params"]} for group in groups)
    assert matrices == {name for name in names.values() if "_proj" in name}
    assert embeddings == {"model.embed_tokens.weight"}
    assert matrices | embeddings | vectors == set(names.values())
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(3e-2, 0.1), (1e-2, 0.1), (1e-2, 0.0)]


def test_muon_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 4, "lr_scheduler_type": "cosine"}
    weights = []
    for name, place in (("whole", None), ("resumed", tmp_path / "whole" / "checkpoint-4")):
        given = recipe_for(tmp_path, muon={"learning_rate": 2e-2}, output=tmp_path / name)
        trainer = sft.train(given.model_copy(update={"trainer": {**given.trainer, **saved}}))
        trainer.train(resume_from_checkpoint=None if place is None else str(place))
        weights.append(dict(trainer.model.named_parameters()))
    assert trainer.state.global_step == 8
    for name, whole in weights[0].items():
        assert torch.allclose(whole, weights[1][name], atol=1e-6), name


def test_a_step_sees_rows_of_every_length_and_each_seed_its_own(tmp_path: Path) -> None:
    orders = []
    for seed in (0, 1):
        given = recipe_for(tmp_path, seed=seed)
        table = {**given.trainer, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        trainer = sft.train(given.model_copy(update={"trainer": table}))
        trainer.train_dataset = Dataset.from_list([{"input_ids": [7] * (2 + row % 8)} for row in range(64)])
        passes = list(trainer._get_train_sampler())
        lengths = [2 + row % 8 for rows in passes for row in rows]
        assert fmean(len(set(lengths[at : at + 4])) for at in range(0, 64, 4)) > 2.5
        assert sorted(row for rows in passes for row in rows) == list(range(64))
        orders.append(passes)
    assert orders[0] != orders[1]


def test_what_adapters_learnt_is_in_the_model_that_the_next_recipe_names(tmp_path: Path) -> None:
    first = recipe_for(tmp_path, lora={"rank": 4, "alpha": 8})
    saved = {"save_strategy": "steps", "save_steps": 8}
    done = run(first.model_copy(update={"trainer": {**first.trainer, **saved}}))
    base, learnt, merged = (
        AutoModelForCausalLM.from_pretrained(folder)
        for folder in (tmp_path / "base", tmp_path / "out" / "checkpoint-8", done.model)
    )
    tokens = torch.tensor([ROWS[0][0]])
    scores = learnt(tokens).logits
    assert torch.allclose(merged(tokens).logits, scores, atol=1e-5)
    assert not torch.allclose(base(tokens).logits, scores, atol=1e-2)

    second = recipe_for(tmp_path, model={"path": str(done.model), "dtype": "float32"}, lora={"rank": 2, "alpha": 2})
    begun = sft.train(second).model.eval()
    assert torch.allclose(begun(tokens).logits, scores, atol=1e-5)
    assert any(line.startswith("model: ") for line in dry_run(second))
    alone = second.model_copy(
        update={"model": second.model.model_copy(update={"path": str(tmp_path / "out" / "checkpoint-8")})}
    )
    for weights in (True, False):
        with pytest.raises(ConfigError, match=r"model\.path = .*checkpoint-8'.*adapters alone.*expected a whole model"):
            sft.train(alone, weights=weights)


def test_of_a_folder_of_splits_the_train_split_is_read(tmp_path: Path) -> None:
    given = recipe_for(tmp_path, data={"path": tmp_path / "splits"})
    for split, token in (("train", 5), ("test", 9)):
        rows = Dataset.from_dict({"input_ids": [[token]], "labels": [[token]]})
        rows.to_parquet(tmp_path / "splits" / f"{split}-00000-of-00001.parquet")
    assert read_data(given, ("input_ids",))["input_ids"][:] == [[5]]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one process sees of two GPUs, as far as a trainer's configuration asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # it remembers the device


@pytest.mark.usefixtures("two_gpus")
def test_one_process_trains_on_one_of_several_gpus(tmp_path: Path) -> None:
    args = trainer_config(recipe_for(tmp_path), SFTConfig)
    assert (args.device.type, args.parallel_mode) == ("cuda", ParallelMode.NOT_PARALLEL)
    assert (args.n_gpu, args.train_batch_size) == (1, args.per_device_train_batch_size)


def test_it_learns(trainer: Any) -> None:
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
