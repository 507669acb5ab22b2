from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from orchestra_training.batch import WeighedRow, make_batch, merged
from orchestra_training.metrics import figures
from orchestra_training.reward import REWARDS, RewardName, guarded
from orchestra_training.rows import Row

from orchestra_graph.runlog.record import Trajectory
from tests.training.runs import decided, run


def captured(id: str, tokens: Iterable[int] = (2, 1), logprobs: bool = True, **parts: Any) -> Trajectory:
    """A run with a turn for each of `tokens`, which it wrote after a prompt of its own."""
    counts = list(tokens)
    turns = []
    captures: dict[str, Mapping[str, Any]] = {}
    for n, count in enumerate(counts):
        name, last = f"{id}-{n}:0", n == len(counts) - 1
        turns.append(decided(n, ["large" if last else "search"], id=f"{id}-{n}", captures=[name]))
        ids = {"prompt_token_ids": [100 + n, 7], "token_ids": [n] * count}
        captures[name] = {"id": name, "turn": f"{id}-{n}", **ids, **({"logprobs": [-0.5] * count} if logprobs else {})}
    return run(id, **{"turns": turns, "captures": captures, "group_id": "g", **parts})


def failed(id: str, **parts: Any) -> Trajectory:
    return captured(id, verdict={"outcome": 0.0, "by": "exact"}, **parts)


def test_each_trajectory_weighs_its_advantage_however_many_rows_it_has() -> None:
    batch = make_batch([captured("a"), failed("b", tokens=(4, 3, 5))])
    assert batch.trajectories == 2
    weights: dict[str, float] = {}
    for weighed in batch.rows:
        weights[weighed.row.run_id] = weights.get(weighed.row.run_id, 0.0) + weighed.weight * sum(weighed.row.mask)
    assert weights["a"] == pytest.approx(math.sqrt(0.5))
    assert weights["b"] == pytest.approx(-math.sqrt(0.5))


def test_advantages_need_not_be_scaled() -> None:
    batch = make_batch([captured("a"), failed("b")], scale_rewards="none")
    (rewards,) = batch.rewards
    assert rewards == [1.0, 0.0]
    assert sum(one.weight * sum(one.row.mask) for one in batch.rows if one.row.run_id == "a") == pytest.approx(0.5)


def test_groups_whose_runs_earn_the_same_teach_nothing() -> None:
    batch = make_batch([captured("a"), captured("b"), captured("c", group_id="h"), failed("d", group_id="h")])
    assert {one.row.run_id for one in batch.rows} == {"c", "d"}
    assert (batch.filtered_share, batch.dropped["homogeneous"]) == (0.5, 1)


def test_runs_without_an_answer_count_in_the_mean_and_are_not_trained() -> None:
    batch = make_batch([captured("a"), captured("b"), failed("c", answer=None)])
    assert {one.row.run_id for one in batch.rows} == {"a", "b"}
    assert batch.rewards == [[1.0, 1.0, 0.0]]
    assert batch.trajectories == 2


def test_broken_runs_count_nowhere() -> None:
    batch = make_batch([captured("a"), failed("b"), captured("c", verdict=None, ended="failed")])
    assert batch.rewards == [[1.0, 0.0]]
    assert batch.dropped["unjudged"] == 1


def test_a_reply_without_logprobs_is_told() -> None:
    batch = make_batch([captured("a", logprobs=False), failed("b")])
    assert {one.row.run_id for one in batch.rows} == {"b"}
    assert batch.report.counts["without_tokens", "no_logprobs"] == 1


def test_rows_with_the_same_tokens_are_one_by_sign() -> None:
    def row(token: int, weight: float, logprob: float = -0.5) -> WeighedRow:
        return WeighedRow(Row("r", ("t",), [1, 2], [token], [1], [logprob]), weight)

    found = merged([row(3, 0.25), row(4, 1.0), row(3, 0.5, -0.50001), row(3, -1.0), row(3, -0.5)])
    assert [(one.row.completion_ids, one.weight) for one in found] == [([3], 0.75), ([4], 1.0), ([3], -1.5)]
    assert len(merged([row(3, 1.0), row(3, 1.0, -2.0)])) == 2, "other weights of the policy wrote it"


def test_figures_of_a_step() -> None:
    dear = decided(0, ["large", "large", "search"], id="b-0")
    runs = [
        captured("a", preferences={"prefer": {"search": 0.5}}),
        failed("b", turns=[dear], preferences={"prefer": {"search": 0.5}}),
        failed("c", turns=[decided(0, id="c-0")], preferences={"prefer": {"search": 0.5}}, stopped_by="router"),
        captured("d", verdict=None),
    ]
    told = figures(runs, make_batch(runs), guarded)
    expected = {
        "broken": 1 / 4,
        "success": 1 / 3,
        "reward": 1 / 3,
        "reward/accuracy": 1 / 3,
        "reward/cost": 0.0,
        "turns": 4 / 3,
        "malformed": 1 / 4,
        "share/search": 2 / 5,
        "share/large": 3 / 5,
        "filtered/groups": 0.0,
        "filtered/runs": 1 / 4,
        "dollars": (0.03 + 0.035 + 0.005) / 3,
    }
    assert {name: told[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("kind", REWARDS)
def test_the_terms_add_up_to_the_reward(kind: RewardName) -> None:
    wishes: dict[str, Any] = {
        "preferences": {"cost": 0.5, "latency": 0.25, "prefer": {"search": 0.5}, "avoid": {"large": 0.75}}
    }
    dear = decided(0, ["large", "search"], id="b-0")
    runs = [captured("a", **wishes), captured("b", turns=[dear], **wishes), failed("c", **wishes)]
    told = figures(runs, make_batch(runs, reward=REWARDS[kind]), REWARDS[kind])
    parts = [told[f"reward/{term}"] for term in ("accuracy", "cost", "latency", "prefer", "avoid")]
    assert sum(parts) == pytest.approx(told["reward"])
    assert told["reward/cost"] != 0
