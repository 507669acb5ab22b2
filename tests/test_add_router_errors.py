"""What `add_router` refuses: one clear line each, and the graph stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.testing import ScriptedRouter

ROUTER = ScriptedRouter(lambda messages: ("answer", {}))
QUESTION: Any = {"messages": [HumanMessage("q")]}
ANSWER = ToolSpec(name="answer", terminal=True)


class Asked(TypedDict):
    q: str
    n: int


class Listed(TypedDict):
    messages: list[Any]


def noop(state: Any) -> None:
    return None


def graph(*edges: tuple[str, str], schema: Any = MessagesState) -> Any:
    builder: Any = StateGraph(schema)
    for node in ("search", "answer", "check", "closing", "web search"):
        builder.add_node(node, noop)
    for start, end in edges:
        builder.add_edge(start, end)
    return builder


def jumping() -> Any:
    def jump(state: MessagesState) -> Command[Any]:
        return Command(goto="check")

    builder = graph()
    builder.add_node("jump", jump, destinations=("check",))
    return builder


def branching(path_map: Any, start: str = "check") -> Any:
    builder = graph((START, "check")) if start == "check" else graph()
    builder.add_conditional_edges(start, lambda state: "search", path_map)
    return builder


def meeting() -> Any:
    builder = graph((START, "search"), (START, "check"))
    builder.add_edge(["search", "check"], "answer")
    return builder


def deferred() -> Any:
    builder = graph()
    builder.add_node("late", noop, defer=True)
    return builder


@pytest.mark.parametrize(
    ("builder", "destinations", "options", "message"),
    [
        (graph, ["nowhere"], {}, "'nowhere' is no node of the graph; expected one of search, answer"),
        (graph, [ToolSpec(name="nowhere")], {}, "'nowhere' is no node of the graph"),
        (graph, [], {}, r"destinations = \[\]; expected a list of nodes"),
        (graph, "answer", {}, "destinations = 'answer'; expected a list of nodes"),
        (graph, [{"name": "answer"}], {}, "is no destination; expected the name of a node"),
        (graph, ["answer", ANSWER], {}, "'answer' is twice among the destinations"),
        (graph, ["web search"], {}, "node 'web search': .*; rename the node"),
        (graph, ["closing"], {}, "named 'closing', which the graph uses itself; rename it"),
        (lambda: graph((START, "answer")).compile(), ["answer"], {}, "is no StateGraph; pass graph.builder"),
        (lambda: "graph", ["answer"], {}, "'graph' is no StateGraph"),
        (
            lambda: graph(("search", "check")),
            ["search", ANSWER],
            {},
            "search leads to check already, not to the router; declare it terminal=True, .* or name it in after",
        ),
        (jumping, ["jump", ANSWER], {}, "jump leads to check already, .* or let its Command go to 'router'$"),
        (deferred, ["late"], {}, "late is deferred"),
        (
            lambda: graph(("answer", "check"), ("check", "router")),
            [ANSWER],
            {},
            "a cycle: answer -> check -> router, where answer is terminal",
        ),
        (lambda: graph(("answer", "router")), [ANSWER], {}, "a cycle: answer -> router"),
        (lambda: graph(("answer", "check")), [ANSWER], {"after": "check"}, "a cycle: answer -> check -> router"),
        (lambda: graph(schema=Asked), [ANSWER], {}, "no channel 'messages' .*(q, n)"),
        (lambda: graph(schema=list), [ANSWER], {"read": str}, "has no channels; expected a TypedDict"),
        (
            graph,
            [ANSWER],
            {"catalog": Catalog.of([ToolSpec(name="large"), ANSWER])},
            "the catalog has 'large', which is no destination; add it, or catalog.restrict",
        ),
        (graph, [ToolSpec(name="answer", kind="expert")], {}, "answer: kind = 'expert'; expected 'node'"),
        (
            graph,
            ["answer"],
            {"catalog": Catalog.of([ToolSpec(name="answer", kind="code")])},
            "answer: kind = 'code'; expected 'node'",
        ),
        (graph, [ToolSpec(name="answer", cache=True)], {}, "answer: cache = True; a node has none, leave it out"),
        (graph, ["answer"], {"name": "check"}, "the graph has a node 'check' already; pass another name"),
        (graph, ["answer"], {"after": "nowhere"}, "after = 'nowhere' is no node of the graph; expected START, search"),
        (graph, [ANSWER], {"after": "answer"}, "after = 'answer' is a terminal destination"),
        (
            lambda: graph((START, "check")),
            ["answer"],
            {},
            "start leads to 'check', which is no destination and would be cut off; .*after='check'",
        ),
        (
            lambda: branching({"a": "search", "b": "answer"}),
            [ANSWER],
            {"after": "check"},
            "check leads to 'search', which is no destination",
        ),
        (
            lambda: branching({"blocked": END, "ok": "answer"}),
            [ANSWER],
            {"after": "check"},
            "check may end the graph instead of going on, .*; lead it on to a node of its own, .*after='go on'",
        ),
        (lambda: branching([END, "answer"], START), [ANSWER], {}, "start may end the graph instead of going on"),
        (meeting, [ANSWER], {"after": ["search", "check"]}, "search leads on together with other nodes"),
        (jumping, [ANSWER], {"after": "jump"}, "jump says itself where it goes, by Command; let it go to 'router'"),
        (graph, [ANSWER], {"closing": "search"}, "closing = 'search'; expected a terminal tool"),
        (graph, [ANSWER], {"max_malformed": 0}, "max_malformed = 0"),
        (graph, [ANSWER], {"budget": 3}, "budget = 3; expected Budget"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(builder: Any, destinations: Any, options: Any, message: str) -> None:
    made = builder()
    nodes = dict(made.nodes) if isinstance(made, StateGraph) else {}
    edges = set(made.edges) if isinstance(made, StateGraph) else set()
    branches = {start: dict(found) for start, found in made.branches.items()} if isinstance(made, StateGraph) else {}
    with pytest.raises(ConfigError, match=message) as caught:
        add_router(made, ROUTER, destinations, **options)
    assert "\n" not in str(caught.value)
    if isinstance(made, StateGraph):
        assert (made.nodes, made.edges, made.branches) == (nodes, edges, branches)


def test_a_second_router_is_refused() -> None:
    builder = add_router(graph(), ROUTER, [ANSWER])
    with pytest.raises(ConfigError, match="the graph has a router already"):
        add_router(builder, ROUTER, ["search"], name="second", after=())


def test_edges_that_the_router_takes_over_are_taken_out() -> None:
    def over(state: Any) -> str:
        return END

    builder = branching({"a": "search", "b": "answer"})
    builder.add_conditional_edges("check", over, [END])
    builder.add_edge("check", "answer")
    builder.add_edge("check", END)
    add_router(builder, ROUTER, ["search", ANSWER], after="check")
    assert builder.edges == {(START, "check"), ("check", "router")}
    assert "check" not in builder.branches


def test_a_choice_to_end_the_graph_stays_before_the_router() -> None:
    builder = graph((START, "check"))
    builder.add_node("go on", noop)
    builder.add_conditional_edges("check", lambda state: END, [END, "go on"])
    router = ScriptedRouter(lambda messages: ("answer", {}))
    add_router(builder, router, [ANSWER], after="go on").compile().invoke(QUESTION)
    assert list(router.prompts) == []


def test_conditional_edges_that_do_not_say_where_they_lead_are_taken_over() -> None:
    builder = add_router(branching(None), ROUTER, [ANSWER], after="check")
    assert "check" not in builder.branches
    assert builder.compile().invoke(QUESTION)["messages"] == QUESTION["messages"]


@pytest.mark.parametrize(
    ("read", "state", "message"),
    [
        (lambda state: state["nothing"], QUESTION, r"read\(state\) failed: KeyError\('nothing'\); expected"),
        (lambda state: 7, QUESTION, r"read\(state\) = 7; expected the question as text"),
        (lambda state: "", QUESTION, r"read\(state\) = ''; expected the question as text"),
        (None, {"messages": [AIMessage("hello")]}, "expected a message of a person, the question"),
        (None, {"messages": []}, "expected a message of a person, the question"),
    ],
)
def test_a_state_that_cannot_be_read_is_told_in_one_line(read: Any, state: Any, message: str) -> None:
    compiled = add_router(graph(), ROUTER, [ANSWER], read=read).compile()
    with pytest.raises(ConfigError, match=message):
        compiled.invoke(state)


def test_messages_that_are_none_are_told_in_one_line() -> None:
    builder = graph(schema=Listed)
    compiled = add_router(builder, ROUTER, [ANSWER]).compile()
    with pytest.raises(ConfigError, match=r"messages = \[7\]; expected chat messages, or pass read"):
        compiled.invoke({"messages": [7]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budgets": 1}, "the context has 'budgets'; expected preferences, budget, task"),
        ({"budget": {"dollars": -1}}, "the context's budget: dollars = -1"),
        ({"preferences": {"never": ["nowhere"]}}, "preferences name 'nowhere'"),
        ("cheap", "configurable 'orchestra' = 'cheap'; expected preferences, budget, task by name"),
    ],
)
def test_what_a_run_is_given_is_checked(given: Any, message: str) -> None:
    compiled = add_router(graph(), ROUTER, ["search", ANSWER]).compile()
    with pytest.raises(ConfigError, match=message):
        compiled.invoke(QUESTION, {"configurable": {"orchestra": given}})
