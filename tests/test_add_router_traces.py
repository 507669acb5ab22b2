"""A graph with the router in LangSmith: its nodes are in the tree as before, with what they cost."""

from __future__ import annotations

from math import fsum
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import Catalog, ModelSpec, Price, ToolSpec
from tests.langsmith_recorder import cost, metadata, recording
from tests.provider import LIMITS, PRICE, Provider

CONFIG: Any = {"configurable": {"thread_id": "1"}}
QUESTION: Any = {"messages": [HumanMessage("q")]}


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_the_trace_shows_nodes_and_its_dollars_are_the_ledgers(mode: str) -> None:
    model, router = Provider(text="said"), Provider(calls=[("search", {})])

    def search(state: MessagesState) -> dict[str, Any]:
        router.calls = [("answer", {})]
        return {"messages": [model.invoke("search")]}

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("42")]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node(search)
    builder.add_node(answer)
    lines = [
        ToolSpec(name="search", price=PRICE.model_copy(update={"per_call": 0.5}), limits=LIMITS),
        ToolSpec(name="answer", price=Price(per_call=0.25), terminal=True),
    ]
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    graph = add_router(builder, router, lines, catalog=catalog).compile(checkpointer=InMemorySaver())
    with recording() as recorder:
        state = graph.invoke(QUESTION, CONFIG) if mode == "sync" else await graph.ainvoke(QUESTION, CONFIG)
    assert state["messages"][-1].text == "42"
    ledger = graph.get_state(CONFIG).values["orchestra_ledger"]
    assert fsum(cost(run) or 0.0 for run in recorder.runs.values()) == pytest.approx(ledger["dollars"], abs=1e-9)
    names = [run["name"] for run in recorder.children(recorder.root)]
    assert [name for name in names if name != "router"] == ["search", "answer"]
    (visit,) = [run for run in recorder.children(recorder.root) if run["name"] == "search"]
    assert metadata(visit)["dollars"] == pytest.approx(ledger["tools"]["search"]["dollars"])
    assert set(visit["inputs"]) == {"messages"}
    assert metadata(recorder.root)["stopped_by"] == "answer"
