"""The support bot of the quick start: a chatbot with a tool, and a person that it can hand over to.

START -> chatbot -> (tools -> chatbot | human -> chatbot | END)
"""

from __future__ import annotations

from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from orchestra_graph.testing import Reply, ScriptedRouter

ORDERS = {"17": "shipped on Monday"}


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class RequestAssistance(BaseModel):
    """Hand the conversation over to a person."""

    request: str


@tool
def look_up_order(number: str) -> str:
    """Look up where an order is."""
    return ORDERS.get(number, "no such order")


def select_next_node(state: State) -> str:
    last = state["messages"][-1]
    calls = last.tool_calls if isinstance(last, AIMessage) else []
    if not calls:
        return END
    return "human" if calls[0]["name"] == "RequestAssistance" else "tools"


def human(state: State) -> dict[str, Any]:
    """A member of the team takes over; slow, and right about complaints and refunds."""
    last = state["messages"][-1]
    said = interrupt({"conversation": [message.text for message in state["messages"]]})
    calls = last.tool_calls if isinstance(last, AIMessage) else []
    return {
        "messages": [ToolMessage(said, tool_call_id=calls[0]["id"]) if calls else AIMessage(f"A colleague: {said}")]
    }


def build(model: BaseChatModel) -> StateGraph[State, Any, Any, Any]:
    assistant = model.bind_tools([look_up_order, RequestAssistance])

    def chatbot(state: State) -> dict[str, Any]:
        """Answers customers by itself, looks orders up, and knows when to ask a person."""
        return {"messages": [assistant.invoke(state["messages"])]}

    graph = StateGraph(State)
    graph.add_node("chatbot", chatbot)
    graph.add_node("tools", ToolNode([look_up_order]))
    graph.add_node("human", human)
    graph.add_edge(START, "chatbot")
    graph.add_conditional_edges("chatbot", select_next_node, {"human": "human", "tools": "tools", END: END})
    graph.add_edge("tools", "chatbot")
    graph.add_edge("human", "chatbot")
    return graph


def scripted_model() -> ScriptedRouter:
    """Stands for the model of the tutorial."""

    def reply(messages: list[BaseMessage]) -> Reply:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return f"I found out: {last.text}."
        if isinstance(last, AIMessage):
            return last.text
        if "order" in last.text:
            return "look_up_order", {"number": "17"}
        if "person" in last.text:
            return "RequestAssistance", {"request": last.text}
        return "We are open from 9 to 17."

    return ScriptedRouter(reply)
