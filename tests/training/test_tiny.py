"""How the tiny router comes about: demonstrations, lessons, tasks, and the card that it is published with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from orchestra_training.filters import FilterReport, keep_turns
from orchestra_training.tiny.demonstrate import BY_CHANCE, LADDER, by_chance, demonstrate, draw
from orchestra_training.tiny.tasks import LadderTasks, draw_budget

from orchestra_graph.protocols.scan import SKIP, TAKE
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.workbench import Workbench

BENCH = Workbench()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve demonstrations: every rung with every share of calls by chance."""
    path = tmp_path_factory.mktemp("tiny") / "demonstrations.jsonl"
    asyncio.run(demonstrate(BENCH, RunLog(path), 3, range(12)))
    return path


@pytest.fixture(scope="module")
def runs(log: Path) -> list[Trajectory]:
    return list(read_runs(log))


def test_demonstrations_are_for_training_and_can_be_drawn_again(runs: list[Trajectory]) -> None:
    assert len(runs) == 12
    for run in runs:
        assert run.purpose == "train"
        episode, budget = draw(BENCH, run.seeds["seed"], run.seeds["index"])
        assert (run.task.id, run.task.question) == (episode.task.id, episode.task.question)
        assert run.budget == budget
        assert run.catalog is not None
        assert run.catalog.tools == episode.catalog.tools


def test_only_what_the_oracle_decided_is_learnt(runs: list[Trajectory]) -> None:
    turns = [turn for run in runs for turn in run.turns]
    kept = [turn for run in runs for turn in keep_turns(run, FilterReport(), (by_chance,))]
    assert any(turn["decision"]["reason"] == BY_CHANCE for turn in turns)
    assert kept
    assert all(turn["decision"]["by"] == "router" and turn["decision"]["calls"] for turn in kept)
    assert all(turn["decision"]["reason"].startswith("left to do") for turn in kept)


def test_tasks_follow_from_seed_step_and_index_on_every_rung() -> None:
    tasks, again = LadderTasks(), LadderTasks()
    drawn = [tasks(5, step, index) for step in range(2) for index in range(8)]
    assert [task.id for task in drawn] == [again(5, step, index).id for step in range(2) for index in range(8)]
    assert len({task.id for task in drawn}) == len(drawn)
    fixed = [task for place, task in enumerate(drawn) if place % len(LADDER) == 0]
    assert all(task.catalog is not None and set(task.catalog.tools) == set(BENCH.catalog.tools) for task in fixed)


def test_some_budgets_bind_and_most_are_free() -> None:
    budgets = [draw_budget(Random(n), BENCH.catalog) for n in range(400)]
    free = sum(budget.turns == 50 and budget.dollars == budget.seconds == float("inf") for budget in budgets)
    assert 0.35 < free / len(budgets) < 0.75
    assert any(budget.turns == 1 for budget in budgets)
    assert min(budget.dollars for budget in budgets) < 0.001


@pytest.mark.slow
def test_lessons_say_take_and_skip_behind_what_the_router_reads(log: Path, tmp_path: Path) -> None:
    from datasets import load_dataset  # noqa: PLC0415  (seconds)
    from orchestra_training.tiny.prepare import main  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    main(log, tmp_path, seeds=2)
    tokenizer = Tokenizer.from_file(str(tmp_path / "base-0" / "tokenizer.json"))
    rows: Any = load_dataset("parquet", data_dir=str(tmp_path / "lessons"), split="train", cache_dir=str(tmp_path))
    said = [tokenizer.decode([row["input_ids"][-1]]) for row in rows]
    assert set(said) == {TAKE, SKIP}
    for row in rows:
        assert row["labels"] == [-100] * (len(row["input_ids"]) - 1) + row["input_ids"][-1:]
        text = tokenizer.decode(row["input_ids"], skip_special_tokens=False)
        assert text.startswith("Task: ")
        assert text.endswith(("<|choose|>take", "<|choose|>skip"))
    weights = [(tmp_path / f"base-{seed}" / "model.safetensors").read_bytes() for seed in range(2)]
    assert weights[0] != weights[1]


@pytest.mark.slow
def test_a_router_is_published_with_a_card_of_its_own_figures(tmp_path: Path) -> None:
    from orchestra_training.tiny.publish import main  # noqa: PLC0415

    from orchestra_graph.routers.bundled import WORDS, tiny_folder, tiny_router  # noqa: PLC0415
    from orchestra_graph.routers.local import LocalRouter  # noqa: PLC0415

    stage = tmp_path / "my-sft"
    stage.mkdir()
    history = [{"loss": 6.0}, {"loss": 0.25}, {"train_loss": 1.0, "train_runtime": 3.0}]
    (stage / "trainer_state.json").write_text(
        json.dumps({"global_step": 1234, "train_batch_size": 64, "log_history": history})
    )
    bounded = {"value": 0.91, "low": 0.9, "high": 0.92}
    names = ("success", "utility", "dollars", "seconds", "turns", "priciest_share", "malformed_share")
    figures = {"units": 77, "routers": {"tiny": dict.fromkeys(names, bounded)}}
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(json.dumps({"reference": {"policy": "rules"}, "conditions": {"unseen": figures}}))
    main(tiny_folder(), evaluation=evaluation, stage=[stage], words=tiny_folder() / WORDS, to=tmp_path / "published")
    card = (tmp_path / "published" / "README.md").read_text()
    assert "- `my-sft`: 1,234 steps of 64 lessons, loss 6 -> 0.25\n" in card
    assert "### unseen, 77 tasks" in card
    assert "| tiny | 0.910 [0.900, 0.920] |" in card
    assert LocalRouter.from_folder(tmp_path / "published").chat_template == tiny_router().chat_template
