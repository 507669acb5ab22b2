from __future__ import annotations

from pathlib import Path

import pytest
from orchestra_training.trainers.recipe import ONLINE, Recipe, read_recipe

from orchestra_graph.errors import ConfigError

GOOD = """# orchestra train grpo --recipe good.toml
kind = "grpo"
output = "runs/good"

[model]
path = "router"

[rollout]
tasks = 4

[trainer]
learning_rate = 1e-4
"""


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_and_changed(tmp_path: Path) -> None:
    changes = ["rollout.tasks=8", "model.dtype=float32", "reward.kind=paper", "trainer.max_steps=5", "lora.rank=4"]
    read = read_recipe(recipe(tmp_path, GOOD), changes=changes, kind="grpo")
    assert (read.rollout.tasks, read.model.dtype, read.reward.kind) == (8, "float32", "paper")
    assert read.trainer == {"learning_rate": 1e-4, "max_steps": 5}
    assert read.lora is not None
    assert read.lora.rank == 4


def test_every_problem_is_told_with_its_line(tmp_path: Path) -> None:
    wrong = GOOD.replace("tasks = 4", "tasks = 0\nsizes = 3").replace('path = "router"', "random = 7")
    with pytest.raises(ConfigError) as caught:
        read_recipe(recipe(tmp_path, wrong))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("4 wrong")
    for told in (
        "line 5: model.path: Field required",
        "line 6: model.random = 7: ",
        "line 9: rollout.tasks = 0: ",
        "line 10: rollout.sizes: unknown key",
    ):
        assert any(told in line for line in lines), told


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (GOOD, "sft", 'line 2: kind = "grpo"; expected "sft"'),
        (
            GOOD.replace('"grpo"', '"sft"').replace("[rollout]\ntasks = 4", "[lora]")
            + '[data]\npath = "d"\n[muon]\nlearning_rate = 1\n',
            "sft",
            "line 14: muon: expected without lora",
        ),
        (
            GOOD + '[lora]\n[accelerate]\ndistributed_type = "FSDP"\n',
            "grpo",
            "line 13: lora: adapters of a model that FSDP shards cannot be merged",
        ),
        (GOOD.replace('"grpo"', '"sft"'), "sft", "data: missing"),
        ("kind = ", "sft", "expected TOML"),
    ],
)
def test_other_recipes_are_refused(tmp_path: Path, text: str, kind: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_recipe(recipe(tmp_path, text), kind=kind)


@pytest.mark.parametrize(
    ("kind", "changes", "unused"),
    [
        (
            "sft",
            ["reward.floor=0.1", "tokens_per_pass=9"],
            ["reward.floor", "line 9: rollout.tasks", "tokens_per_pass"],
        ),
        ("dpo", ["muon.learning_rate=1", "stop.window=3"], ["muon.learning_rate", "rollout.tasks", "stop.window"]),
        ("replay", ["rollout.size=4", "tasks.source=a:b"], ["rollout.size", "tasks.source"]),
        ("rejection", ["reward={kind = 'paper', scale = 'none'}", "data.path=d"], ["data.path", "reward.scale"]),
        ("explore", ["reward.floor=0.1", "stop.window=3"], ["reward.floor", "stop.window"]),
        ("grpo", ["data.path=d"], ["data.path"]),
    ],
)
def test_what_a_kind_does_not_read_is_refused(tmp_path: Path, kind: str, changes: list[str], unused: list[str]) -> None:
    data = [] if kind in ONLINE else ["data.path=d"]
    with pytest.raises(ConfigError) as caught:
        read_recipe(recipe(tmp_path, GOOD), changes=[f"kind={kind}", *data, *changes])
    first, *problems = str(caught.value).splitlines()
    assert first.endswith(f"{len(unused)} wrong")
    for told, name in zip(problems, unused, strict=True):
        assert f"{name}: not used by {kind}, which reads " in told


@pytest.mark.parametrize("change", ["rollout", "=3", "kind.x=3"])
def test_changes_that_change_nothing_are_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        read_recipe(recipe(tmp_path, GOOD), changes=[change])


def test_an_error_about_a_key_tells_its_line(tmp_path: Path) -> None:
    read = read_recipe(recipe(tmp_path, GOOD))
    assert str(read.error(("trainer", "learning_rate"), ": too high")).endswith(
        "recipe.toml: line 12: trainer.learning_rate: too high"
    )
    made = Recipe.model_validate({"kind": "grpo", "output": "o", "model": {"path": "p"}})
    assert str(made.error(("model",), ": none")) == "recipe: model: none"
