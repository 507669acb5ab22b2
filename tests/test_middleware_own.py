"""Middleware of one's own that asks a model, wherever it may: it is billed, once, to the model that answered."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelCallLimitMiddleware,
    SummarizationMiddleware,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from orchestra_graph.graph import create_orchestrator
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.agents import (
    PRICES,
    SEARCH,
    Bench,
    Mode,
    Model,
    books,
    both,
    cost,
    decisions,
    first_or_last,
    in_any_order,
    run,
    search,
)


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
