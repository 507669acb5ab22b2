"""Explorers: which word they write, that they leave their group alone, and what is learnt of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.batch import LEAST_GAIN, make_batch, make_best, make_explored
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


def explorer(id: str, *tools: str, reply: int = 0, word: int = 9, solved: bool = True, **parts: Any) -> Trajectory:
    """One that called these tools, each for a cent, and wrote the word in one reply; the others as the policy would."""
    make = captured if solved else failed
    turns = [decided(n, [tool], id=f"{id}-{n}", captures=[f"{id}-{n}:0"]) for n, tool in enumerate(tools)]
    task = {"id": "t1", "question": "What is 1 + 1?", EXPLORES: reply}
    made = make(id, tokens=[1] * len(tools), turns=turns, task=task, **parts)
    for n, capture in enumerate(made.captures.values()):
        capture.token_ids[0] = word if n == reply else n
    return made


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


def learnt(*runs: Trajectory) -> dict[int, tuple[int, float]]:
    """By a reply's number, the word that is learnt and its weight; the policy's own word is that number."""
    found = {one.row.prompt_ids[0] - 100: (one.row.completion_ids[0], one.weight) for one in make_explored(runs).rows}
    assert len(found) == len(make_explored(runs).rows)
    return found


def group(*ids: str, **parts: Any) -> list[Trajectory]:
    """What the policy drew: a search and a call of `large`."""
    return [captured(id, tokens=(1, 1), **parts) for id in ids or ("a", "b")]


def test_a_better_word_is_learnt_by_how_much_it_is_better() -> None:
    found = learnt(*group(**CHEAP), explorer("x", "large", **CHEAP))
    (rewards,) = make_explored([*group(**CHEAP), explorer("x", "large", **CHEAP)]).rewards
    gain = rewards[2] - (rewards[0] + rewards[1]) / 2
    assert gain > LEAST_GAIN
    assert found == {0: (9, pytest.approx(gain)), 1: (1, LEAST_GAIN)}


def test_of_a_worse_word_the_policys_own_is_learnt_by_as_much() -> None:
    assert learnt(*group(), explorer("x", "large", solved=False)) == {0: (0, pytest.approx(1.0)), 1: (1, LEAST_GAIN)}


def test_a_later_reply_is_compared_with_the_runs_that_met_it() -> None:
    """The policy's other run went another way at first, and failed."""
    other = captured("b", tokens=(1,), verdict={"outcome": 0.0, "by": "exact"})
    other.captures["b-0:0"].token_ids[0] = 5
    drawn = [captured("a", tokens=(1, 1)), other]
    found = learnt(*drawn, explorer("x", "search", "large", reply=1, solved=False))
    assert found == {0: (0, LEAST_GAIN), 1: (1, pytest.approx(1.0))}
    lost = explorer("x", "search", "large", reply=1)
    lost.captures["x-1:0"].prompt_token_ids[0] = 150
    assert learnt(*drawn, lost) == {0: (0, LEAST_GAIN), 1: (1, LEAST_GAIN)}


def test_an_explorer_whose_run_ends_before_its_reply_teaches_nothing() -> None:
    early = explorer("x", "search", "large", reply=2, solved=False)
    assert learnt(*group(), early) == {0: (0, LEAST_GAIN), 1: (1, LEAST_GAIN)}


def test_an_explorer_that_writes_what_the_policy_drew_teaches_nothing() -> None:
    same = explorer("x", "large", word=0, solved=False)
    assert learnt(*group(), same) == {0: (0, LEAST_GAIN), 1: (1, LEAST_GAIN)}


@pytest.mark.parametrize(("weight", "word"), [(0.2, 9), (0.01, 0)])
def test_a_gain_that_is_next_to_nothing_is_none(weight: float, word: int) -> None:
    wish: dict[str, Any] = {"preferences": {"cost": weight, "latency": 0.0}}
    found = learnt(*group(**wish), explorer("x", "large", **wish))
    assert found[0][0] == word


def test_every_group_weighs_in_the_mean() -> None:
    others = [captured("c", tokens=(1, 1), group_id="h"), explorer("y", "large", solved=False, group_id="h")]
    batch = make_explored([*group(), explorer("x", "large", solved=False), *others])
    assert (batch.trajectories, batch.explored) == (2, 0)
    assert len(batch.rows) == 4


def test_rejection_passes_explorers_over() -> None:
    assert make_best([*group(**CHEAP), explorer("x", "large", **CHEAP)]) == make_best(group(**CHEAP))


def test_a_policy_gradient_passes_explorers_over() -> None:
    drawn = [captured("a"), failed("b")]
    assert make_batch([*drawn, explorer("x", "large")]) == make_batch(drawn)


def test_explorers_count_in_no_mean() -> None:
    drawn = group(**CHEAP)
    runs = [*drawn, explorer("x", "large", **CHEAP), explorer("y", "large", solved=False, **CHEAP)]
    told, alone = figures(runs, make_explored(runs), guarded), figures(drawn, make_explored(drawn), guarded)
    assert told["explored"] == 1.0
    assert "explored" not in alone
    for name in ("success", "dollars", "turns", "broken"):
        assert told[name] == alone[name]


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("grpo", {}, "only explore learns from them"),
        ("rejection", {}, "only explore learns from them"),
        ("explore", {"base_url": "http://localhost:1/v1"}, "vLLM writes what the policy draws"),
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


def test_exploring_needs_explorers() -> None:
    from orchestra_training.trainers.explore import train  # noqa: PLC0415  (imports torch)

    table = {"kind": "explore", "output": "runs/x", "model": {"path": "none"}}
    with pytest.raises(ConfigError, match=r"rollout\.explorers = 0; expected how many replies of a run are explored"):
        train(Recipe.model_validate(table), weights=False)


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
