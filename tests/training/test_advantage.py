from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.reward import advantages

REWARDS = st.lists(st.floats(0, 4).map(lambda reward: round(reward, 6)), min_size=2, max_size=16)


@given(REWARDS)
def test_by_group_they_have_mean_0_and_deviation_1(rewards: list[float]) -> None:
    found = advantages(rewards)
    assert math.fsum(found) == pytest.approx(0, abs=1e-6)
    if len(set(rewards)) > 1:
        assert statistics.stdev(found) == pytest.approx(1)


@given(REWARDS)
def test_without_scale_they_keep_their_size_and_order(rewards: list[float]) -> None:
    found = advantages(rewards, scale_rewards="none")
    for a, b in zip(rewards, found, strict=True):
        assert b - found[0] == pytest.approx(a - rewards[0], abs=1e-9)


def test_equal_rewards_teach_nothing() -> None:
    assert advantages([0.3, 0.3, 0.3]) == [0, 0, 0]
    assert advantages([2.0]) == [0]
    assert advantages([]) == []


def test_scaling_erases_how_strong_a_preference_is() -> None:
    assert advantages([1.0, 1.1]) == pytest.approx(advantages([1.0, 2.0]))
    assert advantages([1.0, 1.1], scale_rewards="none") != pytest.approx(advantages([1.0, 2.0], scale_rewards="none"))
