"""Explorers: which word they write, that they leave their group alone, and what is learnt of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.batch import make_batch, make_best
from orchestra_training.exploration import EXPLORES, Explorer, explores
from orchestra_training.metrics import figures
from orchestra_training.reward import guarded
from orchestra_training.rollout import Rollouts, WorkbenchTasks
from orchestra_training.trainers.recipe import Recipe

from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.runlog.record import Trajectory
from tests.training.coin import local_router, make_coin, tokenizer
from tests.training.runs import decided
from tests.training.test_batch import captured, failed
from tests.training.test_rollout import actor


def explorer(id: str, *tools: str, solved: bool = True, **parts: Any) -> Trajectory:
    """One that called these tools, each for a cent."""
    make = captured if solved else failed
    turns = [decided(n, [tool], id=f"{id}-{n}", captures=[f"{id}-{n}:0"]) for n, tool in enumerate(tools)]
    task = {"id": "t1", "question": "What is 1 + 1?", EXPLORES: 0}
    return make(id, turns=turns, task=task, **parts)


class Words:
    """An engine that tells what it was asked."""

    def __init__(self) -> None:
        self.explored: list[bool] = []

    async def complete(
        self, prompt: Any, *, max_tokens: int, temperature: float, explore: bool = False
    ) -> tuple[list[int], list[float]]:
        self.explored.append(explore)
        return [1], [0.0]


async def test_one_reply_is_explored() -> None:
    words = Words()
    engine = Explorer(words, 2)
    for _ in range(5):
        await engine.complete([1], max_tokens=1, temperature=0.5)
    assert words.explored == [False, False, True, False, False]


CHEAP: dict[str, Any] = {"preferences": {"cost": 0.5, "latency": 0.0}}


def imitated(*runs: Trajectory) -> list[str]:
    return [one.row.run_id for one in make_best(runs).rows][:1]


def test_an_explorer_that_did_better_is_imitated() -> None:
    group = [captured("a", **CHEAP), captured("b", **CHEAP)]
    assert imitated(*group, explorer("x", "large", **CHEAP)) == ["x"]
    assert imitated(*group, explorer("x", "search", "large", **CHEAP)) == ["a"]
    assert imitated(*group, explorer("x", "large", solved=False, **CHEAP)) == ["a"]
    assert imitated(failed("a"), failed("b"), explorer("x", "large")) == ["x"]


@pytest.mark.parametrize(("weight", "best"), [(0.03, "x"), (0.01, "a")])
def test_a_gain_that_is_next_to_nothing_is_none(weight: float, best: str) -> None:
    wish: dict[str, Any] = {"preferences": {"cost": weight, "latency": 0.0}}
    assert imitated(captured("a", **wish), captured("b", **wish), explorer("x", "large", **wish)) == [best]


def test_a_policy_gradient_passes_explorers_over() -> None:
    group = [captured("a"), failed("b")]
    assert make_batch([*group, explorer("x", "large")]) == make_batch(group)


def test_explorers_count_in_no_mean() -> None:
    group = [captured("a", **CHEAP), captured("b", **CHEAP)]
    runs = [*group, explorer("x", "large", **CHEAP), explorer("y", "large", solved=False, **CHEAP)]
    told, alone = figures(runs, make_best(runs), guarded), figures(group, make_best(group), guarded)
    assert told["explored"] == 1.0
    assert "explored" not in alone
    for name in ("success", "dollars", "turns", "broken"):
        assert told[name] == alone[name]


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("grpo", {}, "only rejection imitates explorers"),
        ("rejection", {"base_url": "http://localhost:1/v1"}, "vLLM writes what the policy draws"),
    ],
)
def test_explorers_that_nothing_is_learnt_of_are_refused(kind: str, changes: dict[str, Any], why: str) -> None:
    from orchestra_training.trainers.grpo import online_trainer  # noqa: PLC0415  (imports torch)

    table = {
        "kind": kind,
        "output": "runs/x",
        "model": {"path": "none", "dtype": "float32"},
        "rollout": {"explorers": 2, **changes},
        "trainer": {"max_steps": 1, "report_to": [], "activation_checkpointing": False},
    }
    with pytest.raises(ConfigError, match=rf"rollout\.explorers = 2; expected 0: {why}"):
        online_trainer(Recipe.model_validate(table), make_batch, weights=False)


@pytest.mark.slow
def test_explorers_of_the_workbench_write_the_other_word(tmp_path: Path) -> None:
    model = make_coin(tmp_path)
    words = [tokenizer().token_to_id(word) for word in ("take", "skip")]
    import torch  # noqa: PLC0415  (takes seconds)

    with torch.no_grad():  # sure of `skip`, and of `take` before any other word
        model.lm_head.weight[words[1], 0] = 3.0
    router = local_router(model)
    rollouts = Rollouts(tasks=WorkbenchTasks(budget={"turns": 2}), size=2, explorers=3)
    runs = asyncio.run(rollouts.batch(actor(router, ScanProtocol()), 0, range(2)))
    assert [explores(run) for run in runs] == ([False] * 2 + [True] * 3) * 2
    for run in runs:
        written = [run.captures[name].token_ids[0] for turn in run.turns for name in turn["captures"]]
        place = (run.task.model_extra or {}).get(EXPLORES)
        assert [n for n, word in enumerate(written) if word == words[0]] == ([] if place is None else [place])
