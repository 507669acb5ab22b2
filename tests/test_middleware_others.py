"""The middleware among others, before and after each of them: what they ask models for is billed to these models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents.middleware import (
    AgentMiddleware,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.expert import Expert
from tests.agents import (
    SEARCH,
    Bench,
    Mode,
    Model,
    books,
    both,
    catalog,
    charges_of,
    cost,
    decisions,
    first_or_last,
    in_any_order,
    run,
    said,
)
from tests.agents import searches as reached

# Models.


@in_any_order
def test_a_fallback_is_billed_to_the_model_that_answered(first: bool, mode: Mode) -> None:
    bench = Bench("small", steps=1, small=["lost"])
    state = run(bench.agent(ModelFallbackMiddleware(bench.models["backup"]), first=first), mode)
    books(state, bench, search=SEARCH)
    assert bench.billed["backup"] == pytest.approx(cost("backup"))
    assert state["ledger"]["tools"]["small"]["uncertain_dollars"] >= cost("small")
    assert state["ledger"]["uncertain_dollars"] == state["ledger"]["tools"]["small"]["uncertain_dollars"]
    assert [called for by, called in decisions(state) if by == "router"] == [["small"], ["small"]]
    assert bench.router.books.requests == 2


@in_any_order
def test_a_fallback_of_no_line_is_priced_by_its_name(first: bool, mode: Mode) -> None:
    known = Model(model="gpt-4o-mini")
    bench = Bench("small", small=["invalid"])
    state = run(bench.agent(ModelFallbackMiddleware(known), first=first), mode)
    books(state, bench, **{"gpt-4o-mini": (100 * 0.15 + 10 * 0.6) / 1e6})
    assert said(state) == "answer of gpt-4o-mini"


@in_any_order
def test_a_router_that_is_down_leaves_the_step_to_the_fallback(first: bool, mode: Mode) -> None:
    bench = Bench(router=["invalid"])
    agent = bench.agent(ModelFallbackMiddleware(bench.models["backup"]), first=first)
    if first:  # the fallback is inside, so it never hears of the router
        with pytest.raises(Exception, match="the router's model failed"):
            run(agent, mode)
    else:
        state = run(agent, mode)
        books(state, bench)
        assert decisions(state) == [("fallback", ["backup"])]


@in_any_order
def test_every_try_of_a_retry_is_billed(first: bool, mode: Mode) -> None:
    bench = Bench("small", small=["lost", "refused"])
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False)
    state = run(bench.agent(retry, first=first), mode)
    books(state, bench)
    assert bench.models["small"].books.requests == 3
    assert bench.router.books.requests == 1
    statuses = [
        charge["status"] for charge in charges_of(state, "small") if "input_tokens" in charge or "error" in charge
    ]
    assert sorted(statuses)[-3:].count("paid") == 1
    assert "uncertain" in statuses


@in_any_order
def test_a_message_in_place_of_an_answer_closes_the_turn(first: bool, mode: Mode) -> None:
    bench = Bench("small", small=["lost"] * 2)
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False, on_failure="continue")
    state = run(bench.agent(retry, first=first), mode)
    books(state, bench)
    assert said(state).startswith("Model call failed")
    [turn] = state["turns"].values()
    assert [outcome["content"] for outcome in turn["outcomes"].values()] == [said(state)]
    assert state["ledger"]["tools"]["small"]["uncertain_dollars"] >= 2 * cost("small")


@in_any_order
@pytest.mark.parametrize("name", ["small", "gpt-4o-mini"])
def test_a_summary_is_billed_to_the_model_that_wrote_it(name: str, first: bool, mode: Mode) -> None:
    bench = Bench("large", steps=3)
    bench.models["large"].forgets = True
    writer = Model(model=name)
    summary = SummarizationMiddleware(writer, trigger=("messages", 4), keep=("messages", 2))
    state = run(bench.agent(summary, first=first), mode)
    price = cost("small") if name == "small" else (100 * 0.15 + 10 * 0.6) / 1e6
    assert writer.books.answered >= 1
    books(state, bench, **{name: writer.books.answered * price, "search": 3 * SEARCH})
    assert state["stopped_by"] == "answer"


@in_any_order
def test_the_question_survives_a_summary(first: bool, mode: Mode) -> None:
    bench = Bench("large", steps=2)
    bench.models["large"].forgets = True
    summary = SummarizationMiddleware(Model(model="small"), trigger=("messages", 3), keep=("messages", 2))
    run(bench.agent(summary, first=first), mode, "What is the capital?")
    assert all(any(m.text == "What is the capital?" for m in prompt) for prompt in bench.router.seen)
    assert len({prompt[0].text for prompt in bench.router.seen}) == 1


@in_any_order
def test_a_limit_on_model_calls_ends_the_run(first: bool, mode: Mode) -> None:
    bench = Bench("small", steps=9)
    state = run(bench.agent(ModelCallLimitMiddleware(run_limit=2), first=first), mode)
    books(state, bench, search=2 * SEARCH)
    assert "Model call limits exceeded" in said(state)
    assert bench.models["small"].books.requests == bench.router.books.requests == 2


@in_any_order
def test_a_limit_that_lets_nothing_through_ends_with_an_empty_ledger(first: bool, mode: Mode) -> None:
    bench = Bench("small")
    state = run(bench.agent(ModelCallLimitMiddleware(run_limit=0), first=first), mode)
    assert (state["ledger"]["dollars"], state["turns"]) == (0.0, {})


class Best(AgentMiddleware[Any, Any, Any]):
    """Asks several times at once, and takes one of the replies."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return (await asyncio.gather(*(handler(request) for _ in range(3))))[self.taken]


@first_or_last
@pytest.mark.parametrize("taken", [0, 2])
def test_every_one_of_several_replies_is_billed_and_the_router_decides_once(taken: int, first: bool) -> None:
    bench = Bench("small", "large", steps=1)
    state = run(bench.agent(Best(taken), first=first), "async")
    books(state, bench, search=SEARCH)
    assert (bench.models["small"].books.answered, bench.models["large"].books.answered) == (3, 3)
    assert bench.router.books.answered == 2
    assert decisions(state) == [("router", ["small"]), ("expert", ["search"]), ("router", ["large"])]


# Tools.


@in_any_order
def test_every_try_of_a_tool_is_billed(first: bool, mode: Mode) -> None:
    failures = iter([True, True, False])

    @tool
    def flaky(query: str) -> str:
        """Work the third time."""
        if next(failures):
            raise ConnectionError("gone")
        return "done"

    bench = Bench("small", steps=1)
    bench.models["small"].tool = "flaky"
    retry = ToolRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False)
    lines = Catalog.of(
        [*catalog().tools.values(), ToolSpec(name="flaky", price=Price(per_call=0.5))], router=catalog().router
    )
    state = run(bench.agent(retry, first=first, catalog=lines, build={"tools": [flaky]}), mode)
    books(state, bench, flaky=0.5)
    assert [charge["status"] for charge in charges_of(state, "flaky")] == ["uncertain", "uncertain", "paid"]
    assert state["ledger"]["tools"]["flaky"]["uncertain_dollars"] == pytest.approx(1.0)
    assert state["ledger"]["tools"]["flaky"]["calls"] == 1


@in_any_order
def test_a_tool_that_fails_for_good_is_billed(first: bool, mode: Mode) -> None:
    @tool
    def broken(query: str) -> str:
        """Break."""
        raise ConnectionError("gone")

    bench = Bench("small", steps=1)
    bench.models["small"].tool = "broken"
    retry = ToolRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False)
    lines = Catalog.of(
        [*catalog().tools.values(), ToolSpec(name="broken", price=Price(per_call=0.5))], router=catalog().router
    )
    state = run(bench.agent(retry, first=first, catalog=lines, build={"tools": [broken]}), mode)
    books(state, bench)
    assert state["ledger"]["tools"]["broken"]["uncertain_dollars"] == pytest.approx(1.0)
    turn = list(state["turns"].values())[1]
    assert [outcome["error"] for outcome in turn["outcomes"].values()] == [True]


@in_any_order
def test_calls_beyond_a_limit_are_not_billed(first: bool, mode: Mode) -> None:
    bench = Bench("small", steps=3)
    reached.clear()
    state = run(bench.agent(ToolCallLimitMiddleware(run_limit=1), first=first), mode)
    books(state, bench, search=SEARCH)
    assert len(reached) == 1
    outcomes = [o for t in state["turns"].values() if t["decision"]["by"] == "expert" for o in t["outcomes"].values()]
    assert [outcome["error"] for outcome in outcomes] == [False, True, True]


@in_any_order
def test_tools_that_write_into_the_state(first: bool, mode: Mode) -> None:
    bench = Bench("small")
    todos = [{"content": "c", "status": "pending"}]
    model = ScriptedRouter([("write_todos", {"todos": todos}), "done"])
    mine = bench.middleware(catalog=None)
    mine = type(mine)(bench.router, [Expert(model, name="small")], catalog=Catalog.of([], router=catalog().router))
    state = run(bench.agent(TodoListMiddleware(), first=first, mine=mine), mode)
    assert state["todos"] == todos
    assert decisions(state) == [("router", ["small"]), ("expert", ["write_todos"]), ("router", ["small"])]
    assert "todo" in next(iter(list(state["turns"].values())[1]["outcomes"].values()))["content"].lower()


@in_any_order
def test_what_others_do_to_results_is_kept(first: bool, mode: Mode) -> None:
    bench = Bench("small", steps=1)
    redact = PIIMiddleware("email", strategy="redact", apply_to_tool_results=True)

    @tool("search")
    def leaking(query: str) -> str:
        """Tell an address."""
        return "somebody@example.org"

    agent = bench.agent(redact, ContextEditingMiddleware(), first=first, build={"tools": [leaking]})
    state = run(agent, mode)
    books(state, bench, search=SEARCH)
    assert [m.text for m in state["messages"] if isinstance(m, ToolMessage)] == ["[REDACTED_EMAIL]"]
    assert "example.org" not in bench.router.seen[-1][-1].text


# A person.


@in_any_order
@pytest.mark.parametrize("interrupt_mode", ["batched", "per_call"])
@pytest.mark.parametrize("decision", ["approve", "edit", "reject"])
def test_a_person_decides_on_a_call(decision: str, interrupt_mode: Any, first: bool, mode: Mode) -> None:
    bench = Bench("small", "large", steps=1)
    person = HumanInTheLoopMiddleware({"search": True}, interrupt_mode=interrupt_mode)
    agent = bench.agent(person, first=first, build={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    reached.clear()
    waiting = run(agent, mode, config=config)
    assert "__interrupt__" in waiting
    assert (bench.router.books.requests, bench.models["small"].books.requests) == (1, 1)
    answer: dict[str, Any] = {"type": decision}
    if decision == "edit":
        answer["edited_action"] = {"name": "search", "args": {"query": "edited"}}
    given: Any = {"decisions": [answer]} if interrupt_mode == "batched" else answer
    state = run(agent, mode, Command(resume=given), config)
    assert reached == {"approve": ["q0"], "edit": ["edited"], "reject": []}[decision]
    books(state, bench, **({} if decision == "reject" else {"search": SEARCH}))
    assert (bench.router.books.requests, bench.models["small"].books.requests) == (2, 1)
    [outcome] = list(state["turns"].values())[1]["outcomes"].values()
    assert outcome["error"] == (decision == "reject")
    if not first:  # inside ours, nobody but the tool sees what it is called with
        assert outcome.get("args") == ({"query": "edited"} if decision == "edit" else None)


@both
def test_a_tool_that_asks_a_person_is_taken_up_again(mode: Mode) -> None:
    @tool("search")
    def asking(query: str) -> str:
        """Ask a person."""
        return str(interrupt("which?"))

    bench = Bench("small", "large", steps=1)
    agent = bench.agent(build={"tools": [asking], "checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    run(agent, mode, config=config)
    state = run(agent, mode, Command(resume="that one"), config)
    books(state, bench, search=SEARCH)
    assert [charge["status"] for charge in charges_of(state, "search")] == ["failed", "paid"]
