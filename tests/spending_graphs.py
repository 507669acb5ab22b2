"""Graphs whose nodes ask models, fail, wait for a person, or die."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import interrupt

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import ToolSpec
from orchestra_graph.testing import ScriptedRouter
from tests.provider import LIMITS, PRICE, Provider

CONFIG: Any = {"configurable": {"thread_id": "1"}}
QUESTION: Any = {"messages": [HumanMessage("q")]}


def script(*names: str) -> ScriptedRouter:
    return ScriptedRouter([*((name, {}) for name in names), ("final_answer", {"answer": "end"})], stateless=True)


def spec(name: str, **fields: Any) -> ToolSpec:
    return ToolSpec(name=name, **{"price": PRICE, "limits": LIMITS, **fields})


class Node:
    """A node that asks a model, and may then fail, wait for a person, or die."""

    def __init__(
        self, model: Any = None, *, fails: list[Any] | None = None, asks: bool = False, wait: float = 0
    ) -> None:
        self.model = model or Provider(text="said")
        self.fails = fails or []
        self.asks = asks
        self.wait = wait
        self.runs = 0

    async def __call__(self, state: MessagesState) -> dict[str, Any]:
        self.runs += 1
        said = await self.model.ainvoke(state["messages"])
        await asyncio.sleep(self.wait)
        if self.fails:
            error = self.fails.pop(0)
            if error is not None:
                raise error
        return {"messages": [AIMessage(interrupt("well?") if self.asks else said.text)]}


def graph_of(**nodes: Any) -> Any:
    builder: Any = StateGraph(MessagesState)
    for name, node in nodes.items():
        builder.add_node(name, node)
    return builder


def compiled(builder: Any, *args: Any, compiling: Any = None, **options: Any) -> Any:
    options = {"checkpointer": InMemorySaver(), **(compiling or {}), **options}
    settings = {key: options.pop(key) for key in ("checkpointer", "cache") if key in options}
    return add_router(builder, *args, **options).compile(**settings)


async def values_of(graph: Any) -> dict[str, Any]:
    values: dict[str, Any] = (await graph.aget_state(CONFIG)).values
    return values
