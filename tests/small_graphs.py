"""Small graphs for `add_router`, and what their router is shown."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import MessagesState, StateGraph

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.testing import ScriptedRouter

CONFIG: Any = {"configurable": {"thread_id": "1"}}
QUESTION: Any = {"messages": [HumanMessage("What is 6 x 7?")]}


def script(*names: Any) -> ScriptedRouter:
    """Calls the nodes in order, on every run anew."""
    return ScriptedRouter([(name, {}) if isinstance(name, str) else name for name in names], stateless=True)


def search(state: MessagesState) -> dict[str, Any]:
    """Finds things."""
    return {"messages": [AIMessage("found 42")]}


def answer(state: MessagesState) -> dict[str, Any]:
    """Answers from what was found."""
    return {"messages": [AIMessage(f"It is {state['messages'][-1].text.split()[-1]}.")]}


def graph_of(*nodes: Any, schema: Any = MessagesState, **options: Any) -> Any:
    builder = StateGraph(schema, **options)
    for node in nodes:
        builder.add_node(node)
    return builder


TERMINAL = ToolSpec(name="answer", terminal=True)


def shown(router: ScriptedRouter, place: int = -1) -> list[str]:
    """What the router was shown, by turn."""
    return [message.text for message in router.prompts[place]]
