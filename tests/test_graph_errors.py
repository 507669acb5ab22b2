"""What `create_orchestrator` refuses to build."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert


def line(name: str, **fields: Any) -> ToolSpec:
    return ToolSpec(name=name, **fields)


def router_function(x: int) -> int:
    """Named like a node."""
    return x


router_function.__name__ = "closing"


def search(query: str) -> str:
    """Search."""
    return query


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "router is no model": ({"router": "gpt"}, "router = 'gpt'; expected"),
    "no tools": ({"tools": []}, "expected at least one tool"),
    "two of a name": ({"tools": [search, search]}, "two tools are named 'search'"),
    "reserved name": ({"tools": [router_function]}, "'closing', which the graph uses itself"),
    "no tool at all": ({"tools": [42]}, "42 is no tool"),
    "a bare model": ({"tools": [ScriptedExpert("x")]}, "wrap it: Expert"),
    "a line without a tool": ({"catalog": Catalog.of([line("search"), line("web")])}, "'web' without a tool"),
    "unknown closing": ({"closing": "web"}, "closing = 'web'; expected a terminal tool"),
    "closing with arguments": ({"closing": "search"}, "closing = 'search'; expected a terminal tool"),
    "unknown preferred tool": (
        {"preferences": Preferences(prefer={"web": 1.0})},
        "'web'; expected tools of the catalog",
    ),
    "never all": ({"preferences": Preferences(never=("search", "final_answer"))}, "names every tool"),
    "fallback": ({"fallback": "cheapest"}, "fallback = 'cheapest'; expected"),
    "max_malformed": ({"max_malformed": 0}, "max_malformed = 0; expected"),
    "preferences": ({"preferences": {"cost": 1}}, "preferences = {'cost': 1}; expected"),
    "budget": ({"budget": 0.5}, "budget = 0.5; expected"),
    "catalog": ({"catalog": "catalog.toml"}, "catalog = 'catalog.toml'; expected"),
    "protocol": ({"protocol": "scan"}, "protocol = 'scan'; expected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named_when_the_graph_is_built(case: str) -> None:
    arguments, words = WRONG[case]
    options = {"router": ScriptedRouter([]), "tools": [search], **arguments}
    with pytest.raises(ConfigError, match=words):
        create_orchestrator(options.pop("router"), options.pop("tools"), **options)


def test_a_budget_that_cannot_bound_an_expert_is_said(caplog: pytest.LogCaptureFixture) -> None:
    expert = Expert(name="large", description="Answers.", model=ScriptedExpert("42"))
    priced = Catalog.of([line("large", kind="expert", price=Price(input=0.0))])
    for catalog, budget in [(None, Budget(dollars=0.05)), (priced, Budget(dollars=0.05)), (None, Budget(turns=3))]:
        create_orchestrator(ScriptedRouter([]), [expert], catalog=catalog, budget=budget)
    [told] = caplog.messages
    assert told.startswith("budget.dollars = 0.05 does not bound what large cost: no price is known")
