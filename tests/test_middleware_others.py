"""The middleware among others, before and after each of them: what they ask models for is billed to these models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
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
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.agents import (
    MODES,
    PRICES,
    SEARCH,
    Bench,
    Mode,
    Model,
    catalog,
    cost,
    decisions,
    ledger_of,
    run,
    said,
    search,
)
from tests.agents import searches as reached

both = pytest.mark.parametrize("mode", MODES)
first_or_last = pytest.mark.parametrize("first", [True, False], ids=["first", "last"])


def in_any_order(test: Callable[..., Any]) -> Callable[..., Any]:
    """Ours before the other one and after it, sync and async."""
    ordered: Callable[..., Any] = both(first_or_last(test))
    return ordered


def books(state: dict[str, Any], bench: Bench, **more: float) -> None:
    assert ledger_of(state) == pytest.approx({**bench.billed, **more})


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
        charge["status"] for charge in _charges(state, "small") if "input_tokens" in charge or "error" in charge
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
    assert [charge["status"] for charge in _charges(state, "flaky")] == ["uncertain", "uncertain", "paid"]
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
    assert [charge["status"] for charge in _charges(state, "search")] == ["failed", "paid"]


# Middleware of one's own that asks a model, wherever it may.


class Standing(AgentMiddleware[Any, Any, Any]):
    """Answers with a call of its own when all has failed."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        try:
            return handler(request)
        except Exception:
            return self._reply()

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        try:
            return await handler(request)
        except Exception:
            return self._reply()

    def _reply(self) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "search", "args": {"query": "own"}, "id": "own"}])


@both
def test_a_call_that_nobody_was_asked_for_is_a_turn_of_its_own(mode: Mode) -> None:
    bench = Bench("small", "large", small=["lost"])
    state = run(bench.agent(Standing(), first=False), mode)
    books(state, bench, search=SEARCH)
    assert decisions(state) == [("router", ["small"]), ("expert", ["search"]), ("router", ["large"])]
    assert state["ledger"]["tools"]["small"]["uncertain_dollars"] >= cost("small")
    keys = [key for turn in state["turns"].values() for key in turn["charges"]]
    assert len(keys) == len(set(keys))


class Twice(AgentMiddleware[Any, Any, Any]):
    """Does everything twice, and takes the second result."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        handler(request)
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        await handler(request)
        return await handler(request)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        handler(request)
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        await handler(request)
        return await handler(request)


@in_any_order
def test_what_is_done_twice_is_billed_twice(first: bool, mode: Mode) -> None:
    bench = Bench("small", steps=1)
    state = run(bench.agent(Twice(), first=first), mode)
    books(state, bench, search=2 * SEARCH)
    assert (bench.router.books.requests, bench.models["small"].books.requests) == (2, 4)


class Asking(AgentMiddleware[Any, Any, Any]):
    """Asks a model in one of the hooks."""

    def __init__(self, hook: str, model: Model) -> None:
        super().__init__()
        self.tools = []
        self.hook = hook
        self.model = model

    def _sync(self, hook: str) -> None:
        if hook == self.hook:
            self.model.invoke("Is that so?")

    async def _async(self, hook: str) -> None:
        if hook == self.hook:
            await self.model.ainvoke("Is that so?")

    def before_agent(self, state: Any, runtime: Any) -> None:
        self._sync("before_agent")

    async def abefore_agent(self, state: Any, runtime: Any) -> None:
        await self._async("before_agent")

    def before_model(self, state: Any, runtime: Any) -> None:
        self._sync("before_model")

    async def abefore_model(self, state: Any, runtime: Any) -> None:
        await self._async("before_model")

    def after_model(self, state: Any, runtime: Any) -> None:
        self._sync("after_model")

    async def aafter_model(self, state: Any, runtime: Any) -> None:
        await self._async("after_model")

    def after_agent(self, state: Any, runtime: Any) -> None:
        self._sync("after_agent")

    async def aafter_agent(self, state: Any, runtime: Any) -> None:
        await self._async("after_agent")

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self._sync("wrap_model_call")
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        await self._async("wrap_model_call")
        return await handler(request)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        self._sync("wrap_tool_call")
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        await self._async("wrap_tool_call")
        return await handler(request)


HOOKS = (
    "before_agent",
    "before_model",
    "after_model",
    "after_agent",
    "wrap_model_call",
    "wrap_tool_call",
)


@in_any_order
@pytest.mark.parametrize("hook", HOOKS)
def test_whatever_asks_a_model_is_billed_for_it(hook: str, first: bool, mode: Mode) -> None:
    if hook == "after_agent" and not first:
        pytest.skip("hooks after the agent run in reverse order: the books are closed by then")
    bench = Bench("small", steps=1)
    asked = Model(model="backup")
    state = run(bench.agent(Asking(hook, asked), first=first), mode)
    assert asked.books.answered == (2 if hook in ("before_model", "after_model", "wrap_model_call") else 1)
    books(state, bench, search=SEARCH, backup=asked.books.answered * cost("backup"))


@in_any_order
def test_a_request_of_others_that_fails_is_billed_as_far_as_it_may_cost(first: bool, mode: Mode) -> None:
    class Lenient(Asking):
        def before_model(self, state: Any, runtime: Any) -> None:
            with pytest.raises(Exception, match="reset"):
                self._sync("before_model")

        async def abefore_model(self, state: Any, runtime: Any) -> None:
            with pytest.raises(Exception, match="reset"):
                await self._async("before_model")

    bench = Bench("small")
    asked = Model(model="backup", script=["lost"])
    state = run(bench.agent(Lenient("before_model", asked), first=first), mode)
    books(state, bench)
    assert state["ledger"]["tools"]["backup"]["uncertain_dollars"] >= cost("backup")


@first_or_last
async def test_inside_an_orchestrator_a_summary_is_counted_once(first: bool) -> None:
    bench = Bench("large", steps=2)
    bench.models["large"].forgets = True
    writer = Model(model="small")
    summary = SummarizationMiddleware(writer, trigger=("messages", 3), keep=("messages", 2))
    agent = bench.agent(summary, first=first)
    line = Expert(Model(model="small"), name="small", price=PRICES["small"])
    outer = create_orchestrator(
        ScriptedRouter([("agent", {"request": "q"})]), [Subgraph(agent, name="agent", terminal=True), line]
    )
    state = await outer.compile().ainvoke({"messages": [HumanMessage("q")]})
    searched = state["ledger"]["tools"]["agent/search"]["dollars"]
    dollars = sum(bench.billed.values()) + writer.books.answered * cost("small") + searched
    assert writer.books.answered >= 1
    assert state["ledger"]["dollars"] == pytest.approx(dollars, abs=1e-12)


async def test_agents_in_one_run_have_their_own_requests_only() -> None:
    benches = [Bench("small", steps=1), Bench("large", steps=1)]
    writers = [Model(model="backup") for _ in benches]
    agents = [b.agent(Asking("before_model", w)) for b, w in zip(benches, writers, strict=True)]
    states: list[dict[str, Any]] = []

    @tool
    async def ask(query: str) -> str:
        """Ask both agents."""
        for agent in agents:
            states.append(await agent.ainvoke({"messages": [HumanMessage(query)]}))
        return "asked"

    model = ScriptedRouter([("ask", {"query": "q"}), "done"])
    outer = create_agent(model, [ask])
    await outer.ainvoke({"messages": [HumanMessage("q")]})
    for state, bench in zip(states, benches, strict=True):
        books(state, bench, search=SEARCH, backup=2 * cost("backup"))


def test_messages_of_others_stay_as_they_are() -> None:
    bench = Bench("small", steps=1)
    state = run(bench.agent(ModelCallLimitMiddleware(run_limit=9)), "sync")
    kinds = [type(message) for message in state["messages"]]
    assert kinds == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert search.name in [message.name for message in state["messages"]]


def _charges(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [c for turn in state["turns"].values() for c in turn["charges"].values() if c["tool"] == name]
