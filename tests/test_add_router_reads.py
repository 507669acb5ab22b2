"""What the router reads of a graph that it was added to, and its threads."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, TracePolicy, interrupt
from typing_extensions import TypedDict

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.graph_router import ONE_AT_A_TIME
from orchestra_graph.graph_state import OURS
from orchestra_graph.routers import Rules
from orchestra_graph.testing import ScriptedRouter
from tests.small_graphs import CONFIG, QUESTION, TERMINAL, answer, graph_of, script, search, shown

# What the router reads.


def test_the_router_reads_descriptions_question_history_and_results() -> None:
    router = script("search", "answer")
    lines: list[str | ToolSpec] = ["search", ToolSpec(name="answer", description="Answers well.", terminal=True)]
    graph = add_router(graph_of(search, answer), router, lines).compile()
    said = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hi"), HumanMessage("What is 6 x 7?")]
    graph.invoke({"messages": said})
    functions = {f["function"]["name"]: f["function"]["description"] for f in router.tools}
    assert functions == {"search": "Finds things.", "answer": "Answers well."}
    system, *rest = shown(router)
    assert "You direct the nodes of a graph" in system
    assert "Be brief." in system
    assert "answer | node |" in system
    assert rest == ["Hello", "Hi", "What is 6 x 7?", "", "found 42"]


def test_what_the_router_reads_can_be_replaced() -> None:
    router = script("search", "answer")
    graph = add_router(
        graph_of(search, answer),
        router,
        ["search", TERMINAL],
        read=lambda state: f"{len(state['messages'])} messages",
        show=lambda changed: f"changed {', '.join(changed)}",
    ).compile()
    graph.invoke(QUESTION)
    assert shown(router)[1:] == ["1 messages", "", "changed messages"]


def test_descriptions_and_prices_come_from_the_catalog() -> None:
    lines = [ToolSpec(name="answer", description="From the catalog.", terminal=True), ToolSpec(name="other")]
    catalog = Catalog.of(lines).restrict(["answer"])
    router = script("answer")
    add_router(graph_of(search, answer), router, ["search", "answer"], catalog=catalog).compile().invoke(QUESTION)
    functions = {f["function"]["name"]: f["function"]["description"] for f in router.tools}
    assert functions == {"answer": "From the catalog.", "search": "Finds things."}


def test_messages_without_a_reducer_are_read_and_kept() -> None:
    class Listed(TypedDict):
        messages: list[Any]

    builder: Any = StateGraph(Listed)
    builder.add_node("work", lambda s: {"messages": [*s["messages"], {"role": "assistant", "content": "42"}]})
    router = script("work", ("final_answer", {"answer": "forty-two"}))
    graph = add_router(builder, router, ["work"]).compile()
    state = graph.invoke({"messages": [("user", "Hello"), ("assistant", "Hi"), ("user", "What is 6 x 7?")]})
    assert shown(router)[1:4] == ["Hello", "Hi", "What is 6 x 7?"]
    assert [m if isinstance(m, tuple) else getattr(m, "content", m) for m in state["messages"]][-1] == "forty-two"
    assert len(state["messages"]) == 5


def test_the_router_answers_by_itself_where_no_destination_is_terminal() -> None:
    router = script("search", ("final_answer", {"answer": "It is 42."}))
    graph = add_router(graph_of(search), router, ["search"]).compile(checkpointer=InMemorySaver())
    state = graph.invoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"]] == ["What is 6 x 7?", "found 42", "It is 42."]
    assert graph.get_state(CONFIG).values["orchestra_answer"] == "It is 42."


class ListedTalk(TypedDict):
    question: str
    messages: list[Any]


class Talk(TypedDict):
    question: str
    messages: Annotated[list[Any], add_messages]


@pytest.mark.parametrize("schema", [Talk, ListedTalk])
def test_its_own_answer_is_in_the_output_also_where_the_question_is_read_by_a_function(schema: Any) -> None:
    builder: Any = StateGraph(schema)
    builder.add_node("work", lambda state: {"messages": [*state["messages"], AIMessage("found 42", id="1")]})
    router = script("work", ("final_answer", {"answer": "It is 42."}))
    graph = add_router(builder, router, ["work"], read=lambda state: str(state["question"])).compile()
    state = graph.invoke({"question": "What is 6 x 7?", "messages": []})
    assert [message.text for message in state["messages"]] == ["found 42", "It is 42."]


def test_what_the_router_says_is_not_streamed_among_the_graphs_messages() -> None:
    thought = AIMessage("I look it up.", tool_calls=[{"name": "search", "args": {}, "id": "1"}])
    router = script(thought, "no call", "no call")
    graph = add_router(graph_of(search, answer), router, ["search", TERMINAL], max_malformed=2).compile()
    heard = [message.text for message, _ in graph.stream(QUESTION, stream_mode="messages")]
    assert heard == ["found 42", "It is 42."]
    assert router.tools  # it is asked itself, not a copy of it
    router = script("search", ("final_answer", {"answer": "It is 42."}))
    graph = add_router(graph_of(search), router, ["search"]).compile()
    heard = [message.text for message, _ in graph.stream(QUESTION, stream_mode="messages")]
    assert heard == ["found 42", "It is 42."]


def test_one_node_runs_at_a_time() -> None:
    router = script([("search", {}), ("look", {}), ("search", {})], "answer")
    builder = graph_of(search, answer)
    builder.add_node("look", lambda state: {"messages": [AIMessage("looked 1")]})
    graph = add_router(builder, router, ["search", "look", TERMINAL]).compile(checkpointer=InMemorySaver())
    assert graph.invoke(QUESTION, CONFIG)["messages"][-1].text == "It is 42."
    first = next(iter(graph.get_state(CONFIG).values["orchestra_turns"].values()))
    contents = [first["outcomes"][call["id"]]["content"] for call in first["decision"]["calls"]]
    assert contents == ["found 42", ONE_AT_A_TIME, ONE_AT_A_TIME]


@pytest.mark.parametrize("bad", ["no call", ("nothing", {})])
def test_a_fallback_router_takes_over_after_malformed_replies(bad: Any) -> None:
    router = ScriptedRouter(lambda messages: bad)
    graph = add_router(graph_of(search, answer), router, ["search", TERMINAL], max_malformed=2).compile(
        checkpointer=InMemorySaver()
    )
    graph.invoke(QUESTION, CONFIG)
    values = graph.get_state(CONFIG).values
    assert [turn["decision"]["by"] for turn in values["orchestra_turns"].values()] == ["router", "router", "fallback"]
    assert values["orchestra_stopped_by"] == "answer"


def test_a_router_that_gives_up_leaves_the_graph_as_it_is() -> None:
    router = ScriptedRouter(lambda messages: "no call")
    builder = graph_of(search, answer)
    graph = add_router(builder, router, ["search", TERMINAL], fallback=None).compile(checkpointer=InMemorySaver())
    assert [message.text for message in graph.invoke(QUESTION, CONFIG)["messages"]] == ["What is 6 x 7?"]
    assert graph.get_state(CONFIG).values["orchestra_stopped_by"] == "router"


def test_programs_route_graphs() -> None:
    graph = add_router(graph_of(search, answer), Rules(), ["search", TERMINAL]).compile()
    assert graph.invoke(QUESTION)["messages"][-1].text.startswith("It is")


# Threads.


async def test_a_second_question_on_the_thread_is_a_run_of_its_own() -> None:
    router = script("search", "answer")
    graph = add_router(graph_of(search, answer), router, ["search", TERMINAL]).compile(checkpointer=InMemorySaver())
    await graph.ainvoke(QUESTION, CONFIG)
    first = (await graph.aget_state(CONFIG)).values
    state = await graph.ainvoke({"messages": [HumanMessage("And 5 x 7?")]}, CONFIG)
    second = (await graph.aget_state(CONFIG)).values
    assert len(state["messages"]) == 6
    assert first["orchestra_run"]["id"] != second["orchestra_run"]["id"]
    assert [len(values["orchestra_turns"]) for values in (first, second)] == [2, 2]
    assert second["orchestra_ledger"]["tools"]["search"]["calls"] == 1
    assert shown(router)[1:] == ["What is 6 x 7?", "found 42", "It is 42.", "And 5 x 7?", "", "found 42"]


def test_a_person_asked_in_a_run_does_not_begin_another() -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        """Asks the user back."""
        return {"messages": [HumanMessage(interrupt("Which one?"))]}

    router = script("ask", "answer")
    graph = add_router(graph_of(ask, answer), router, ["ask", TERMINAL]).compile(checkpointer=InMemorySaver())
    graph.invoke(QUESTION, CONFIG)
    state = graph.invoke(Command(resume="the number 42"), CONFIG)
    assert state["messages"][-1].text == "It is 42."
    assert shown(router)[1:] == ["What is 6 x 7?", "", "human: the number 42"]
    run = graph.get_state(CONFIG).values
    assert (len(run["orchestra_turns"]), run["orchestra_run"]["question"]) == (2, "What is 6 x 7?")


def test_a_new_question_drops_a_run_that_waits() -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage(interrupt("Which one?"))]}

    def choose(messages: list[BaseMessage]) -> Any:
        return ("ask", {}) if "6 x 7" in messages[-1].text else ("answer", {})

    builder = graph_of(ask, answer)
    graph = add_router(builder, ScriptedRouter(choose), ["ask", TERMINAL]).compile(checkpointer=InMemorySaver())
    graph.invoke(QUESTION, CONFIG)
    state = graph.invoke({"messages": [HumanMessage("Say 8")]}, CONFIG)
    assert state["messages"][-1].text == "It is 8."
    (turn,) = graph.get_state(CONFIG).values["orchestra_turns"].values()
    assert turn["decision"]["calls"][0]["tool"] == "answer"


async def test_interrupts_before_a_destination_work() -> None:
    builder = add_router(graph_of(search, answer), script("search", "answer"), ["search", TERMINAL])
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["answer"])
    await graph.ainvoke(QUESTION, CONFIG)
    assert (await graph.aget_state(CONFIG)).next == ("answer",)
    state = await graph.ainvoke(None, CONFIG)
    assert state["messages"][-1].text == "It is 42."
    assert len((await graph.aget_state(CONFIG)).values["orchestra_turns"]) == 2


@pytest.mark.parametrize("before", [["answer"], []], ids=["before a node", "interrupt"])
def test_a_run_that_waits_begins_anew_with_a_state_that_was_changed_at_the_start(before: list[str]) -> None:
    asked: list[str] = []

    def ask(state: MessagesState) -> dict[str, Any]:
        asked.append(state["messages"][-1].text)
        return {"messages": [AIMessage("8" if before else interrupt("Which one?"))]}

    builder = add_router(graph_of(ask, answer), script("ask", "answer"), ["ask", TERMINAL])
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=before)
    graph.invoke(QUESTION, CONFIG)
    graph.update_state(CONFIG, {"messages": [HumanMessage("And 2 x 4?")]}, as_node=START)
    graph.invoke(None, CONFIG)
    state = graph.invoke(None if before else Command(resume="8"), CONFIG)
    assert state["messages"][-1].text == "It is 8."
    values = graph.get_state(CONFIG).values
    assert (values["orchestra_run"]["question"], values["orchestra_stopped_by"]) == ("And 2 x 4?", "answer")
    assert "And 2 x 4?" in asked


async def test_many_runs_at_once_keep_apart() -> None:
    graph = add_router(graph_of(search, answer), script("search", "answer"), ["search", TERMINAL]).compile(
        checkpointer=InMemorySaver()
    )
    configs: list[Any] = [{"configurable": {"thread_id": str(n)}} for n in range(30)]
    states = await asyncio.gather(*(graph.ainvoke(QUESTION, config) for config in configs))
    assert all(state["messages"][-1].text == "It is 42." for state in states)
    runs = {(await graph.aget_state(config)).values["orchestra_run"]["id"] for config in configs}
    assert len(runs) == 30


def test_the_router_may_stand_in_the_middle_and_go_by_another_name() -> None:
    def prepare(state: MessagesState) -> Command[Any]:
        return Command(goto="boss")

    builder = graph_of(prepare, search, answer)
    builder.add_edge(START, "prepare")
    add_router(builder, script("search", "answer"), ["search", TERMINAL], after=(), name="boss")
    parts = list(builder.compile().stream(QUESTION, stream_mode="updates"))
    names = [name for part in parts for name in part]
    assert names == ["prepare", "boss", "boss", "search", "boss", "answer", "boss"]


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("length", range(1, 9))
def test_paths_of_different_length_lead_into_one_run(length: int, crashes: bool) -> None:
    crash = [RuntimeError("crash")] * crashes

    def work(state: MessagesState) -> dict[str, Any]:
        if crash:
            raise crash.pop()
        return {"messages": [AIMessage("worked")]}

    builder = graph_of(work, search, answer)
    path = [START, *(f"long {n}" for n in range(length))]
    for name in ("short", *path[1:]):
        builder.add_node(name, lambda state: None)
    for start, end in [(START, "short"), *pairwise(path)]:
        builder.add_edge(start, end)
    add_router(builder, script("work", "search", "answer"), ["work", "search", TERMINAL], after=["short", path[-1]])
    graph = builder.compile(checkpointer=InMemorySaver())
    if crashes:
        with pytest.raises(RuntimeError, match="crash"):
            graph.invoke(QUESTION, CONFIG)
    state = graph.invoke(None if crashes else QUESTION, CONFIG)
    assert [message.text for message in state["messages"][1:]] == ["worked", "found 42", "It is 42."]
    assert len(graph.get_state(CONFIG).values["orchestra_turns"]) == 3


async def test_what_the_router_keeps_is_plain_json_and_absent_from_the_output() -> None:
    builder = add_router(graph_of(search, answer), script("search", "answer"), ["search", TERMINAL])
    graph = builder.compile(checkpointer=InMemorySaver())
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert set(state) == {"messages"}
    seen: set[str] = set()
    async for snapshot in graph.aget_state_history(CONFIG):
        ours = {name: kept for name, kept in snapshot.values.items() if name in OURS}
        seen |= set(ours)
        assert json.loads(json.dumps(ours)) == ours
    assert seen == OURS


def test_values_are_streamed_without_what_the_router_keeps_where_the_graphs_own_are_named() -> None:
    graph = add_router(graph_of(search, answer), script("search", "answer"), ["search", TERMINAL]).compile()
    assert OURS & set().union(*graph.stream(QUESTION, stream_mode="values"))
    parts = list(graph.stream(QUESTION, stream_mode="values", output_keys=["messages"]))
    assert [set(part) for part in parts] == [{"messages"}] * 3
    assert parts[-1]["messages"][-1].text == "It is 42."


def test_a_trace_records_what_the_node_reads_and_returns() -> None:
    policy = TracePolicy(process_inputs=lambda state: sorted(state), process_outputs=lambda result: result)
    builder: Any = StateGraph(MessagesState)
    builder.add_node("plain", search)
    builder.add_node("told", search, trace_policy=policy)
    add_router(builder, script("plain"), ["plain", "told"])
    plain, told = builder.nodes["plain"], builder.nodes["told"]
    values = {"messages": [], "orchestra_turns": {}, "orchestra_call": {"call": {"tool": "plain"}}}
    assert plain.trace_policy.process_inputs(values) == {"messages": []}
    assert told.trace_policy.process_inputs(values) == ["messages"]
    result = {"messages": ["x"]}
    written = [result, Command(update={"orchestra_report": {}}, goto="router")]
    assert told.trace_policy.process_outputs(written) == plain.trace_policy.process_outputs(written) == result
    assert told.trace_policy.process_outputs(result) == result
