from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.report.frontier import frontier

POINTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.tuples(st.integers(0, 6), st.integers(0, 6)))


def dominates(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(POINTS)
def test_nothing_dominates_the_frontier_and_it_dominates_all_else(points: dict[str, tuple[int, int]]) -> None:
    found = frontier({name: (float(cost), float(quality)) for name, (cost, quality) in points.items()})
    beaten = {name for name in points if any(dominates(other, points[name]) for other in points.values())}
    assert set(found) == set(points) - beaten
    assert [points[name] for name in found] == sorted(points[name] for name in found)
