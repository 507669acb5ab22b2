from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.tools.fusion import DAMPING, reciprocal_rank_fusion

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), max_size=4)


def test_the_sum_of_reciprocal_ranks() -> None:
    fused = dict(reciprocal_rank_fusion([["a", "b"], ["b", "c"]]))
    assert fused == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "c": 1 / 62})
    assert DAMPING == 60


def test_one_ranking_keeps_its_order_and_none_is_empty() -> None:
    assert [name for name, _ in reciprocal_rank_fusion([[3, 1, 2]])] == [3, 1, 2]
    assert reciprocal_rank_fusion([]) == []


@given(RANKINGS)
def test_nothing_is_lost_and_the_best_come_first(rankings: list[list[int]]) -> None:
    fused = reciprocal_rank_fusion(rankings)
    scores = [score for _, score in fused]
    assert {name for name, _ in fused} == {name for ranking in rankings for name in ranking}
    assert len(fused) == len(dict(fused))
    assert scores == sorted(scores, reverse=True)


@given(RANKINGS, st.integers(0, 30))
def test_one_more_vote_for_the_first_place_never_harms(rankings: list[list[int]], name: int) -> None:
    before = [n for n, _ in reciprocal_rank_fusion([*rankings, [name]])]
    after = [n for n, _ in reciprocal_rank_fusion([*rankings, [name], [name]])]
    assert after.index(name) <= before.index(name)
