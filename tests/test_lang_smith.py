"""What reaches LangSmith: held against the ledger and the outcomes, byte for byte, with tracing on and off."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import langsmith
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.tracers import LangChainTracer
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr

from orchestra_graph import (
    Budget,
    Catalog,
    ChatVLLM,
    Expert,
    Limits,
    ModelSpec,
    Preferences,
    Price,
    Request,
    Result,
    Tool,
    ToolError,
    ToolSpec,
    create_orchestrator,
)
from orchestra_graph.meter import report
from orchestra_graph.state import OrchestratorOutput
from orchestra_graph.testing import Reply as Scripted
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.subgraph import Subgraph
from tests.examples import examples
from tests.langsmith_recorder import KEY, Recorder, Run, cost, metadata, recording, served
from tests.openai_server import OpenAIServer, Refusal, Reply, Silence

ANSWER = "<answer>42</answer>"
TOKENS = Price(input=3.0, output=10.0)
ROUTER = ModelSpec(model="policy-8b", price=Price(input=1.0, output=2.0, per_call=1e-5))
DOCUMENT = "a" * 20_000 + "THE-MIDDLE-OF-THE-DOCUMENT" + "b" * 20_000


class Plain(Tool):
    """A tool that is no LangChain tool, and has no run but its node's."""

    def __init__(self, name: str, *results: str | Exception, **spec: Any) -> None:
        self.spec = ToolSpec(name=name, **spec)
        self._results = list(results)

    async def run(self, request: Request) -> Result:
        report(dollars=0.0003)
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        return Result(result, artifacts=[{"document": result}])


def search(query: str) -> str:
    """Search for something."""
    return f"found {query}"


def team() -> list[Any]:
    """Tools that cost in every way."""
    inner = create_orchestrator(
        ScriptedRouter([("helper", {}), ("final_answer", {"answer": "7"})], stateless=True),
        [Expert(ScriptedExpert("a thought"), name="helper", role="chat", price=TOKENS)],
        catalog=Catalog.of([ToolSpec(name="helper", price=TOKENS)], router=ROUTER),
    )
    broken: list[str | Exception] = [ToolError("busy", retryable=True), "fine", "fine"]
    return [
        search,
        Plain("plain", "a result"),
        Plain("shaky", *broken, limits=Limits(retries=1)),
        Plain("broken", ToolError("no luck"), fallback=("plain",)),
        Expert(ScriptedExpert("a thought"), name="thinker", role="chat", price=TOKENS),
        Expert(
            ScriptedExpert("a thought", seconds=2.0),
            name="dear",
            role="chat",
            price=Price(input=3.0, output=10.0, per_call=0.01, per_second=0.001),
        ),
        Expert(ScriptedExpert(ANSWER), name="answer", price=TOKENS),
        Subgraph(inner.compile(), name="nested", price=Price(per_call=0.05)),
    ]


PRICES = Catalog.of(
    [ToolSpec(name="search", price=Price(per_call=0.002)), ToolSpec(name="plain", price=Price(per_second=0.1))],
    router=ROUTER,
)

ARGS: dict[str, dict[str, Any]] = {"search": {"query": "x"}, "nested": {"request": "do it"}}
NAMES = ["search", "plain", "shaky", "broken", "thinker", "dear", "nested"]


def asked(script: list[Any], **options: Any) -> Any:
    return create_orchestrator(ScriptedRouter(script), team(), catalog=PRICES, **options).compile()


def question(text: str = "What is it?") -> dict[str, Any]:
    return {"messages": [("user", text)]}


def run(script: list[Any], *, is_async: bool = True, **options: Any) -> tuple[OrchestratorOutput, Recorder]:
    with recording() as recorder:
        graph = asked(script, **options)
        state = asyncio.run(graph.ainvoke(question())) if is_async else graph.invoke(question())
    return state, recorder


def outcomes(state: OrchestratorOutput) -> dict[str, str]:
    """Tool by call, of the calls that were sent."""
    return {
        call["id"]: call["tool"]
        for turn in state["turns"].values()
        for call in turn["decision"]["calls"]
        if call["tool"] != "final_answer" and not turn["outcomes"][call["id"]].get("unsent")
    }


def check(state: Any, recorder: Recorder) -> None:
    """The laws that hold for every trace."""
    total = sum(cost(run) or 0.0 for run in recorder.runs.values())
    assert total == pytest.approx(state["ledger"]["dollars"], abs=1e-9)
    for run in recorder.runs.values():
        assert run.get("end_time"), f"{run['name']} has no end"
        if cost(run) is not None:
            assert [below["name"] for below in recorder.below(run) if cost(below) is not None] == []
    calls = {metadata(run)["call"]: run["name"] for run in recorder.runs.values() if "call" in metadata(run)}
    nested = {call for run in recorder.runs.values() if run["name"] == "nested" for call in _calls_below(recorder, run)}
    own = {call: name for call, name in calls.items() if call not in nested}
    assert own == outcomes(state)


def _calls_below(recorder: Recorder, run: Run) -> set[str]:
    return {metadata(below)["call"] for below in recorder.below(run) if "call" in metadata(below)} - {
        metadata(run).get("call")
    }


@settings(max_examples=examples(10), deadline=None)
@given(script=st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), max_size=4), is_async=st.booleans())
def test_dollars_and_calls_are_those_of_the_ledger(script: list[list[str]], is_async: bool) -> None:
    replies: list[Any] = [[(name, ARGS.get(name, {})) for name in names] for names in script]
    state, recorder = run([*replies, ("answer", {})], is_async=is_async)
    assert state["answer"] == "42"
    check(state, recorder)


def test_the_tree() -> None:
    state, recorder = run([("search", {"query": "x"}), [("dear", {}), ("plain", {})], ("answer", {})])
    check(state, recorder)
    names = [(run["name"], run["run_type"]) for run in recorder.children(recorder.root)]
    turn = ("router", "chain")
    assert names[:3] == [turn, ("search", "chain"), turn]
    assert sorted(names[3:5]) == [("dear", "tool"), ("plain", "tool")]
    assert names[5:7] == [turn, ("answer", "tool")]
    by_name = {run["name"]: run for run in recorder.children(recorder.root)}
    assert [(run["name"], run["run_type"]) for run in recorder.children(by_name["search"])] == [("search", "tool")]
    assert [(run["name"], run["run_type"]) for run in recorder.children(by_name["dear"])] == [
        ("ScriptedExpert", "llm"),
        ("fee", "tool"),
    ]
    usage = metadata(recorder.children(by_name["answer"])[0])["usage_metadata"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_metadata_and_tags() -> None:
    preferences = Preferences(cost=0.9, avoid={"dear": 1.0})
    script = [
        AIMessage("It is cheap.", tool_calls=[{"name": "search", "args": {"query": "x"}, "id": "1"}]),
        ("answer", {}),
    ]
    state: Any
    state, recorder = run(script, preferences=preferences, budget=Budget(dollars=1.0))
    root, turn, call = metadata(recorder.root), *map(metadata, recorder.children(recorder.root)[:2])
    assert root["policy"] == turn["policy"] == "policy-8b"
    assert root["catalog_hash"] == turn["catalog_hash"] == call["catalog_hash"]
    assert len(root["catalog_hash"]) == 64
    assert root["preferences"] == call["preferences"] == preferences.json_data
    assert root["budget"] == {"dollars": 1.0, "seconds": None, "turns": 50}
    assert turn["decision_reason"] == "It is cheap."
    assert turn["budget_left"]["turns"] == 49
    assert turn["budget_left"]["seconds"] is None
    assert 0.9 < call["budget_left"]["dollars"] < turn["budget_left"]["dollars"] + 1e-9 < 1.0 + 1e-9
    assert call["dollars"] == 0.002
    assert call["attempts"] == ["paid"]
    assert root["dollars"] == state["ledger"]["dollars"]
    assert root["stopped_by"] == "answer"
    tags = {run["name"]: set(run["tags"]) for run in recorder.children(recorder.root)[:2]}
    assert tags["router"] >= {"turn", "by:router", "calls:search"}
    assert tags["search"] >= {"call", "tool:search"}
    assert {"policy:policy-8b", "protocol:conversation", "stopped_by:answer"} <= set(recorder.root["tags"])
    assert recorder.children(recorder.root)[0]["outputs"] == {
        "calls": [{"tool": "search", "args": {"query": "x"}}],
        "reason": "It is cheap.",
    }


def test_metadata_of_one_run_is_not_on_another() -> None:
    _, recorder = run([("search", {"query": "x"}), ("answer", {})])
    for each in recorder.runs.values():
        names = metadata(each).keys()
        assert ("turn" in names) == ("turn" in each["tags"])
        assert ("attempts" in names) == ("call" in each["tags"])


def test_a_run_that_is_closed() -> None:
    state, recorder = run([("search", {"query": "x"})], budget=Budget(turns=1))
    assert state["stopped_by"] == "turns"
    check(state, recorder)
    [closing] = [run for run in recorder.children(recorder.root) if run["name"] == "closing"]
    [call] = recorder.children(closing)
    assert (call["name"], call["run_type"], call["outputs"]["answer"]) == ("answer", "tool", "42")
    assert [run["run_type"] for run in recorder.children(call)] == ["llm"]


def test_a_run_that_is_cached_or_malformed() -> None:
    state, recorder = run(["no call", "no call", "no call", ("answer", {})])
    check(state, recorder)
    turns = [run for run in recorder.children(recorder.root) if "turn" in run["tags"]]
    assert "problem:no_call" in turns[0]["tags"]
    assert "by:fallback" in turns[3]["tags"]


async def test_requests_that_were_cancelled_or_refused(openai_server: OpenAIServer) -> None:
    openai_server.script = [Silence(), Refusal(401, "no such key: sk-live-abcdefgh12345678")]
    model = ChatOpenAI(
        model="m", base_url=openai_server.base_url, api_key=SecretStr("sk-own-abcdefgh12345678"), max_retries=0
    )
    limits = Limits(timeout=0.3, retries=0)
    slow = Expert(model, name="slow", role="chat", price=Price(input=1.0, output=1.0, per_second=0.01), limits=limits)
    script: list[Scripted] = [("slow", {}), ("slow", {}), ("final_answer", {"answer": "none"})]
    with recording() as recorder:
        state = await create_orchestrator(ScriptedRouter(script), [slow]).compile().ainvoke(question())
    check(state, recorder)
    requests = [run for run in recorder.runs.values() if run["name"] == "ChatOpenAI"]
    assert len(requests) == 2
    assert all(run["error"] for run in requests)
    assert "uncertain_dollars" in metadata(requests[0])
    assert "abcdefgh12345678" not in recorder.text
    assert "[secret]" in recorder.text


async def test_a_run_that_fails(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(401, "no such key: sk-live-abcdefgh12345678")]
    router = ChatVLLM(model="m", base_url=openai_server.base_url, api_key=SecretStr("sk-own-abcdefgh12345678"))
    with recording() as recorder, pytest.raises(Exception, match="the router's model failed"):
        await create_orchestrator(router, [search]).compile().ainvoke(question())
    assert "RouterError" in recorder.root["error"]
    assert "abcdefgh12345678" not in recorder.text


async def test_no_token_id_and_no_key(openai_server: OpenAIServer, tmp_path: Path) -> None:
    calls = [("search", {"query": "x"})], [("final_answer", {"answer": "42"})]
    openai_server.script = [Reply("So.", calls=each, reasoning="I think.") for each in calls]
    openai_server.vllm = True
    key = "key-of-the-server-0815"
    router = ChatVLLM(model="m", base_url=openai_server.base_url, api_key=SecretStr(key))
    prices = Catalog.of([], router=ModelSpec(model="m", price=TOKENS, api_key_env="SOME_KEY"))
    with recording() as recorder:
        state = await create_orchestrator(router, [search], catalog=prices).compile().ainvoke(question())
    check(state, recorder)
    assert state["ledger"]["dollars"] > 0
    for word in ("token_ids", '"logprob"', '"logprobs":[', '"logprobs": [', key, KEY):
        assert word not in recorder.text
    assert len(openai_server.requests) == 2


@pytest.mark.parametrize("is_async", [True, False])
def test_long_documents_stay_out(is_async: bool) -> None:
    reader = Plain("reader", DOCUMENT)
    nested = Subgraph(asked([("plain", {}), ("answer", {})]), name="nested")
    tools = [reader, Expert(ScriptedExpert(ANSWER), name="answer"), nested]
    script: list[Scripted] = [("reader", {}), ("nested", {"request": DOCUMENT}), ("answer", {})]
    with recording() as recorder:
        graph = create_orchestrator(ScriptedRouter(script), tools).compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "t"}}
        state = asyncio.run(graph.ainvoke(question(), config)) if is_async else graph.invoke(question(), config)
    assert "MIDDLE" in str(state["turns"])
    assert "MIDDLE" not in recorder.text
    assert "characters left out" in recorder.text
    assert recorder.root["outputs"]["turns"] == 3


def test_a_second_question_on_a_thread_does_not_send_the_first_ones_documents() -> None:
    tools = [Plain("reader", DOCUMENT), Expert(ScriptedExpert(ANSWER), name="answer")]
    script: list[Scripted] = [("reader", {}), ("answer", {}), ("answer", {})]
    graph = create_orchestrator(ScriptedRouter(script), tools).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    graph.invoke(question(), config)  # not traced
    with recording() as recorder:
        state = graph.invoke(question("And now?"), config)
    assert state["answer"] == "42"
    assert "MIDDLE" not in recorder.text


@pytest.mark.parametrize(
    ("options", "sent"),
    [({"hide_inputs": True}, ["REASON"]), ({"hide_outputs": lambda outputs: {}}, ["QUESTION", "TASK"])],
)
def test_what_the_client_hides_is_not_in_the_metadata_either(options: dict[str, Any], sent: list[str]) -> None:
    reply = AIMessage("REASON", tool_calls=[{"name": "search", "args": {"query": "x"}, "id": "1"}])
    graph = create_orchestrator(ScriptedRouter([reply, ("final_answer", {"answer": "42"})]), [search]).compile()
    with served() as recorder:
        client = langsmith.Client(api_url=recorder.url, api_key=KEY, **options)
        tracer = LangChainTracer(client=client, project_name="test")
        graph.invoke(question("QUESTION"), {"callbacks": [tracer]}, context={"task": {"id": "TASK"}})
        client.flush()
        client.close()
    told = json.dumps([metadata(run) for run in recorder.runs.values()])
    assert [word for word in ("QUESTION", "TASK", "REASON") if word in told] == sent
    assert metadata(recorder.root)["stopped_by"] == "answer"


def test_a_tracer_that_is_handed_over() -> None:
    tools = [Plain("reader", DOCUMENT), Expert(ScriptedExpert(ANSWER), name="answer", price=TOKENS)]
    script: list[Scripted] = [("reader", {}), ("answer", {})]
    graph = create_orchestrator(ScriptedRouter(script), tools, catalog=Catalog.of([], router=ROUTER)).compile()
    with served() as recorder:
        client = langsmith.Client(api_url=recorder.url, api_key=KEY)
        tracer = LangChainTracer(client=client, project_name="test")
        state = graph.invoke(question(), {"callbacks": [tracer]})
        client.flush()
        client.close()
    check(state, recorder)
    assert "MIDDLE" not in recorder.text


def test_a_run_that_arrives_behind_its_own_patch() -> None:
    """The SDK posts from several threads where much is waiting."""
    posts = [("post.a", {"id": "a", "outputs": None}), ("post.a.extra", {"metadata": {}})]
    patches = [("patch.a", {"id": "a", "end_time": "2026-01-01"}), ("patch.a.extra", {"metadata": {"dollars": 0.1}})]
    recorder = Recorder()
    for parts in (patches, posts):
        body = "".join(
            f'--cut\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{json.dumps(value)}\r\n'
            for name, value in parts
        )
        recorder.take("/runs/multipart", "multipart/form-data; boundary=cut", f"{body}--cut--".encode())
    assert recorder.runs == {"a": {"id": "a", "end_time": "2026-01-01", "extra": {"metadata": {"dollars": 0.1}}}}


def test_nothing_is_sent_when_tracing_is_off() -> None:
    with recording(enabled=False) as recorder:
        state = asked([("search", {"query": "x"}), ("dear", {}), ("nested", {"request": "x"}), ("answer", {})]).invoke(
            question()
        )
    assert state["answer"] == "42"
    assert recorder.bodies == []


BY_ENVIRONMENT = """
from langchain_core.tracers.langchain import wait_for_all_tracers
from orchestra_graph import Catalog, ModelSpec, Price, create_orchestrator
from orchestra_graph.testing import ScriptedRouter

def search(query: str) -> str:
    "Search."
    return query

prices = Catalog.of([], router=ModelSpec(model="m", price=Price(per_call=0.5)))
router = ScriptedRouter([("search", {"query": "x"}), ("final_answer", {"answer": "42"})])
print(create_orchestrator(router, [search], catalog=prices).compile().invoke({"messages": [("user", "?")]})["answer"])
wait_for_all_tracers()
"""


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["true", "false"])
def test_the_usual_environment_variables(switch: str) -> None:
    with served() as recorder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))},
            "LANGSMITH_TRACING": switch,
            "LANGSMITH_ENDPOINT": recorder.url,
            "LANGSMITH_API_KEY": KEY,
            "LANGSMITH_PROJECT": "mine",
            "OPENAI_API_KEY": "key-in-the-environment",
        }
        done = subprocess.run(
            [sys.executable, "-c", BY_ENVIRONMENT], env=environment, capture_output=True, text=True, check=False
        )
    assert done.stdout == "42\n", done.stderr
    if switch == "false":
        assert recorder.bodies == []
        return
    assert recorder.root["session_name"] == "mine"
    assert sum(cost(run) or 0.0 for run in recorder.runs.values()) == pytest.approx(1.0, abs=1e-9)
    assert KEY not in recorder.text
    assert "key-in-the-environment" not in recorder.text
    assert json.dumps(recorder.root["outputs"]["answer"]) == '"42"'
