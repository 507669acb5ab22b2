"""What nodes spend under the router: charged to them, within the budget, once, whatever happens."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.graph import START, MessagesState
from langgraph.types import Command, RetryPolicy

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import Catalog, Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import current_meter, report
from orchestra_graph.preferences import Budget
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.examples import examples
from tests.provider import ANSWERED, LIMITS, PRICE, Books, Provider
from tests.spending_graphs import CONFIG, QUESTION, Node, compiled, graph_of, script, spec, values_of

# Charges.


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_models_inside_a_node_are_charged_to_it(mode: str) -> None:
    model = Provider()

    def twice(state: MessagesState) -> dict[str, Any]:
        model.invoke("one")
        return {"messages": [model.invoke("two")]}

    async def deep(state: MessagesState) -> dict[str, Any]:
        inner = graph_of(work=Node(model))
        inner.add_edge(START, "work")
        state = await inner.compile().ainvoke(state)
        return {"messages": state["messages"]}

    node = twice if mode == "sync" else deep
    graph = compiled(
        graph_of(work=node), script("work"), [spec("work", price=PRICE.model_copy(update={"per_call": 0.25}))]
    )
    _ = graph.invoke(QUESTION, CONFIG) if mode == "sync" else await graph.ainvoke(QUESTION, CONFIG)
    ledger = (await values_of(graph))["orchestra_ledger"]
    assert model.books.answered == (2 if mode == "sync" else 1)
    assert ledger["tools"]["work"]["dollars"] == pytest.approx(model.books.known + 0.25)
    assert ledger["tools"]["work"]["attempts"] == 1
    assert ledger["dollars"] == pytest.approx(ledger["tools"]["work"]["dollars"])


async def test_the_router_is_charged_too() -> None:
    router = Provider(calls=[("work", {})])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    graph = compiled(graph_of(work=Node()), router, [spec("work", terminal=True)], catalog=catalog)
    await graph.ainvoke(QUESTION, CONFIG)
    tools = (await values_of(graph))["orchestra_ledger"]["tools"]
    assert tools["router"]["dollars"] == pytest.approx(router.books.known) == pytest.approx(ANSWERED)


async def test_what_a_node_reports_of_its_own_work_counts() -> None:
    def work(state: MessagesState) -> dict[str, Any]:
        report(dollars=0.5, seconds=12.0)
        return {"messages": [AIMessage("x")]}

    graph = compiled(graph_of(work=work), script("work"), [spec("work")])
    graph.invoke(QUESTION, CONFIG)
    total = (await values_of(graph))["orchestra_ledger"]["tools"]["work"]
    assert (total["dollars"], total["seconds"]) == (0.5, 12.0)
    assert total["wall_seconds"] == pytest.approx(12.0, abs=1.0)


async def test_what_a_graph_spends_on_its_own_path_is_not_the_routers() -> None:
    books = Books()
    builder = graph_of(answer=Node(Provider(books=books)), after=Node(Provider(books=books)))
    builder.add_edge("answer", "after")
    graph = compiled(builder, script("answer"), [spec("answer", terminal=True)])
    await graph.ainvoke(QUESTION, CONFIG)
    assert books.answered == 2
    assert (await values_of(graph))["orchestra_ledger"]["dollars"] == pytest.approx(ANSWERED)


async def test_an_orchestrator_inside_a_node_and_around_the_graph_share_one_ledger() -> None:
    books = Books()
    inner = create_orchestrator(script("deep"), [Expert(Provider(books=books), name="deep", price=PRICE)]).compile()

    async def work(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage((await inner.ainvoke(QUESTION))["answer"])]}

    routed = add_router(graph_of(work=work), script("work"), [spec("work", terminal=True)]).compile(name="routed")
    tool = Subgraph(routed, takes_request=False, terminal=True)
    outer = create_orchestrator(ScriptedRouter([("routed", {})]), [tool])
    state = await outer.compile().ainvoke(QUESTION)
    assert state["answer"] == "42"
    assert state["ledger"]["tools"]["routed/work/deep"]["dollars"] == pytest.approx(books.known)
    assert state["ledger"]["dollars"] == pytest.approx(ANSWERED)


async def test_a_routed_graph_inside_a_routed_graph_joins_its_ledger() -> None:
    books = Books()
    builder = graph_of(deep=Node(Provider(books=books, text="deep")))
    inner = add_router(builder, script("deep"), [spec("deep", terminal=True)]).compile()
    graph = compiled(graph_of(inner=inner, other=Node()), script("inner", "other"), [spec("inner"), spec("other")])
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "deep", "said", "end"]
    tools = (await values_of(graph))["orchestra_ledger"]["tools"]
    assert tools["inner/deep"]["dollars"] == pytest.approx(books.known)
    assert {"inner/router", "inner", "other", "router"} <= set(tools)


PRICES = {"one": 0.25, "two": 0.5, "three": 2.0}


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.sampled_from(sorted(PRICES)), max_size=8), st.booleans())
def test_a_run_does_what_its_nodes_do_in_the_order_of_the_calls_and_bills_each_once(
    names: list[str], threaded: bool
) -> None:
    builder = graph_of(**{name: lambda state, name=name: {"messages": [AIMessage(name)]} for name in PRICES})
    lines = [ToolSpec(name=name, price=Price(per_call=price)) for name, price in PRICES.items()]
    graph = add_router(builder, script(*names), lines).compile(checkpointer=InMemorySaver() if threaded else None)
    events: list[Any] = []
    texts: list[str] = []
    for mode, part in graph.stream(QUESTION, CONFIG if threaded else None, stream_mode=["custom", "values"]):
        if mode == "custom":
            events.append(part)
        else:
            texts = [message.text for message in part["messages"]]
    assert texts == ["q", *names, "end"]
    assert [event["call"]["tool"] for event in events if event["type"] == "outcome"] == names
    assert events[-1]["ledger"]["dollars"] == pytest.approx(sum(PRICES[name] for name in names))


# Failures.


async def test_a_retry_policy_goes_on_working_and_every_attempt_is_charged() -> None:
    node = Node(fails=[ConnectionError("down"), ConnectionError("down"), None])
    builder = graph_of()
    builder.add_node("work", node, retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=3, jitter=False))
    graph = compiled(builder, script("work"), [spec("work")])
    state = await graph.ainvoke(QUESTION, CONFIG)
    total = (await values_of(graph))["orchestra_ledger"]["tools"]["work"]
    assert [message.text for message in state["messages"]] == ["q", "said", "end"]
    assert (node.runs, total["calls"], total["attempts"]) == (3, 1, 3)
    assert total["dollars"] == pytest.approx(3 * ANSWERED)


async def test_what_failed_attempts_took_counts_against_the_budget() -> None:
    left: list[Any] = []

    async def work(state: MessagesState) -> dict[str, Any]:
        meter = current_meter()
        assert meter is not None
        left.append(meter.left)
        report(dollars=0.25, seconds=10.0)
        if len(left) < 3:
            raise ConnectionError("down")
        return {"messages": [AIMessage("done")]}

    builder = graph_of()
    builder.add_node("work", work, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
    lines = [spec("work", price=Price(), terminal=True)]
    graph = compiled(builder, script("work"), lines, budget=Budget(dollars=1.0, seconds=100.0))
    await graph.ainvoke(QUESTION, CONFIG)
    ledger = (await values_of(graph))["orchestra_ledger"]
    assert [round(each["dollars"], 2) for each in left] == [1.0, 0.75, 0.5]
    assert [round(each["seconds"]) for each in left] == [100, 90, 80]
    assert (ledger["dollars"], round(ledger["wall_seconds"])) == (pytest.approx(0.75), 30)


async def test_a_tool_error_is_told_to_the_router() -> None:
    router = script("work", "other")
    builder = graph_of(work=Node(fails=[ToolError("no such account")]), other=Node())
    graph = compiled(builder, router, [spec("work"), spec("other")])
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "said", "end"]
    assert router.prompts[1][-1].text == "Error: no such account"
    assert (await values_of(graph))["orchestra_ledger"]["tools"]["work"]["dollars"] == pytest.approx(ANSWERED)


@pytest.mark.parametrize("leads_on", [True, False])
async def test_a_terminal_node_whose_edges_lead_on_fails_as_it_did(leads_on: bool) -> None:
    builder = graph_of(work=Node(fails=[ToolError("broken")]), other=Node(), after=Node())
    if leads_on:
        builder.add_edge("work", "after")
    lines = [spec("work", terminal=True), spec("other", terminal=True)]
    graph = compiled(builder, script("work", "other"), lines)
    if leads_on:
        with pytest.raises(ToolError, match="broken"):
            await graph.ainvoke(QUESTION, CONFIG)
    else:
        state = await graph.ainvoke(QUESTION, CONFIG)
        assert state["messages"][-1].text == "said"


async def test_other_errors_reach_the_caller_and_the_run_goes_on_where_it_was() -> None:
    node = Node(fails=[ValueError("a bug")])
    graph = compiled(graph_of(work=node), script("work"), [spec("work")])
    with pytest.raises(ValueError, match="a bug"):
        await graph.ainvoke(QUESTION, CONFIG)
    state = await graph.ainvoke(None, CONFIG)
    assert state["messages"][-1].text == "end"
    total = (await values_of(graph))["orchestra_ledger"]["tools"]["work"]
    assert (total["attempts"], total["dollars"]) == (2, pytest.approx(2 * ANSWERED))


def handled(handler: Any, *, terminal: bool, price: Price = PRICE, router: Any = None) -> tuple[Any, ScriptedRouter]:
    """A graph whose node `work` fails and has an error handler, beside the terminal `other`."""
    builder = graph_of(other=Node(Provider(text="other")))
    builder.add_node("work", Node(fails=[ValueError("a bug")] * 9), error_handler=handler)
    router = router or script("work", "other")
    lines = [spec("work", terminal=terminal, price=price), spec("other", terminal=True)]
    return compiled(builder, router, lines, budget=Budget(dollars=3.0)), router


async def test_an_error_handler_of_a_terminal_node_ends_the_run_with_what_it_returns() -> None:
    graph, _ = handled(lambda state: {"messages": [AIMessage("mended")]}, terminal=True)
    assert [message.text for message in (await graph.ainvoke(QUESTION, CONFIG))["messages"]] == ["q", "mended"]
    values = await values_of(graph)
    assert (values["orchestra_answer"], values["orchestra_stopped_by"]) == ("mended", "answer")
    assert values["orchestra_ledger"]["tools"]["work"]["dollars"] == pytest.approx(ANSWERED)


@pytest.mark.parametrize(("terminal", "goto"), [(False, ()), (False, "router"), (True, "router")])
async def test_an_error_handler_that_comes_back_tells_the_router(terminal: bool, goto: Any) -> None:
    command: Command[Any] = Command(update={"messages": [AIMessage("mended")]}, goto=goto)
    graph, router = handled(lambda state: command, terminal=terminal)
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "mended", "other"]
    assert router.prompts[1][-1].text.startswith("Error: ValueError: a bug\nmended")
    values = await values_of(graph)
    assert (len(values["orchestra_turns"]), values["orchestra_answer"]) == (2, "other")
    assert values["orchestra_ledger"]["dollars"] == pytest.approx(2 * ANSWERED)


async def test_an_error_handler_may_go_on_elsewhere() -> None:
    def handler(state: MessagesState, error: NodeError) -> Command[Any]:
        return Command(update={"messages": [AIMessage(f"{error.node} failed")]}, goto="other")

    graph, _ = handled(handler, terminal=False)
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert [message.text for message in state["messages"]] == ["q", "work failed", "other"]
    values = await values_of(graph)
    assert (len(values["orchestra_turns"]), values["orchestra_stopped_by"]) == (1, "answer")


async def test_calls_that_an_error_handler_answers_for_stay_within_the_budget() -> None:
    def handler(state: MessagesState) -> Command[Any]:
        return Command(goto="router")

    router = ScriptedRouter(lambda messages: ("work", {}))
    graph, _ = handled(handler, terminal=False, price=Price(per_call=1.0), router=router)
    assert (await graph.ainvoke(QUESTION, CONFIG))["messages"][-1].text == "other"
    values = await values_of(graph)
    total = values["orchestra_ledger"]["tools"]["work"]
    assert (values["orchestra_stopped_by"], total["calls"]) == ("dollars", 2)
    assert (total["dollars"], total["uncertain_dollars"]) == (0.0, 2.0)


async def test_what_an_error_handler_spends_is_charged_without_the_price_of_a_call() -> None:
    graph, _ = handled(Node(), terminal=True, price=PRICE.model_copy(update={"per_call": 0.25}))
    assert (await graph.ainvoke(QUESTION, CONFIG))["messages"][-1].text == "said"
    total = (await values_of(graph))["orchestra_ledger"]["tools"]["work"]
    assert (total["dollars"], total["uncertain_dollars"]) == (pytest.approx(2 * ANSWERED), pytest.approx(0.25))


async def test_a_stated_time_limit_holds() -> None:
    slow = Node(wait=5.0)
    router = script("slow", "fast")
    lines = [spec("slow", limits=Limits(timeout=0.05)), spec("fast", limits=Limits())]
    graph = compiled(graph_of(slow=slow, fast=Node()), router, lines)
    started = time.perf_counter()
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert time.perf_counter() - started < 4
    assert router.prompts[1][-1].text.startswith("Error: no reply within 0.05 s")
    assert [message.text for message in state["messages"]] == ["q", "said", "end"]


# Budgets.


async def test_a_spent_budget_ends_in_the_terminal_node_that_fits() -> None:
    search, answer, dear = Node(), Node(Provider(text="closed")), Node()
    lines = [
        spec("search", price=Price(per_call=0.3)),
        spec("answer", price=Price(per_call=0.2), terminal=True),
        spec("dear", price=Price(per_call=0.9), terminal=True),
    ]
    router = ScriptedRouter(lambda messages: ("search", {}))
    graph = compiled(graph_of(search=search, answer=answer, dear=dear), router, lines, budget=Budget(dollars=1.0))
    state = await graph.ainvoke(QUESTION, CONFIG)
    values = await values_of(graph)
    assert (search.runs, answer.runs, dear.runs) == (2, 1, 0)
    assert (state["messages"][-1].text, values["orchestra_stopped_by"]) == ("closed", "dollars")
    assert values["orchestra_ledger"]["dollars"] == pytest.approx(0.8)
    assert list(values["orchestra_turns"].values())[-1]["decision"]["by"] == "closing"


async def test_the_named_node_closes_and_another_one_when_it_fails() -> None:
    first, second = Node(fails=[ToolError("broken")]), Node(Provider(text="second"))
    lines = [spec("first", terminal=True), spec("second", terminal=True), spec("search", price=Price())]
    router = ScriptedRouter(lambda messages: ("search", {}))
    builder = graph_of(first=first, second=second, search=Node())
    graph = compiled(builder, router, lines, budget=Budget(turns=2), closing="first")
    state = await graph.ainvoke(QUESTION, CONFIG)
    values = await values_of(graph)
    assert (first.runs, second.runs, state["messages"][-1].text) == (1, 1, "second")
    assert values["orchestra_stopped_by"] == "turns"
    assert len(values["orchestra_turns"]) == 4


async def test_without_a_terminal_node_that_fits_the_graph_ends() -> None:
    search = Node()
    router = ScriptedRouter(lambda messages: ("search", {}))
    graph = compiled(graph_of(search=search), router, [spec("search")], budget=Budget(turns=2))
    state = await graph.ainvoke(QUESTION, CONFIG)
    values = await values_of(graph)
    assert [message.text for message in state["messages"]] == ["q", "said", "said"]
    assert (values["orchestra_answer"], values["orchestra_stopped_by"]) == ("said", "turns")


async def test_a_node_is_cut_off_when_the_runs_time_is_up_and_the_run_is_closed() -> None:
    lines = [spec("slow"), spec("answer", terminal=True)]
    builder = graph_of(slow=Node(wait=9.0), answer=Node(Provider(text="closed")))
    graph = compiled(builder, script("slow", "slow"), lines, budget=Budget(seconds=0.6))
    started = time.perf_counter()
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert time.perf_counter() - started < 3
    values = await values_of(graph)
    assert (state["messages"][-1].text, values["orchestra_stopped_by"]) == ("closed", "seconds")
    assert values["orchestra_ledger"]["wall_seconds"] < 1.5


async def test_a_node_that_no_time_limit_cuts_off_counts_with_the_time_that_it_took() -> None:
    def slow(state: MessagesState) -> dict[str, Any]:
        time.sleep(0.3)
        return {"messages": [AIMessage("late")]}

    lines = [spec("slow", price=Price()), spec("answer", terminal=True)]
    builder = graph_of(slow=slow, answer=lambda state: {"messages": [AIMessage("closed")]})
    graph = compiled(builder, script("slow", "slow"), lines, budget=Budget(seconds=0.1))
    graph.invoke(QUESTION, CONFIG)
    values = await values_of(graph)
    assert values["orchestra_stopped_by"] == "seconds"
    assert values["orchestra_ledger"]["wall_seconds"] >= 0.3


async def test_a_nested_orchestrator_gets_what_is_left() -> None:
    spender = Node(Provider(text="spent"))
    inner = create_orchestrator(
        ScriptedRouter(lambda messages: ("pay", {})),
        [Expert(Provider(text="no answer"), name="pay", role="chat", price=Price(per_call=0.3))],
    ).compile()

    async def work(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage((await inner.ainvoke(QUESTION))["stopped_by"])]}

    lines = [spec("spender", price=Price(per_call=0.5)), spec("work", terminal=True, price=Price())]
    builder = graph_of(spender=spender, work=work)
    graph = compiled(builder, script("spender", "work"), lines, budget=Budget(dollars=1.0))
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert state["messages"][-1].text == "dollars"
    assert (await values_of(graph))["orchestra_ledger"]["dollars"] == pytest.approx(0.8)


async def test_a_runs_budget_and_preferences_are_given_with_its_config() -> None:
    router = ScriptedRouter(lambda messages: ("search", {}))
    lines = [spec("search"), spec("answer", terminal=True), spec("other", terminal=True)]
    builder = graph_of(search=Node(), answer=Node(), other=Node(Provider(text="other")))
    graph = compiled(builder, router, lines, budget=Budget(turns=9))
    given = {"budget": {"turns": 1}, "preferences": {"never": ["answer"]}, "task": {"id": "t1"}}
    config: Any = {"configurable": {"thread_id": "1", "orchestra": given}}
    state = await graph.ainvoke(QUESTION, config)
    assert [message.text for message in state["messages"]] == ["q", "said", "other"]
    run = (await values_of(graph))["orchestra_run"]
    assert (run["budget"]["turns"], run["task"]) == (1, {"id": "t1"})
