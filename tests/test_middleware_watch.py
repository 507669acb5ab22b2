"""The handler that sees every model request of a run, and knows what each was made in."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from orchestra_graph.catalog import ModelSpec, Price
from orchestra_graph.meter import Meter
from orchestra_graph.middleware.watch import RunWatch, watch_here
from tests.agents import MODES, Bench, Mode, Model, ledger_of, run
from tests.langsmith_recorder import cost as traced
from tests.langsmith_recorder import recording


def graph(node: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


def called(function: Callable[[], Any], callbacks: Any = None) -> None:
    """Call a function as a chain of its own."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda _: function())
    chain.invoke(None, {"callbacks": callbacks} if callbacks else None)


def test_each_run_has_one_watch_of_its_own() -> None:
    seen: list[Any] = []

    def node(state: Any) -> dict[str, Any]:
        watch, here = watch_here()
        called(lambda: seen.append(watch_here()[0]))
        seen.append((watch, here))
        return {}

    compiled = graph(node)
    for _ in range(2):
        compiled.invoke({"messages": [HumanMessage("q")]})
    (inner_1, (watch_1, run_1), inner_2, (watch_2, run_2)) = seen
    assert inner_1 is watch_1 and inner_2 is watch_2
    assert watch_1 is not watch_2
    assert run_1 != run_2


@pytest.mark.parametrize("manager", [CallbackManager, AsyncCallbackManager])
def test_langchain_adds_the_watch_to_whatever_is_run(manager: Any) -> None:
    configured = manager.configure()
    assert [type(handler) for handler in configured.inheritable_handlers].count(RunWatch) == 1
    again = manager.configure(inheritable_callbacks=configured)
    assert [type(handler) for handler in again.handlers].count(RunWatch) == 1


def test_requests_are_claimed_once_and_by_the_runs_around_them() -> None:
    claims: list[int] = []

    def node(state: Any) -> dict[str, Any]:
        watch, here = watch_here()
        Model(model="m").invoke("a")
        called(lambda: Model(model="m").invoke("b"))
        claims.extend([len(watch.claim(uuid4())), len(watch.claim(here)), len(watch.claim(here))])
        return {}

    graph(node).invoke({"messages": [HumanMessage("q")]})
    assert claims == [0, 2, 0]


def test_requests_may_be_claimed_while_others_are_made_beside_them() -> None:
    watch, one, other = RunWatch(), uuid4(), uuid4()

    def ask(times: int, run_id: UUID) -> None:
        for _ in range(times):
            request = uuid4()
            watch.on_llm_start({}, ["q"], run_id=request, parent_run_id=run_id)
            watch.on_llm_end(LLMResult(generations=[]), run_id=request)

    ask(1000, other)
    ask(5, one)
    claims = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        beside = threading.Thread(target=ask, args=(1000, other))
        beside.start()
        while beside.is_alive():
            claims.append(len(watch.claim(one)))
    finally:
        beside.join()
        sys.setswitchinterval(interval)
    assert sum(claims) + len(watch.claim(one)) == 5
    assert len(watch.claim(other)) == 2000


def test_what_a_meter_charges_is_not_claimed() -> None:
    claims: list[int] = []
    meter = Meter("c", "tool", ModelSpec(price=Price()), price_of=lambda spec, model: Price())

    def node(state: Any) -> dict[str, Any]:
        watch, here = watch_here()
        with meter.attempt():
            Model(model="m").invoke("a")
        claims.append(len(watch.claim(here)))
        return {}

    graph(node).invoke({"messages": [HumanMessage("q")]})
    assert claims == [0]
    assert len(meter.charges) == 2


def test_failures_and_completion_models_are_noted() -> None:
    found: list[Any] = []

    async def node(state: Any) -> dict[str, Any]:
        watch, here = watch_here()
        with pytest.raises(Exception, match="reset"):
            await Model(model="m", script=["lost"]).ainvoke("a")
        await FakeListLLM(responses=["done"]).ainvoke("b")
        found.extend(watch.claim(here))
        return {}

    asyncio.run(graph(node).ainvoke({"messages": [HumanMessage("q")]}))
    failed, answered = found
    assert (failed.model, failed.node, str(failed.result)) == ("m", "node", "connection reset")
    assert (answered.result.text, answered.tokens) == ("done", 1)


def test_of_a_request_what_is_billed_is_kept_and_not_what_was_said() -> None:
    found: list[Any] = []

    def node(state: Any) -> dict[str, Any]:
        watch, here = watch_here()
        Model(model="m").invoke("a long question")
        found.extend(watch.claim(here))
        return {}

    graph(node).invoke({"messages": [HumanMessage("q")]})
    (seen,) = found
    assert seen.result.usage_metadata["input_tokens"] == 100
    kept = repr([getattr(seen, name) for name in seen.__slots__])
    assert "a long question" not in kept
    assert "answer of m" not in kept


def test_nothing_stays_of_runs_that_have_ended() -> None:
    watch = RunWatch()
    called(lambda: 1, callbacks=[watch])
    with pytest.raises(ZeroDivisionError):
        called(lambda: 1 / 0, callbacks=[watch])
    assert watch._parents == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_trace_holds_the_dollars_of_the_ledger(mode: Mode) -> None:
    bench = Bench("small", "large", steps=1, small=["lost"])
    agent = bench.agent(ModelFallbackMiddleware(bench.models["backup"]))
    with recording() as recorder:
        state = run(agent, mode)
    dollars = sum(traced(each) or 0.0 for each in recorder.runs.values())
    assert dollars == pytest.approx(state["ledger"]["dollars"], abs=1e-9)
    assert dollars == pytest.approx(sum(ledger_of(state).values()), abs=1e-9)


def test_an_agent_without_the_middleware_is_as_it_was() -> None:
    state = create_agent(Model(model="m"), []).invoke({"messages": [HumanMessage("q")]})
    assert set(state) == {"messages"}
