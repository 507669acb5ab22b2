"""Orchestrators inside orchestrators: one ledger, nothing counted twice."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata

from orchestra_graph.catalog import Catalog, Limits, ModelSpec, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import Meter
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.adapt import as_tool
from orchestra_graph.tools.base import Request
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.provider import ANSWERED, PRICE, Books, CrashError, Mortal, Provider, charges_of


def meter(name: str, **options: Any) -> Meter:
    return Meter("c", name, ModelSpec(price=Price()), price_of=lambda spec, model: PRICE, **options)


def dollars(measured: Meter) -> float:
    return sum(charge["dollars"] for charge in measured.charges.values())


def nest(depth: int, books: Books, *, seconds: float = 0.0) -> Any:
    """An orchestrator whose only tool is one of a level less; at the bottom an expert. Each level asks one router."""
    if depth == 0:
        bottom: Any = Expert(Provider(books=books), name="solver", price=PRICE)
        return create_orchestrator(router("solver", {}, seconds), [bottom], catalog=priced())
    below = Subgraph(nest(depth - 1, books, seconds=seconds).compile(), name=f"level{depth}", terminal=True)
    return create_orchestrator(router(below.spec.name, {"request": "q"}, seconds), [below], catalog=priced())


def router(name: str, args: dict[str, Any], seconds: float = 0.0) -> ScriptedRouter:
    usage = UsageMetadata(input_tokens=100, output_tokens=10, total_tokens=110)
    calls = [{"name": name, "args": args, "id": "1"}]
    return ScriptedRouter(lambda messages: AIMessage("", tool_calls=calls, usage_metadata=usage), seconds=seconds)


def priced() -> Catalog:
    return Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=Limits()))


async def run_nested(depth: int, **options: Any) -> tuple[dict[str, Any], Books]:
    books = Books()
    state = await nest(depth, books, **options).compile().ainvoke({"messages": [HumanMessage("q")]})
    assert (state["answer"], state["stopped_by"]) == ("42", "answer")
    return state, books


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
async def test_nested_orchestrators_count_every_request_once(depth: int) -> None:
    state, books = await run_nested(depth)
    requests = depth + 1 + books.requests
    paid = [key for key, charge in charges_of(state["turns"]).items() if charge["dollars"]]
    assert books.requests == 1
    assert len(paid) == requests
    assert state["ledger"]["dollars"] == pytest.approx(requests * ANSWERED, abs=1e-12)
    assert state["ledger"]["input_tokens"] == requests * 100


async def test_charges_of_nested_orchestrators_say_where_they_belong() -> None:
    state, _ = await run_nested(2)
    tools = state["ledger"]["tools"]
    assert {"router", "level2/router", "level2/level1/router", "level2/level1/solver"} <= set(tools)
    assert all(tools[name]["dollars"] == pytest.approx(ANSWERED) for name in tools if name.endswith("router"))


async def test_seconds_of_nested_orchestrators_are_counted_once() -> None:
    slow = Expert(ScriptedExpert("<answer>42</answer>", delay=0.2), name="solver")
    inner = create_orchestrator(ScriptedRouter([("solver", {})]), [slow])
    outer = create_orchestrator(
        ScriptedRouter([("inner", {"request": "q"})]), [Subgraph(inner.compile(), name="inner", terminal=True)]
    )
    state = await outer.compile().ainvoke({"messages": [HumanMessage("q")]})
    assert 0.2 <= state["ledger"]["seconds"] < 0.35


async def test_modelled_seconds_of_a_nested_orchestrator_are_seconds_of_the_run_around_it() -> None:
    state, _ = await run_nested(2, seconds=10.0)
    assert state["ledger"]["wall_seconds"] == pytest.approx(30.0, abs=1.0)
    assert state["ledger"]["tools"]["level2"]["wall_seconds"] == pytest.approx(20.0, abs=1.0)


async def test_an_orchestrator_inside_a_plain_function_joins_the_ledger() -> None:
    books = Books()
    inner = nest(0, books).compile()

    def ask_inner(question: str) -> str:
        """Ask another orchestrator, synchronously."""
        answer: str = inner.invoke({"messages": [HumanMessage(question)]})["answer"]
        return answer

    routed = ScriptedRouter([("ask_inner", {"question": "q"}), ("final_answer", {"answer": "42"})])
    state = await create_orchestrator(routed, [ask_inner]).compile().ainvoke({"messages": [HumanMessage("q")]})
    tools = state["ledger"]["tools"]
    assert tools["ask_inner/router"]["dollars"] == pytest.approx(ANSWERED)
    assert tools["ask_inner/solver"]["dollars"] == pytest.approx(books.known)
    assert state["ledger"]["dollars"] == pytest.approx(2 * ANSWERED)


async def test_a_nested_orchestrator_that_is_tried_twice_is_paid_twice() -> None:
    books = Books()
    inner = nest(0, books).compile()
    failures = iter([True, False])

    async def flaky(question: str) -> str:
        """Ask, and lose the first reply."""
        state = await inner.ainvoke({"messages": [HumanMessage(question)]})
        if next(failures):
            raise ConnectionError("lost on the way")
        return str(state["answer"])

    measured = meter("flaky")
    for _ in range(2):
        try:
            with measured.attempt():
                await as_tool(flaky).run(Request(args={"question": "q"}, question="q"))
        except ConnectionError:
            continue
    assert books.answered == 2
    assert dollars(measured) == pytest.approx(4 * ANSWERED)


async def test_a_crash_inside_a_nested_orchestrator_leaves_its_charges_with_the_outer_meter() -> None:
    books = Books()
    model = Provider(books=books, script=["empty", "crash"])
    inner = create_orchestrator(router("solver", {}), [Mortal(model, name="solver", price=PRICE)], catalog=priced())
    measured = meter("inner")
    with pytest.raises(CrashError), measured.attempt():
        await Subgraph(inner.compile(), name="inner").run(Request(args={"request": "q"}, question="q"))
    assert dollars(measured) == pytest.approx(ANSWERED + books.known)
    uncertain = [c for c in measured.charges.values() if c["status"] == "uncertain"]
    assert sum(c["upper"] for c in uncertain) >= books.lost * ANSWERED
