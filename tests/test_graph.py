"""`create_orchestrator` from end to end: streams, threads, several questions, what it refuses to build."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from orchestra_graph.catalog import Catalog, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import ConfigError, RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.routers import Cheapest, Rules
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert
from tests.provider import ANSWERED, LIMITS, PRICE, Provider, RefusedError

State = dict[str, Any]
QUESTION: Any = {"messages": [HumanMessage("What is 6 x 7?")]}


async def calculator(expression: str) -> str:
    """Compute a product such as 6 * 7."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


def expert(reply: Any = "<answer>42</answer>", **options: Any) -> Expert:
    return Expert(ScriptedExpert(reply), name="expert", price=Price(per_call=0.25), **options)


def two_turns() -> ScriptedRouter:
    return ScriptedRouter([("calculator", {"expression": "6 * 7"}), ("expert", {})], stateless=True)


def build(**options: Any) -> Any:
    return create_orchestrator(two_turns(), [calculator, expert()], **options)


def assert_done(state: State) -> None:
    assert (state["answer"], state["stopped_by"]) == ("42", "answer")
    assert [turn["decision"]["calls"][0]["tool"] for turn in state["turns"].values()] == ["calculator", "expert"]
    assert state["ledger"]["dollars"] == 0.25
    assert [m.text for m in state["messages"]] == ["What is 6 x 7?", "42"]


# Ways to run it.


def test_sync() -> None:
    graph = build().compile()
    for _ in range(3):
        assert_done(graph.invoke(QUESTION))


async def test_async() -> None:
    state = await build().compile().ainvoke(QUESTION)
    assert_done(state)
    assert set(state) == {"messages", "answer", "stopped_by", "ledger", "turns"}


def test_from_eight_threads_at_once() -> None:
    graph = create_orchestrator(two_turns(), [calculator, expert()]).compile()
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: graph.invoke(QUESTION), range(40)))
    for state in states:
        assert_done(state)
    assert len({next(iter(state["turns"])) for state in states}) == 40


async def test_many_concurrent_runs_of_one_graph() -> None:
    graph = create_orchestrator(two_turns(), [calculator, expert()]).compile()
    for state in await asyncio.gather(*(graph.ainvoke(QUESTION) for _ in range(50))):
        assert_done(state)


async def test_stream_of_values_ends_with_the_answer() -> None:
    parts: list[Any] = [part async for part in build().compile().astream(QUESTION, stream_mode="values")]
    assert_done(parts[-1])
    assert len(parts[-2]["turns"]) >= 1


async def test_stream_of_updates_names_each_node() -> None:
    parts: list[Any] = [part async for part in build().compile().astream(QUESTION, stream_mode="updates")]
    assert [next(iter(part)) for part in parts] == ["router", "calculator", "router", "expert", "router"]


async def test_stream_of_messages_shows_the_models() -> None:
    parts: list[Any] = [part async for part in build().compile().astream(QUESTION, stream_mode="messages")]
    assert [m.text for m, _ in parts if m.text] == ["<answer>42</answer>", "42"]


@pytest.mark.parametrize("sync", [True, False])
async def test_stream_of_events(sync: bool) -> None:
    graph = build().compile()
    if sync:
        events = await asyncio.to_thread(lambda: list(graph.stream(QUESTION, stream_mode="custom")))
    else:
        events = [event async for event in graph.astream(QUESTION, stream_mode="custom")]
    events = [event for event in events if event["type"] != "charge"]
    assert [event["type"] for event in events] == ["decision", "outcome", "decision", "outcome", "answer"]
    assert len({event["run"] for event in events}) == 1
    assert events[0]["decision"]["calls"][0]["tool"] == "calculator"
    assert events[1]["outcome"]["content"] == "42"
    assert events[-1]["ledger"]["dollars"] == 0.25
    json.dumps(events)


def test_schemas_and_drawing() -> None:
    graph = build().compile()
    assert set(graph.get_input_jsonschema()["properties"]) == {"messages"}
    assert set(graph.get_output_jsonschema()["properties"]) == {"messages", "answer", "stopped_by", "ledger", "turns"}
    context = graph.get_context_jsonschema()
    assert context is not None
    assert set(context["properties"]) == {"preferences", "budget", "task"}
    drawing = graph.get_graph().draw_mermaid()
    assert all(name in drawing for name in ("router", "calculator", "expert", "closing"))


# Checkpoints.


@asynccontextmanager
async def saver(kind: str, folder: Path) -> AsyncIterator[Any]:
    if kind == "memory":
        yield InMemorySaver()
    else:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "state.sqlite")) as sqlite:
            yield sqlite


SAVERS = pytest.mark.parametrize("kind", ["memory", "sqlite"])


def plain(value: Any, path: str = "state") -> None:
    """Fail on anything that is neither JSON nor one of LangChain's own messages."""
    if isinstance(value, BaseMessage):
        assert type(value) in (HumanMessage, AIMessage, SystemMessage), f"{path}: {type(value)}"
        plain(value.content, f"{path}.content")
        plain(value.additional_kwargs, f"{path}.additional_kwargs")
    elif type(value) is dict:
        for key, item in value.items():
            assert type(key) is str, f"{path}: key {key!r}"
            plain(item, f"{path}.{key}")
    elif type(value) is list:
        for n, item in enumerate(value):
            plain(item, f"{path}[{n}]")
    else:
        assert value is None or type(value) in (str, int, float, bool), f"{path}: {type(value)}"


@SAVERS
async def test_state_is_plain_json_and_messages(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with saver(kind, tmp_path) as checkpointer:
        graph = build().compile(checkpointer=checkpointer)
        config: Any = {"configurable": {"thread_id": "1"}}
        assert_done(await graph.ainvoke(QUESTION, config))
        snapshots = [snapshot async for snapshot in graph.aget_state_history(config)]
    assert len(snapshots) >= 5
    for snapshot in snapshots:
        plain(snapshot.values)
    assert snapshots[0].values["run"]["question"] == "What is 6 x 7?"
    assert [record.message for record in caplog.records] == []


def test_sync_graph_with_a_sync_saver(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "state.sqlite")) as checkpointer:
        graph = build().compile(checkpointer=checkpointer)
        config: Any = {"configurable": {"thread_id": "1"}}
        assert_done(graph.invoke(QUESTION, config))
        plain(graph.get_state(config).values)
    assert [record.message for record in caplog.records] == []


@SAVERS
async def test_a_second_question_sees_the_conversation_and_starts_at_zero(kind: str, tmp_path: Path) -> None:
    router = ScriptedRouter(lambda messages: ("expert", {}))
    answers = ScriptedExpert(["<answer>Paris</answer>", "<answer>2 million</answer>"])
    tool = Expert(answers, name="expert", price=Price(per_call=0.25))
    config: Any = {"configurable": {"thread_id": "1"}}
    async with saver(kind, tmp_path) as checkpointer:
        graph = create_orchestrator(router, [tool]).compile(checkpointer=checkpointer)
        first = await graph.ainvoke({"messages": [HumanMessage("Capital of France?")]}, config)
        second = await graph.ainvoke({"messages": [HumanMessage("How many live there?")]}, config)
    texts = ["Capital of France?", "Paris", "How many live there?", "2 million"]
    assert [m.text for m in second["messages"]] == texts
    assert [m.text for m in router.prompts[-1][1:]] == texts[:3]
    assert (first["ledger"]["dollars"], second["ledger"]["dollars"]) == (0.25, 0.25)
    assert len(second["turns"]) == 1
    assert not set(first["turns"]) & set(second["turns"])


async def test_a_second_question_after_an_unfinished_run_is_a_run_of_its_own() -> None:
    router = ScriptedRouter([ValueError("broken"), ("expert", {})])
    graph = create_orchestrator(router, [expert()]).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(RouterError):
        await graph.ainvoke({"messages": [HumanMessage("first")]}, config)
    state = await graph.ainvoke({"messages": [HumanMessage("second")]}, config)
    assert (state["answer"], len(state["turns"])) == ("42", 1)


async def test_a_question_that_is_edited_after_an_unfinished_run_is_a_run_of_its_own() -> None:
    model = ScriptedExpert("<answer>42</answer>")
    router = ScriptedRouter([ValueError("broken"), ("expert", {})])
    graph = create_orchestrator(router, [Expert(model, name="expert")]).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(RouterError):
        await graph.ainvoke({"messages": [HumanMessage("old", id="m")]}, config)
    state = await graph.ainvoke({"messages": [HumanMessage("new", id="m")]}, config)
    assert [message.text for message in state["messages"]] == ["new", "42"]
    assert "new" in model.prompts[0][-1].text and "old" not in model.prompts[0][-1].text


async def test_two_threads_do_not_see_each_other() -> None:
    graph = build().compile(checkpointer=InMemorySaver())
    configs: list[Any] = [{"configurable": {"thread_id": str(n)}} for n in range(10)]
    for state in await asyncio.gather(*(graph.ainvoke(QUESTION, config) for config in configs)):
        assert_done(state)


# Calls of one reply.


async def test_calls_of_one_reply_run_side_by_side() -> None:
    router = ScriptedRouter([[("slow", {"n": n}) for n in range(5)], ("final_answer", {"answer": "x"})])

    async def slow(n: int) -> int:
        """Take a while."""
        await asyncio.sleep(0.2)
        return n

    started = time.perf_counter()
    state = await create_orchestrator(router, [slow]).compile().ainvoke(QUESTION)
    assert time.perf_counter() - started < 0.8
    outcomes = next(iter(state["turns"].values()))["outcomes"]
    assert sorted(o["content"] for o in outcomes.values()) == ["0", "1", "2", "3", "4"]
    assert state["ledger"]["wall_seconds"] < 0.8 < state["ledger"]["tools"]["slow"]["wall_seconds"]


async def test_a_terminal_tool_without_an_answer_does_not_end_the_run() -> None:
    tool = expert(["I need the number.", "<answer>42</answer>"])
    router = ScriptedRouter([("expert", {}), ("expert", {})])
    state = await create_orchestrator(router, [tool]).compile().ainvoke(QUESTION)
    assert (state["answer"], len(state["turns"])) == ("42", 2)


async def test_the_router_answers_by_itself_where_no_tool_is_terminal() -> None:
    router = ScriptedRouter([("calculator", {"expression": "6 * 7"}), ("final_answer", {"answer": "It is 42."})])
    state = await create_orchestrator(router, [calculator]).compile().ainvoke(QUESTION)
    assert (state["answer"], state["stopped_by"]) == ("It is 42.", "answer")
    assert "final_answer" in [t["function"]["name"] for t in router.tools]


# Routers that fail.


@pytest.mark.parametrize("reply", ["no call", ("unknown", {}), ("calculator", {"wrong": 1})])
async def test_after_three_malformed_replies_the_fallback_decides(reply: Any) -> None:
    router = ScriptedRouter([reply] * 3)
    fallback = ScriptedRouter([("expert", {})])
    graph = create_orchestrator(router, [calculator, expert()], fallback=fallback).compile()
    state = await graph.ainvoke(QUESTION)
    decisions = [turn["decision"] for turn in state["turns"].values()]
    assert [d["by"] for d in decisions] == ["router"] * 3 + ["fallback"]
    assert all("problem" in d for d in decisions[:3])
    assert state["answer"] == "42"
    assert state["ledger"]["tools"]["router"]["calls"] == 3
    assert state["ledger"]["tools"]["fallback"]["calls"] == 1


async def test_the_default_fallback_is_the_rules() -> None:
    graph = create_orchestrator(ScriptedRouter(lambda m: "no call"), [calculator, expert()]).compile()
    state = await graph.ainvoke(QUESTION)
    assert state["answer"] == "42"
    assert list(state["turns"].values())[3]["decision"]["by"] == "fallback"


async def test_without_a_fallback_the_run_ends() -> None:
    router = ScriptedRouter(lambda m: "no call")
    graph = create_orchestrator(router, [calculator, expert()], fallback=None, max_malformed=2).compile()
    state = await graph.ainvoke(QUESTION)
    assert (state["stopped_by"], len(state["turns"])) == ("router", 2)
    assert state["answer"].startswith("No answer")


@pytest.mark.parametrize("status", [400, 401])
async def test_a_router_that_is_refused_for_good_stops_the_run(status: int) -> None:
    error = RefusedError("no such key", status)
    with pytest.raises(RouterError, match="no such key"):
        await create_orchestrator(ScriptedRouter([error]), [expert()]).compile().ainvoke(QUESTION)


async def test_a_pause_that_the_server_asks_for_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("orchestra_graph.attempts.asyncio.sleep", recorded)

    class Response:
        status_code = 429
        headers = {"retry-after": "7"}  # noqa: RUF012

    error = RefusedError("slow down")
    error.response = Response()  # type: ignore[attr-defined]
    router = ScriptedRouter([error, error, ("expert", {})])
    state = await create_orchestrator(router, [expert()]).compile().ainvoke(QUESTION)
    assert [p for p in pauses if p > 1] == [7.0, 7.0]
    assert state["answer"] == "42"
    assert state["ledger"]["tools"]["router"]["attempts"] == 3


# Context.


async def test_preferences_of_the_context_reach_the_router_and_never_restricts() -> None:
    router = ScriptedRouter([("expert", {})])
    graph = create_orchestrator(router, [calculator, expert()]).compile()
    context: Any = {"preferences": {"cost": 0.9, "never": ["calculator"], "text": "Spend little."}}
    state = await graph.ainvoke(QUESTION, context=context)
    assert state["answer"] == "42"
    assert [t["function"]["name"] for t in router.tools] == ["expert"]
    assert "Spend little." in router.prompts[0][0].text
    assert "calculator" not in router.prompts[0][0].text


async def test_the_hash_of_a_run_is_that_of_the_catalog_that_it_chose_from(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    graph = create_orchestrator(ScriptedRouter([("expert", {})] * 2), [calculator, expert()], run_log=log).compile()
    for preferences in ({"never": ["calculator"]}, {}):
        await graph.ainvoke(QUESTION, context={"preferences": preferences})
    narrow, whole = read_runs(log.path)
    assert narrow.catalog is not None and whole.catalog is not None
    assert (narrow.catalog_hash, whole.catalog_hash) == (narrow.catalog.hash, whole.catalog.hash)
    assert list(narrow.catalog.tools) == ["expert"]


async def test_a_tool_that_must_never_be_called_is_unknown() -> None:
    router = ScriptedRouter([("expert", {}), ("final_answer", {"answer": "x"})])
    preferences = Preferences(never=("expert",))
    state = (
        await create_orchestrator(router, [calculator, expert()], preferences=preferences).compile().ainvoke(QUESTION)
    )
    assert next(iter(state["turns"].values()))["decision"]["problem"]["kind"] == "unknown_tool"
    assert (state["answer"], state["ledger"]["dollars"]) == ("x", 0.0)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"preferences": {"cost": 2}}, "the context's preferences: cost = 2: .*less than or equal to 1"),
        ({"preferences": {"speed": 1}}, "speed = 1"),
        ({"preferences": {"avoid": {"serach": 1}}}, "'serach'; expected tools of the catalog: calculator, expert"),
        ({"preferences": "cheap"}, "preferences"),
        ({"budget": {"dollars": -1}}, "the context's budget: dollars = -1"),
        ({"budget": {"turns": 0}}, "turns = 0"),
        ({"budget": 0.5}, "budget.* = 0.5"),
        ({"user": "u"}, "the context has 'user'; expected preferences, budget, task"),
        (Budget(turns=1), "the context is Budget.*; expected a mapping of preferences, budget, task"),
    ],
)
async def test_a_wrong_context_names_the_value(context: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        await build().compile().ainvoke(QUESTION, context=context)


@pytest.mark.parametrize("messages", [[], [AIMessage("hello")]])
async def test_messages_without_a_question_are_refused(messages: Any) -> None:
    with pytest.raises(ConfigError, match="message of a person"):
        await build().compile().ainvoke({"messages": messages})


# The catalog.


async def test_the_catalog_wins_over_what_a_tool_says() -> None:
    line = ToolSpec(name="expert", kind="expert", description="The one.", price=Price(per_call=2.0), terminal=True)
    router = ScriptedRouter([("expert", {})])
    state = await create_orchestrator(router, [expert()], catalog=Catalog.of([line])).compile().ainvoke(QUESTION)
    assert state["ledger"]["dollars"] == 2.0
    assert router.tools[0]["function"]["description"] == "The one."


async def test_the_price_of_the_router_comes_from_the_catalog() -> None:
    router = Provider(calls=[("expert", {})])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    state = await create_orchestrator(router, [expert()], catalog=catalog).compile().ainvoke(QUESTION)
    assert state["ledger"]["tools"]["router"]["dollars"] == pytest.approx(ANSWERED)


@pytest.mark.parametrize("router", [Rules(), Cheapest()])
async def test_programs_are_routers(router: Any) -> None:
    state = (
        await create_orchestrator(router, [calculator, expert()], budget=Budget(turns=5)).compile().ainvoke(QUESTION)
    )
    assert state["answer"] == "42"
