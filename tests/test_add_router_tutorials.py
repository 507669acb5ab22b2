"""Graphs of LangGraph's documentation keep their tests and their schemas when the router is added to them.

Each test runs on the graph as it was written and on the same graph with the router.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.types import Command

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import Price, ToolSpec
from orchestra_graph.testing import Reply, ScriptedRouter
from tests.tutorial_graphs import corrective_rag, plan_and_execute, support

Builder = StateGraph[Any, Any, Any, Any]
CONFIG: Any = {"configurable": {"thread_id": "1"}}
PRICE = Price(input=10.0, output=100.0)


def asked(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


# The routers, and the lines that add them.


def choose_support(messages: list[BaseMessage]) -> Reply:
    return ("human", {}) if "complain" in messages[-1].text else ("chatbot", {})


def support_with_router(builder: Builder) -> Builder:
    return add_router(
        builder,
        ScriptedRouter(choose_support),
        [
            ToolSpec(name="chatbot", terminal=True, price=PRICE),
            ToolSpec(name="human", terminal=True, price=Price(per_call=2.0)),
        ],
    )


def choose_rag(messages: list[BaseMessage]) -> Reply:
    return ("generate", {}) if "(all documents" in messages[-1].text else ("transform_query", {})


def rag_with_router(builder: Builder) -> Builder:
    return add_router(
        builder,
        ScriptedRouter(choose_rag),
        [ToolSpec(name="generate", terminal=True), ToolSpec(name="transform_query", terminal=True)],
        after="grade_documents",
        read=lambda s: f"{s['question']} ({'all' if s['web_search'] == 'No' else 'not all'} documents are relevant)",
    )


def choose_step(messages: list[BaseMessage]) -> Reply:
    newest = messages[-1].text
    if newest.startswith("response: "):
        return "final_answer", {"answer": newest.removeprefix("response: ")}
    return ("replan", {}) if newest.startswith("past_steps: ") else ("agent", {})


def plan_with_router(builder: Builder) -> Builder:
    return add_router(
        builder,
        ScriptedRouter(choose_step),
        ["agent", "replan"],
        after=["planner", "agent", "replan"],
        read=lambda state: state["input"],
    )


def as_written(builder: Builder) -> Builder:
    return builder


def both(with_router: Callable[[Builder], Builder]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("added", [as_written, with_router], ids=["as written", "with the router"])


# The tests of the support bot.


def support_graph(added: Callable[[Builder], Builder]) -> Any:
    return added(support.build(support.scripted_model())).compile(checkpointer=InMemorySaver())


@both(support_with_router)
def test_support_answers_by_itself(added: Any) -> None:
    state = support_graph(added).invoke(asked("When are you open?"), CONFIG)
    assert [m.text for m in state["messages"]] == ["When are you open?", "We are open from 9 to 17."]
    assert set(state) == {"messages"}


@both(support_with_router)
def test_support_looks_an_order_up(added: Any) -> None:
    state = support_graph(added).invoke(asked("Where is my order 17?"), CONFIG)
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == "I found out: shipped on Monday."


@both(support_with_router)
async def test_support_hands_over_to_a_person_and_goes_on(added: Any) -> None:
    graph = support_graph(added)
    state = await graph.ainvoke(asked("Let me speak to a person."), CONFIG)
    assert state["__interrupt__"][0].value == {"conversation": ["Let me speak to a person.", ""]}
    assert (await graph.aget_state(CONFIG)).next == ("human",)
    state = await graph.ainvoke(Command(resume="call me"), CONFIG)
    assert state["messages"][-1].text == "I found out: call me."
    state = await graph.ainvoke(asked("When are you open?"), CONFIG)
    assert state["messages"][-1].text == "We are open from 9 to 17."


@both(support_with_router)
def test_support_streams_its_updates(added: Any) -> None:
    parts = list(support_graph(added).stream(asked("Where is my order 17?"), CONFIG, stream_mode="updates"))
    names = [name for part in parts for name in part if name != "router"]
    assert names == ["chatbot", "tools", "chatbot"]


def test_the_router_sends_a_complaint_to_the_person_at_once() -> None:
    graph = support_graph(support_with_router)
    state = graph.invoke(asked("I want to complain."), CONFIG)
    assert state["__interrupt__"][0].value == {"conversation": ["I want to complain."]}
    state = graph.invoke(Command(resume="we are sorry"), CONFIG)
    assert state["messages"][-1].text == "A colleague: we are sorry"
    ledger = graph.get_state(CONFIG).values["orchestra_ledger"]
    assert ledger["tools"]["human"]["dollars"] == 2.0
    assert "chatbot" not in ledger["tools"]


# The tests of corrective RAG.


def rag_graph(added: Callable[[Builder], Builder]) -> Any:
    return added(corrective_rag.build(*corrective_rag.scripted_models())).compile()


@both(rag_with_router)
def test_rag_answers_from_good_documents(added: Any) -> None:
    state = rag_graph(added).invoke({"question": "What is long-term memory?"})
    assert state["generation"] == "It is said: Long-term memory is kept in a store outside the agent."
    assert set(state) == {"question", "generation", "web_search", "documents"}


@both(rag_with_router)
async def test_rag_searches_the_web_for_what_is_missing(added: Any) -> None:
    state = await rag_graph(added).ainvoke({"question": "And the tennis title?"})
    assert state["generation"] == "It is said: Jannik Sinner won the 2024 Australian Open men's title."
    assert state["web_search"] == "Yes"


@both(rag_with_router)
def test_rag_takes_its_steps_in_order(added: Any) -> None:
    parts = list(rag_graph(added).stream({"question": "And the tennis title?"}, stream_mode="updates"))
    names = [name for part in parts for name in part if name != "router"]
    assert names == ["retrieve", "grade_documents", "transform_query", "web_search_node", "generate"]


# The tests of plan-and-execute.


def plan_graph(added: Callable[[Builder], Builder]) -> Any:
    return added(plan_and_execute.build(*plan_and_execute.scripted_models())).compile()


@both(plan_with_router)
async def test_plan_is_carried_out_and_answered(added: Any) -> None:
    state = await plan_graph(added).ainvoke({"input": "What is the hometown of the winner?"}, {"recursion_limit": 50})
    assert state["response"] == "Sesto"
    assert state["past_steps"] == [("find the winner", "Jannik Sinner"), ("find the hometown of the winner", "Sesto")]
    assert set(state) == {"input", "plan", "past_steps", "response"}


@both(plan_with_router)
async def test_plan_is_shortened_after_each_step(added: Any) -> None:
    graph = plan_graph(added)
    parts = [part async for part in graph.astream({"input": "hometown?"}, stream_mode="updates")]
    names = [name for part in parts for name in part if name != "router"]
    assert names == ["planner", "agent", "replan", "agent", "replan"]
    changes = [part["replan"] for part in parts if "replan" in part]
    assert "find the hometown of the winner" in str(changes[0])


# What holds for all three.

ALL = pytest.mark.parametrize(
    ("build", "with_router"),
    [
        (lambda: support.build(support.scripted_model()), support_with_router),
        (lambda: corrective_rag.build(*corrective_rag.scripted_models()), rag_with_router),
        (lambda: plan_and_execute.build(*plan_and_execute.scripted_models()), plan_with_router),
    ],
    ids=["support", "rag", "plan"],
)


@ALL
def test_schemas_stay_as_they_were(build: Any, with_router: Any) -> None:
    before, after = build().compile(), with_router(build()).compile()
    assert after.get_input_jsonschema() == before.get_input_jsonschema()
    assert after.get_output_jsonschema() == before.get_output_jsonschema()
    assert after.get_context_jsonschema() == before.get_context_jsonschema()


@ALL
def test_a_compiled_graph_gets_the_router_by_its_builder_and_stays_as_it_was(build: Any, with_router: Any) -> None:
    compiled = build().compile()
    nodes = set(compiled.nodes)
    again = with_router(compiled.builder).compile()
    assert set(again.nodes) == {*nodes, "router"}
    assert set(compiled.nodes) == nodes


@ALL
def test_the_router_is_added_in_at_most_ten_lines(build: Any, with_router: Any) -> None:
    (function,) = ast.parse(inspect.getsource(with_router)).body
    assert isinstance(function, ast.FunctionDef)
    assert function.end_lineno is not None
    assert function.end_lineno - function.body[0].lineno + 1 <= 10


@ALL
def test_the_drawing_shows_the_router(build: Any, with_router: Any) -> None:
    drawing = with_router(build()).compile().get_graph().draw_mermaid()
    assert "router(router)" in drawing
