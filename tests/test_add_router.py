"""`add_router`: graphs of all kinds go on working, and the router reads and runs their nodes."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import ParentCommand
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, StreamWriter, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import ToolSpec
from tests.small_graphs import CONFIG, QUESTION, TERMINAL, answer, graph_of, script, search, shown

# States.


@dataclass
class Record:
    question: str
    found: Annotated[list[str], operator.add] = field(default_factory=list)
    said: str = ""


class Model(BaseModel):
    question: str
    found: Annotated[list[str], operator.add] = []
    said: str = ""


class Plain(TypedDict, total=False):
    question: str
    found: Annotated[list[str], operator.add]
    said: str


def value(state: Any, name: str) -> Any:
    return state[name] if isinstance(state, dict) else getattr(state, name)


@pytest.mark.parametrize("mode", ["sync", "async", "async nodes"])
@pytest.mark.parametrize("schema", [Plain, Record, Model])
async def test_nodes_read_the_state_in_their_own_type(schema: Any, mode: str) -> None:
    wanted = dict if schema is Plain else schema
    seen: list[Any] = []

    def find(state):  # type: ignore[no-untyped-def]
        seen.append(state)
        return {"found": [f"{value(state, 'question')} 42"]}

    def reply(state):  # type: ignore[no-untyped-def]
        seen.append(state)
        return {"said": value(state, "found")[-1]}

    def path(state):  # type: ignore[no-untyped-def]
        seen.append(state)
        return "finish" if value(state, "said") else END

    async def later(state):  # type: ignore[no-untyped-def]
        return find(state)  # type: ignore[no-untyped-call]

    def read(state: Any) -> str:
        seen.append(state)
        return str(value(state, "question"))

    builder: Any = StateGraph(schema)
    builder.add_node("find", later if mode == "async nodes" else find)
    builder.add_node("reply", reply)
    builder.add_node("finish", lambda state: {"said": f"{value(state, 'said')}!"})
    builder.add_conditional_edges("reply", path)
    router = script("find", "reply")
    graph = add_router(builder, router, ["find", ToolSpec(name="reply", terminal=True)], read=read).compile()
    state = graph.invoke({"question": "q"}) if mode == "sync" else await graph.ainvoke({"question": "q"})
    assert state == {"question": "q", "found": ["q 42"], "said": "q 42!"}
    assert [type(s) for s in seen] == [wanted] * 4
    assert [set(s) & {"orchestra_turns", "orchestra_call"} for s in seen if isinstance(s, dict)] in ([set()] * 4, [])
    assert "found: ['q 42']" in shown(router)[-1]


def test_an_error_handler_reads_the_state_in_its_own_type() -> None:
    def work(state: Record) -> None:
        raise ValueError("a bug")

    builder: Any = StateGraph(Record)
    builder.add_node("work", work, error_handler=lambda state: {"said": f"{state}"})
    lines = [ToolSpec(name="work", terminal=True)]
    graph = add_router(builder, script("work"), lines, read=lambda state: state.question).compile()
    assert graph.invoke({"question": "q"})["said"] == f"{Record('q')}"


def test_objects_of_the_schema_come_out_of_a_graph_asked_for_them() -> None:
    builder: Any = StateGraph(Record)
    builder.add_node("reply", lambda state: {"said": "yes"})
    add_router(builder, script("reply"), [ToolSpec(name="reply", terminal=True)], read=lambda state: state.question)
    assert builder.compile().invoke({"question": "q"}, version="v2").value == Record("q", [], "yes")


class Steps(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    left: RemainingSteps


class Narrow(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str


def test_input_schema_managed_values_and_private_channels_of_a_node_stay() -> None:
    seen: list[Any] = []

    def write(state: Steps) -> dict[str, Any]:
        seen.append(set(state))
        assert state["left"] > 0
        return {"note": "private"}

    def answer(state: Narrow) -> dict[str, Any]:
        seen.append(dict(state))
        return {"messages": [AIMessage(state["note"])]}

    router = script("write", "answer")
    graph = add_router(graph_of(write, answer, schema=Steps), router, ["write", TERMINAL]).compile()
    assert graph.invoke(QUESTION)["messages"][-1].text == "private"
    assert (seen[0], set(seen[1])) == ({"messages", "left"}, {"messages", "note"})
    assert "note: private" in shown(router)[-1]


# What nodes take and return.


async def test_nodes_get_config_runtime_store_and_writer() -> None:
    class Context(TypedDict):
        user: str

    def with_config(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [AIMessage(config["configurable"]["who"])]}

    def with_runtime(state: MessagesState, runtime: Runtime[Context]) -> dict[str, Any]:
        return {"messages": [AIMessage(runtime.context["user"])]}

    async def with_store(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        item = await store.aget(("memory",), "key")
        assert item is not None
        return {"messages": [AIMessage(item.value["text"])]}

    def with_writer(state: MessagesState, *, writer: StreamWriter) -> dict[str, Any]:
        writer({"type": "mine"})
        return {"messages": [AIMessage("written")]}

    store = InMemoryStore()
    await store.aput(("memory",), "key", {"text": "remembered"})
    names = ["with_config", "with_runtime", "with_store", "with_writer"]
    builder = graph_of(with_config, with_runtime, with_store, with_writer, context_schema=Context)
    add_router(builder, script(*names, ("final_answer", {"answer": "done"})), names)
    graph = builder.compile(store=store)
    config: Any = {"configurable": {"who": "me"}}
    parts = [
        part
        async for part in graph.astream(QUESTION, config, context={"user": "you"}, stream_mode=["custom", "values"])
    ]
    texts = [message.text for message in parts[-1][1]["messages"]]
    assert texts == ["What is 6 x 7?", "me", "you", "remembered", "written", "done"]
    events = [event["type"] for mode, event in parts if mode == "custom" and event["type"] != "charge"]
    assert events == [*["decision", "outcome"] * 3, "decision", "mine", "outcome", "decision", "answer"]
    json.dumps([event for mode, event in parts if mode == "custom"])


class Reply(BaseModel):
    said: str
    found: list[str] = []


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"said": "a dict"}, "said: a dict"),
        (Reply(said="an object"), "said: an object"),
        (Record("q", [], "a record"), "said: a record"),
        (Command(update={"said": "a command"}), "said: a command"),
        (Command(update=[("said", "pairs")]), "said: pairs"),
        ([Command(update={"said": "a list"}), {"found": ["of parts"]}], "said: a list\nfound: ['of parts']"),
        (None, "(it changed nothing)"),
        ({"question": "q"}, "(it changed nothing)"),
    ],
    ids=["dict", "model", "dataclass", "command", "pairs", "list", "none", "unchanged"],
)
def test_a_node_may_return_what_it_always_could(result: Any, text: str) -> None:
    builder: Any = StateGraph(Plain)
    builder.add_node("work", lambda state: result)
    router = script("work", ("final_answer", {"answer": "end"}))
    graph = add_router(builder, router, ["work"], read=lambda state: state["question"]).compile(
        checkpointer=InMemorySaver()
    )
    state = graph.invoke({"question": "q"}, CONFIG)
    assert shown(router)[-1].startswith(text)
    said = text.partition("\n")[0].removeprefix("said: ")
    assert state.get("said") == (said if text.startswith("said") else None)
    assert graph.get_state(CONFIG).values["orchestra_answer"] == "end"


class Array:
    """Compares element by element, so that a comparison is neither true nor false."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise self.error

    def __repr__(self) -> str:
        return "Array()"


@pytest.mark.parametrize("error", [ValueError("as numpy"), RuntimeError("as torch")])
def test_a_channel_may_hold_what_does_not_compare(error: Exception) -> None:
    builder: Any = StateGraph(Plain)
    builder.add_node("work", lambda state: {"said": Array(error)})
    router = script("work", "work", ("final_answer", {"answer": "end"}))
    add_router(builder, router, ["work"], read=lambda state: state["question"]).compile().invoke({"question": "q"})
    assert shown(router)[-3::2] == ["said: Array()"] * 2


class Talk(TypedDict):
    question: str
    messages: Annotated[list[Any], operator.add]


@pytest.mark.parametrize(
    "said",
    [
        {"role": "expert", "content": "42"},
        {"role": "tool", "content": "42"},
        {"role": "user", "content": 42},
        {"role": "ai", "content": "42", "tool_calls": ["search"]},
        ("expert", "42"),
    ],
    ids=["role", "tool without its call", "content", "calls", "pair"],
)
def test_messages_may_be_in_a_format_of_the_graphs_own(said: Any) -> None:
    builder: Any = StateGraph(Talk)
    builder.add_node("work", lambda state: {"messages": [said]})
    router = script("work", ("final_answer", {"answer": "end"}))
    graph = add_router(builder, router, ["work"], read=lambda state: state["question"]).compile()
    assert graph.invoke({"question": "q", "messages": []})["messages"] == [said]
    assert shown(router)[-1] == f"messages: [{said}]"


def test_a_node_that_goes_on_by_itself_ends_the_run() -> None:
    def hand_over(state: MessagesState) -> Command[Any]:
        return Command(update={"messages": [AIMessage("ask my colleague")]}, goto=["colleague", Send("notice", "x")])

    def colleague(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("I am the colleague")]}

    noticed: list[Any] = []
    builder = graph_of(hand_over, colleague)
    builder.add_node("notice", noticed.append)
    graph = add_router(builder, script("hand_over"), ["hand_over"]).compile(checkpointer=InMemorySaver())
    state = graph.invoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"][1:]] == ["ask my colleague", "I am the colleague"]
    assert noticed == ["x"]
    values = graph.get_state(CONFIG).values
    assert (values["orchestra_answer"], values["orchestra_stopped_by"]) == ("ask my colleague", "answer")
    assert len(values["orchestra_turns"]) == 1


def test_a_node_that_names_the_router_comes_back() -> None:
    def back(state: MessagesState) -> Command[Any]:
        return Command(update={"messages": [AIMessage("here: 42")]}, goto="router")

    graph = add_router(graph_of(back, answer), script("back", "answer"), ["back", TERMINAL]).compile()
    assert graph.invoke(QUESTION)["messages"][-1].text == "It is 42."


def test_a_visit_by_an_edge_of_the_graph_is_no_call() -> None:
    def check(state: MessagesState) -> Command[Any]:
        return Command(goto=[Send("search", {"messages": []}), "answer"])

    builder = graph_of(search, answer, check)
    add_router(builder, script("search", "check"), ["search", "answer", ToolSpec(name="check", terminal=True)])
    graph = builder.compile(checkpointer=InMemorySaver())
    state = graph.invoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"][1:]] in (
        ["found 42", "found 42", "It is 42."],
        ["found 42", "It is 42.", "found 42"],
    )
    ledger = graph.get_state(CONFIG).values["orchestra_ledger"]
    assert {name: total["calls"] for name, total in ledger["tools"].items()} == {"router": 2, "search": 1, "check": 1}


# Graphs inside graphs.


def agent(**options: Any) -> Any:
    """A graph whose node pauses for a person."""

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"a person says {interrupt('well?')}")]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node(ask)
    builder.add_edge(START, "ask")
    return builder.compile(**options)


async def test_a_graph_as_a_node_is_found_resumed_and_shown_by_what_it_added() -> None:
    builder = graph_of(answer)
    builder.add_node("agent", agent())
    router = script("agent", "answer")
    graph = add_router(builder, router, ["agent", TERMINAL]).compile(checkpointer=InMemorySaver())
    assert [name for name, _ in graph.get_subgraphs()] == ["agent"]
    assert "agent\\3aask" in graph.get_graph(xray=True).draw_mermaid()
    await graph.ainvoke(QUESTION, CONFIG)
    (task,) = (await graph.aget_state(CONFIG, subgraphs=True)).tasks
    assert task.state.next == ("ask",)
    state = await graph.ainvoke(Command(resume="42"), CONFIG)
    assert state["messages"][-1].text == "It is 42."
    assert shown(router)[-1] == "a person says 42"


def test_a_graph_that_a_node_calls_is_found() -> None:
    inner = agent()

    def call(state: MessagesState) -> Any:
        return inner.invoke(state)

    graph = add_router(graph_of(call), script("call"), ["call"]).compile()
    assert [name for name, _ in graph.get_subgraphs()] == ["call"]


def handing_over(target: str) -> Any:
    builder: Any = StateGraph(MessagesState)
    builder.add_node(
        "inner",
        lambda state: Command(graph=Command.PARENT, goto=target, update={"messages": [AIMessage("handed over")]}),
    )
    builder.add_edge(START, "inner")
    return builder.compile()


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_graph_inside_a_node_may_hand_over_to_another_node(mode: str) -> None:
    builder = graph_of(answer)
    builder.add_node("agent", handing_over("colleague"))
    builder.add_node("colleague", lambda state: {"messages": [AIMessage("I am the colleague")]})
    graph = add_router(builder, script("agent"), ["agent", TERMINAL]).compile(checkpointer=InMemorySaver())
    state = graph.invoke(QUESTION, CONFIG) if mode == "sync" else await graph.ainvoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"][1:]] == ["handed over", "I am the colleague"]
    values = graph.get_state(CONFIG).values
    assert (values["orchestra_answer"], len(values["orchestra_turns"])) == ("handed over", 1)


@pytest.mark.parametrize("raises", [True, False])
def test_a_node_may_leave_the_graph_for_the_one_around_it(raises: bool) -> None:
    def leave(state: MessagesState) -> Command[Any]:
        command: Command[Any] = Command(
            graph=Command.PARENT, goto="outside", update={"messages": [AIMessage("I leave")]}
        )
        if raises:
            raise ParentCommand(command)
        return command

    outer: Any = StateGraph(MessagesState)
    outer.add_node("routed", add_router(graph_of(leave), script("leave"), ["leave"]).compile())
    outer.add_node("outside", lambda state: {"messages": [AIMessage("outside")]})
    outer.add_edge(START, "routed")
    events = []
    texts: list[str] = []
    for _, mode, part in outer.compile().stream(QUESTION, stream_mode=["custom", "values"], subgraphs=True):
        if mode == "custom":
            events += [part["type"]] if part["type"] != "charge" else []
        else:
            texts = [message.text for message in part["messages"]]
    assert texts == ["What is 6 x 7?", "I leave", "outside"]
    assert events == ["decision", "outcome", "answer"]


def test_a_routed_graph_is_a_node_of_another_one() -> None:
    inner = add_router(graph_of(search, answer), script("search", "answer"), ["search", TERMINAL]).compile()
    outer: Any = StateGraph(MessagesState)
    outer.add_node("routed", inner)
    outer.add_edge(START, "routed")
    state = outer.compile().invoke(QUESTION)
    assert [message.text for message in state["messages"]] == ["What is 6 x 7?", "found 42", "It is 42."]
