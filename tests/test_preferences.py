from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Budget, Preferences

CATALOG = Catalog.of([ToolSpec(name="search"), ToolSpec(name="large", fallback=("search",)), ToolSpec(name="small")])


def test_defaults() -> None:
    preferences = Preferences()
    assert (preferences.accuracy, preferences.cost, preferences.latency) == (1.0, 0.4, 0.1)
    assert preferences.vector(["a"]) == [0.0, 1.0, 0.4, 0.1, 0.0]


def test_vector_order_is_the_papers_with_avoidance_after_it() -> None:
    preferences = Preferences(accuracy=0.9, cost=0.2, latency=0.3, prefer={"b": 0.5}, avoid={"a": 1})
    assert preferences.vector(["a", "b"]) == [0.0, 0.5, 0.9, 0.2, 0.3, 1.0, 0.0]


@given(st.lists(st.text(min_size=1), unique=True))
def test_vector_has_two_elements_a_tool_and_three(tools: list[str]) -> None:
    assert len(Preferences().vector(tools)) == 2 * len(tools) + 3


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf, "much"])
@pytest.mark.parametrize("name", ["accuracy", "cost", "latency"])
def test_a_weight_is_between_0_and_1(name: str, weight: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        Preferences.model_validate({name: weight})


@pytest.mark.parametrize("field", ["prefer", "avoid"])
def test_a_tools_weight_is_between_0_and_1(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Preferences.model_validate({field: {"search": -1}})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="costs"):
        Preferences.model_validate({"costs": 1})


def test_never_takes_a_tool_out_of_the_catalog() -> None:
    left = Preferences(never=("search",)).apply(CATALOG)
    assert list(left.tools) == ["large", "small"]
    assert left.tools["large"].fallback == ()


def test_apply_without_never_gives_the_catalog_itself() -> None:
    assert Preferences(prefer={"small": 1}, avoid={"large": 1}).apply(CATALOG) is CATALOG


@pytest.mark.parametrize("field", ["prefer", "avoid", "never"])
def test_a_tool_that_the_catalog_lacks_is_named(field: str) -> None:
    value: Any = ("google",) if field == "never" else {"google": 1}
    with pytest.raises(ConfigError, match="'google'; expected tools of the catalog: search, large, small"):
        Preferences.model_validate({field: value}).apply(CATALOG)


def test_never_must_leave_a_tool() -> None:
    with pytest.raises(ConfigError, match="every tool"):
        Preferences(never=tuple(CATALOG.tools)).apply(CATALOG)


def test_budget_defaults_to_fifty_turns_and_no_other_limit() -> None:
    assert Budget() == Budget(dollars=math.inf, seconds=math.inf, turns=50)


@pytest.mark.parametrize("wrong", [{"dollars": -0.01}, {"seconds": 0}, {"turns": 0}, {"dollars": math.nan}])
def test_a_wrong_budget_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Budget.model_validate(wrong)


budgets = st.builds(
    Budget,
    dollars=st.floats(0, allow_nan=False),
    seconds=st.floats(0, exclude_min=True, allow_nan=False),
    turns=st.integers(1, 100),
)


@given(budgets, budgets)
def test_at_most_is_the_smaller_element_by_element(a: Budget, b: Budget) -> None:
    least = a.at_most(b)
    assert least == b.at_most(a)
    assert (least.dollars, least.seconds, least.turns) == (
        min(a.dollars, b.dollars),
        min(a.seconds, b.seconds),
        min(a.turns, b.turns),
    )
