import asyncio
import doctest
import time
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.tools import tool

from orchestra_graph import testing
from orchestra_graph.catalog import ModelSpec, Price
from orchestra_graph.errors import ConfigError
from orchestra_graph.meter import Meter
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter


@tool
def search(query: str) -> str:
    """Look something up."""
    return query


def ask(model: BaseChatModel, messages: Any, *, sync: bool) -> AIMessage:
    return model.invoke(messages) if sync else asyncio.run(model.ainvoke(messages))


BOTH = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])


def test_the_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(testing, extraglobs={"ScriptedRouter": ScriptedRouter, "ScriptedExpert": ScriptedExpert})
    assert result.attempted >= 6
    assert result.failed == 0


@BOTH
def test_router_gives_every_kind_of_reply_in_order(sync: bool) -> None:
    given = AIMessage("as it stands", id="mine")
    router = ScriptedRouter(
        [("search", {"query": "a"}), [("search", {"query": "b"}), ("expert", {})], "text", given, OSError("down")]
    )
    replies = [ask(router, "q", sync=sync) for _ in range(4)]

    calls = [[(c["name"], c["args"], c["id"]) for c in reply.tool_calls] for reply in replies]
    assert calls[0] == [("search", {"query": "a"}, "call_0")]
    assert calls[1] == [("search", {"query": "b"}, "call_0"), ("expert", {}, "call_1")]
    assert (calls[2], replies[2].text) == ([], "text")
    assert (replies[3].text, replies[3].id) == ("as it stands", "mine")
    with pytest.raises(OSError, match="down"):
        ask(router, "q", sync=sync)
    with pytest.raises(ConfigError, match="holds 5 replies and was asked for number 6"):
        ask(router, "q", sync=sync)


def test_callers_get_copies() -> None:
    given = AIMessage("x", tool_calls=[{"name": "f", "args": {"a": []}, "id": "1"}])
    router = ScriptedRouter(lambda messages: given)
    first, second = router.invoke("q"), router.invoke("q")
    first.tool_calls[0]["args"]["a"].append(1)
    assert first.id != second.id
    assert second.tool_calls[0]["args"] == {"a": []}
    assert (given.id, given.usage_metadata) == (None, None)


async def test_stateless_router_serves_concurrent_runs() -> None:
    script = [("search", {"query": str(i)}) for i in range(5)]
    router = ScriptedRouter(script, stateless=True)

    async def run() -> list[str]:
        messages: list[BaseMessage] = [HumanMessage("before"), AIMessage("answer of before"), HumanMessage("q")]
        for _ in script:
            reply = await router.ainvoke(messages)
            messages += [reply, ToolMessage("result", tool_call_id=reply.tool_calls[0]["id"])]
            await asyncio.sleep(0)
        return [m.tool_calls[0]["args"]["query"] for m in messages if isinstance(m, AIMessage) and m.tool_calls]

    results = await asyncio.gather(*(run() for _ in range(100)))
    assert results == [["0", "1", "2", "3", "4"]] * 100
    assert len(router.prompts) == 100


def test_bound_tools_are_recorded_in_openai_format() -> None:
    router = ScriptedRouter([("search", {"query": "a"})])
    reply = router.bind_tools([search], tool_choice="required").invoke("q")
    assert reply.tool_calls[0]["name"] == "search"
    assert [t["function"]["name"] for t in router.tools] == ["search"]
    assert router.tools[0]["function"]["parameters"]["required"] == ["query"]


def test_prompts_are_recorded() -> None:
    router = ScriptedRouter(["a", "b"])
    router.invoke("first")
    router.invoke("second")
    assert [prompt[-1].text for prompt in router.prompts] == ["first", "second"]


@BOTH
def test_usage_is_a_quarter_of_the_characters_or_what_is_given(sync: bool) -> None:
    given = UsageMetadata(input_tokens=1000, output_tokens=7, total_tokens=1007)
    router = ScriptedRouter(["y" * 40, AIMessage("z", usage_metadata=given)])
    counted = ask(router, "x" * 80, sync=sync).usage_metadata
    assert counted == {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}
    assert ask(router, "x", sync=sync).usage_metadata == given


@BOTH
def test_expert_answers_from_text_list_or_function(sync: bool) -> None:
    always = ScriptedExpert("same")
    assert [ask(always, "q", sync=sync).text for _ in range(3)] == ["same"] * 3
    assert ask(ScriptedExpert(lambda prompt: prompt.upper()), "loud", sync=sync).text == "LOUD"
    turns = ScriptedExpert([TimeoutError("slow"), "late"])
    with pytest.raises(TimeoutError, match="slow"):
        ask(turns, "q", sync=sync)
    assert ask(turns, "q", sync=sync).text == "late"
    with pytest.raises(ConfigError, match="holds 2 replies"):
        ask(turns, "q", sync=sync)


@BOTH
def test_delay_passes_in_real_seconds(sync: bool) -> None:
    started = time.perf_counter()
    ask(ScriptedExpert("x", delay=0.05), "q", sync=sync)
    assert time.perf_counter() - started >= 0.05


async def test_delays_of_concurrent_calls_overlap() -> None:
    expert = ScriptedExpert("x", delay=0.1)
    started = time.perf_counter()
    await asyncio.gather(*(expert.ainvoke("q") for _ in range(20)))
    assert time.perf_counter() - started < 1.0


@BOTH
@pytest.mark.parametrize("kind", [ScriptedRouter, ScriptedExpert])
def test_a_meter_sees_reported_seconds_and_usage(sync: bool, kind: type[ScriptedRouter] | type[ScriptedExpert]) -> None:
    model = kind(["x" * 400], seconds=12.5)
    meter = Meter("c", "expert", ModelSpec(), price_of=lambda spec, name: Price(input=1.0, output=10.0))
    with meter.attempt():
        ask(model, "x" * 400, sync=sync)
    charge = meter.charges["c#0.0"]
    assert charge["seconds"] == 12.5
    assert (charge["input_tokens"], charge["output_tokens"]) == (100, 100)
    assert charge["dollars"] == pytest.approx(0.0011)
