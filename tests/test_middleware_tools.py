"""Tools that an agent's expert calls: what the budget lets through, and what is charged when others call them again."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.preferences import Budget
from orchestra_graph.routers import Fixed
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.expert import Expert
from tests.agents import Bench, run
from tests.provider import Paid


def agent(calls: Any, tools: list[Any], lines: list[ToolSpec], *others: Any, first: bool = True, **options: Any) -> Any:
    """An agent whose expert makes these calls of tools, then answers; `build` holds what is `create_agent`'s."""
    model = ScriptedRouter(lambda messages: "done" if isinstance(messages[-1], ToolMessage) else calls)
    build = {"tools": tools, **options.pop("build", {})}
    experts = [Expert(model, name="small", price=Price())]
    mine = OrchestraMiddleware(Fixed(tool="small"), experts, catalog=Catalog.of(lines), **options)
    return Bench().agent(*others, first=first, mine=mine, build=build)


def outcomes(state: dict[str, Any]) -> list[Any]:
    """Of the tools, in their order."""
    turns = [turn for turn in state["turns"].values() if turn["decision"]["by"] == "expert"]
    return [turn["outcomes"].get(call["id"]) for turn in turns for call in turn["decision"]["calls"]]


@pytest.mark.parametrize("graphs", [1, 2, 4])
def test_orchestrators_called_in_one_message_share_what_is_left(graphs: int) -> None:
    look = Paid("look", 0.01)
    inner = create_orchestrator(ScriptedRouter(lambda messages: ("look", {})), [look]).compile()

    @tool
    async def helper(query: str) -> str:
        """Ask an orchestrator that spends all it may."""
        return str((await inner.ainvoke({"messages": [HumanMessage(query)]}))["answer"])

    calls = [("helper", {"query": str(n)}) for n in range(graphs)]
    lines = [ToolSpec(name="helper", kind="graph")]
    state = run(agent(calls, [helper], lines, budget=Budget(dollars=0.08)), "async")
    assert look.sent == 8
    assert state["ledger"]["dollars"] == pytest.approx(0.08)
