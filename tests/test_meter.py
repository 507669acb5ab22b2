"""What the meter sees, held against what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel, FakeListLLM, FakeMessagesListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tools import tool

from orchestra_graph.catalog import ModelSpec, Price
from orchestra_graph.errors import ToolError
from orchestra_graph.journal import lost
from orchestra_graph.meter import Meter, current_meter, report
from orchestra_graph.testing import ScriptedExpert
from orchestra_graph.tools.adapt import as_tool
from orchestra_graph.tools.base import Request
from orchestra_graph.turns import Charge
from tests.provider import ANSWERED, LIMITS, PRICE, Provider, RefusedError

SPEC = ModelSpec(price=PRICE, limits=LIMITS)


def meter(call_id: str = "c", name: str = "tool", spec: ModelSpec = SPEC, **options: Any) -> Meter:
    return Meter(call_id, name, spec, price_of=lambda spec, model: PRICE, **options)


def dollars(measured: Meter) -> float:
    return sum(charge["dollars"] for charge in measured.charges.values())


def statuses(measured: Meter) -> dict[str, str]:
    return {key: charge["status"] for key, charge in measured.charges.items()}


# Models that are reached in every way there is.


async def by_ainvoke(model: BaseChatModel) -> None:
    await model.ainvoke("q")


async def by_invoke_in_a_sync_tool(model: BaseChatModel) -> None:
    def ask(question: str) -> str:
        """Ask."""
        return model.invoke(question).text

    await as_tool(ask).run(Request(args={"question": "q"}, question="q"))


async def by_a_sync_tool_in_threads_of_its_own(model: BaseChatModel) -> None:
    def ask(question: str) -> str:
        """Ask."""
        with ContextThreadPoolExecutor(2) as pool:
            return "".join(reply.text for reply in pool.map(model.invoke, [question]))

    await as_tool(ask).run(Request(args={"question": "q"}, question="q"))


async def by_to_thread(model: BaseChatModel) -> None:
    await asyncio.to_thread(model.invoke, "q")


async def by_task(model: BaseChatModel) -> None:
    await asyncio.create_task(model.ainvoke("q"))


async def by_stream(model: BaseChatModel) -> None:
    assert [chunk async for chunk in model.astream("q")]


async def by_sync_stream(model: BaseChatModel) -> None:
    assert await asyncio.to_thread(lambda: list(model.stream("q")))


async def by_batch(model: BaseChatModel) -> None:
    await model.abatch(["q"])


async def by_chain(model: BaseChatModel) -> None:
    await (RunnableLambda(to_messages) | model).ainvoke("q")


def to_messages(text: str) -> list[BaseMessage]:
    return [HumanMessage(text)]


async def by_a_tool_that_passes_its_config(model: BaseChatModel) -> None:
    @tool
    async def ask(question: str, config: RunnableConfig) -> str:
        """Ask."""
        return (await model.ainvoke(question, config)).text

    await as_tool(ask).run(Request(args={"question": "q"}, question="q"))


WAYS: list[Callable[[BaseChatModel], Any]] = [
    by_ainvoke,
    by_invoke_in_a_sync_tool,
    by_a_sync_tool_in_threads_of_its_own,
    by_to_thread,
    by_task,
    by_stream,
    by_sync_stream,
    by_batch,
    by_chain,
    by_a_tool_that_passes_its_config,
]


@pytest.mark.parametrize("way", WAYS)
async def test_each_request_is_counted_once_however_it_is_made(way: Callable[[BaseChatModel], Any]) -> None:
    model = Provider()
    measured = meter()
    with measured.attempt():
        await way(model)
    assert model.books.requests == 1
    assert statuses(measured) == {"c#0.0": "paid", "c#0": "paid"}
    assert dollars(measured) == pytest.approx(ANSWERED)
    assert (measured.charges["c#0.0"]["input_tokens"], measured.charges["c#0.0"]["output_tokens"]) == (100, 10)


def test_nothing_is_counted_outside_of_an_attempt() -> None:
    model = Provider()
    measured = meter()
    with measured.attempt():
        pass
    model.invoke("q")
    assert statuses(measured) == {"c#0": "paid"}
    assert current_meter() is None


async def test_concurrent_meters_keep_to_their_own_requests() -> None:
    model = Provider()

    async def one(n: int) -> Meter:
        measured = meter(f"c{n}")
        with measured.attempt():
            await asyncio.gather(*(model.ainvoke("q") for _ in range(n)))
        return measured

    meters = await asyncio.gather(*(one(n) for n in range(1, 6)))
    assert [len(m.charges) for m in meters] == [2, 3, 4, 5, 6]
    assert sum(map(dollars, meters)) == pytest.approx(model.books.known)


async def test_each_try_has_keys_of_its_own() -> None:
    model = Provider(script=["refused", "answer"])
    measured = meter(first=3)
    with pytest.raises(Exception, match="slow down"), measured.attempt():
        await model.ainvoke("q")
    with measured.attempt():
        await model.ainvoke("q")
    assert statuses(measured) == {"c#3.0": "failed", "c#3": "failed", "c#4.0": "paid", "c#4": "paid"}
    assert measured.next_try == 5


# What failed.


@pytest.mark.parametrize(
    ("event", "status"),
    [("refused", "failed"), ("unsent", "failed"), ("lost", "uncertain"), ("crash", "uncertain")],
)
async def test_a_failure_is_free_when_it_was_refused_and_uncertain_when_it_was_lost(event: Any, status: str) -> None:
    model = Provider(script=[event])
    measured = meter()
    with pytest.raises(BaseException), measured.attempt():  # noqa: B017  (each event raises its own)
        await model.ainvoke("q")
    charge = measured.charges["c#0.0"]
    assert (charge["status"], charge["dollars"]) == (status, 0.0)
    assert ("upper" in charge) == (status == "uncertain")
    assert charge.get("upper", 0.0) >= model.books.lost * ANSWERED


async def test_a_cancelled_request_is_uncertain_with_all_that_it_may_write() -> None:
    measured = meter()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            with measured.attempt():
                await ScriptedExpert("x", delay=5).ainvoke("y" * 400)
    charge = measured.charges["c#0.0"]
    assert charge["status"] == "uncertain"
    assert charge["upper"] == pytest.approx(PRICE.dollars(input_tokens=101, output_tokens=LIMITS.output_tokens))
    assert 0.01 < charge["seconds"] < 1.0


async def test_a_request_under_way_when_another_one_is_refused_is_uncertain() -> None:
    measured, slow = meter(), ScriptedExpert("x", delay=5)
    with pytest.raises(RefusedError), measured.attempt():
        await asyncio.gather(slow.ainvoke("q"), Provider(script=["refused"]).ainvoke("q"))
    assert statuses(measured) == {"c#0.0": "uncertain", "c#0.1": "failed", "c#0": "failed"}
    assert measured.charges["c#0.0"]["upper"] > 0
    assert measured.charges["c#0.0"]["error"] == "TimeoutError: the call ended before the request came back"


async def test_a_call_with_a_price_a_call_that_failed_may_have_been_billed() -> None:
    spec = ModelSpec(price=Price(per_call=0.5))
    refused, broken = meter(spec=spec), meter(spec=spec)
    with pytest.raises(ToolError), refused.attempt():
        raise ToolError("down") from ConnectionRefusedError()
    with pytest.raises(ToolError), broken.attempt():
        raise ToolError("odd reply")
    assert refused.charges["c#0"]["status"] == "failed"
    assert (broken.charges["c#0"]["status"], broken.charges["c#0"]["upper"]) == ("uncertain", 0.5)


class Told:
    """A journal that keeps what it is told, and knows of what it is given."""

    def __init__(self, **earlier: Mapping[str, Charge]) -> None:
        self.attempts: list[tuple[str, str, float]] = []
        self.charges: dict[str, Charge] = {}
        self._earlier = earlier

    def sent(self, key: str, tool: str, upper: float) -> None:
        self.attempts.append((key, tool, upper))

    def came_back(self, charges: Mapping[str, Charge]) -> None:
        self.charges |= charges

    def earlier(self, call_id: str) -> Mapping[str, Charge]:
        return self._earlier.get(call_id, {})


async def test_an_attempt_is_told_to_the_journal_before_it_is_sent() -> None:
    told = Told()
    model = ScriptedExpert(lambda prompt: f"{len(told.attempts)} told")
    measured = meter(journal=told, spec=ModelSpec(price=Price(per_call=0.5)))
    with measured.attempt():
        assert (await model.ainvoke("q")).text == "2 told"
    assert [(key, name) for key, name, _ in told.attempts] == [("c#0", "tool"), ("c#0.0", "tool")]
    assert told.attempts[0][2] == 0.5
    assert told.charges == {}


async def test_the_journals_of_all_meters_around_are_told_of_an_attempt_before_it_is_sent() -> None:
    outer, inner = Told(), Told()
    model = ScriptedExpert(lambda prompt: f"{len(outer.attempts)} and {len(inner.attempts)} told")
    around = meter("a", "outer", journal=outer)
    with around.attempt():
        between = meter("b", "middle")
        with between.attempt():
            measured = meter("c", "solver", journal=inner)
            with measured.attempt():
                assert (await model.ainvoke("q")).text == "4 and 2 told"
    assert [(key, name) for key, name, _ in outer.attempts] == [
        ("a#0", "outer"),
        ("a/b#0", "outer/middle"),
        ("a/b/c#0", "outer/middle/solver"),
        ("a/b/c#0.0", "outer/middle/solver"),
    ]
    assert [key for key, _, _ in inner.attempts] == ["c#0", "c#0.0"]
    assert outer.attempts[-1][2] == inner.attempts[-1][2] > 0
    assert outer.charges == {key: charge for key, charge in around.charges.items() if "/" in key}
    assert inner.charges == {}


def test_a_nested_run_learns_its_own_earlier_charges_from_the_meters_around_it() -> None:
    known = {"a#0": lost("outer", 0.0), "a/b/c#0": lost("outer/middle/solver", 0.5), "a/x#0": lost("outer/x", 0.1)}
    with meter("a", "outer", journal=Told(a=known)).attempt():
        between = meter("b", "middle")
        with between.attempt():
            assert between.earlier() == {"c#0": lost("solver", 0.5)}
            assert meter("c", "solver").earlier() == {}


# Streams.


class Streaming(BaseChatModel):
    """Streams three chunks and states its usage in the last one."""

    states_usage: bool = True

    @property
    def _llm_type(self) -> str:
        return "streaming"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for text in ("four", "four", "4444"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        if self.states_usage:
            usage = UsageMetadata(input_tokens=100, output_tokens=10, total_tokens=110)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))


async def test_a_stream_is_paid_by_the_usage_in_its_last_chunk() -> None:
    measured = meter()
    with measured.attempt():
        text = "".join([chunk.text async for chunk in Streaming().astream("q")])
    assert text == "fourfour4444"
    assert measured.charges["c#0.0"]["dollars"] == pytest.approx(ANSWERED)
    assert "estimated" not in measured.charges["c#0.0"]


async def test_a_stream_without_usage_is_estimated() -> None:
    measured = meter()
    with measured.attempt():
        await asyncio.to_thread(lambda: list(Streaming(states_usage=False).stream("q" * 40)))
    charge = measured.charges["c#0.0"]
    assert (charge["input_tokens"], charge["output_tokens"], charge["estimated"]) == (11, 4, True)


LONG_CALL = {"name": "final_answer", "args": {"answer": "4" * 4000}, "id": "1", "type": "tool_call"}
BROKEN_CALL = {"name": "final_answer", "args": "4" * 4000, "id": "1", "error": None, "type": "invalid_tool_call"}


@pytest.mark.parametrize("reply", [{"tool_calls": [LONG_CALL]}, {"invalid_tool_calls": [BROKEN_CALL]}])
async def test_calls_of_a_reply_without_usage_are_estimated_too(reply: dict[str, Any]) -> None:
    measured = meter()
    with measured.attempt():
        await FakeMessagesListChatModel(responses=[AIMessage("", **reply)]).ainvoke("q" * 40)
    charge = measured.charges["c#0.0"]
    assert charge["estimated"] and charge["output_tokens"] > 1000


async def test_a_stream_that_is_left_early_is_uncertain() -> None:
    measured = meter()
    with measured.attempt():
        stream: AsyncIterator[Any] = Streaming().astream("q")
        assert (await anext(stream)).text == "four"
    await stream.aclose()  # type: ignore[attr-defined]
    assert statuses(measured) == {"c#0.0": "uncertain", "c#0": "paid"}


# LangChain's own cache of models.


@pytest.mark.parametrize("sync", [True, False])
async def test_a_hit_of_langchains_cache_costs_nothing(sync: bool) -> None:
    model = Provider(cache=InMemoryCache())
    measured = meter()
    with measured.attempt():
        for _ in range(3):
            await (asyncio.to_thread(model.invoke, "q") if sync else model.ainvoke("q"))
    assert model.books.requests == 1
    assert [statuses(measured)[f"c#0.{n}"] for n in range(3)] == ["paid", "cached", "cached"]
    assert dollars(measured) == pytest.approx(ANSWERED)


async def test_a_completion_model_is_estimated_by_its_text() -> None:
    measured = meter()
    with measured.attempt():
        await FakeListLLM(responses=["y" * 40]).ainvoke("x" * 80)
    charge = measured.charges["c#0.0"]
    assert (charge["input_tokens"], charge["output_tokens"], charge["estimated"]) == (21, 11, True)


# Reports.


async def test_reported_dollars_add_up_and_reported_seconds_replace_the_clock() -> None:
    measured = meter(spec=ModelSpec(price=Price(per_call=1.0, per_second=0.1)))
    with measured.attempt():
        report(seconds=2.0)
        report(seconds=3.0, dollars=0.25)
        report(dollars=0.5)
    charge = measured.charges["c#0"]
    assert charge["seconds"] == 5.0
    assert charge["dollars"] == pytest.approx(1.0 + 0.75 + 0.5)
    assert measured.shift == pytest.approx(5.0, abs=0.1)


async def test_what_a_failed_attempt_reported_is_owed() -> None:
    measured = meter(spec=ModelSpec(price=Price(per_call=1.0)))
    with pytest.raises(ToolError), measured.attempt():
        report(dollars=0.25, seconds=4.0)
        raise ToolError("half done")
    charge = measured.charges["c#0"]
    assert (charge["dollars"], charge["upper"], charge["seconds"]) == (0.25, 1.25, 4.0)


def test_a_report_without_a_meter_does_nothing() -> None:
    report(seconds=5.0, dollars=1.0)
    assert current_meter() is None


async def test_a_report_reaches_the_attempt_from_the_thread_of_a_sync_tool() -> None:
    def slow(text: str) -> str:
        """Work."""
        report(seconds=9.0, dollars=0.01)
        return text

    measured = meter(spec=ModelSpec(price=Price()))
    with measured.attempt():
        await as_tool(slow).run(Request(args={"text": "x"}, question="q"))
    assert (measured.charges["c#0"]["seconds"], measured.charges["c#0"]["dollars"]) == (9.0, 0.01)


async def test_seconds_of_a_model_are_not_seconds_of_the_call_around_it() -> None:
    measured = meter()
    with measured.attempt():
        await ScriptedExpert("x", delay=0.1).ainvoke("q")
    assert measured.charges["c#0.0"]["seconds"] >= 0.1
    assert measured.charges["c#0"]["seconds"] < 0.05
