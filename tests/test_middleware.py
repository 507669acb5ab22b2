"""The middleware of `create_agent`: who answers, what it sees, what is charged, and what a run leaves behind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import HumanMessage
from langchain_core.tools import InjectedToolCallId, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolRuntime
from pydantic import BaseModel

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import ConfigError, MissingError, RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.routers import Cheapest, Fixed, Random, Rules
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.agents import SEARCH, Bench, Mode, Model, both, catalog, cost, decisions, ledger_of, run, said, search
from tests.provider import Provider, RefusedError

# Who answers, and what it sees.


@both
def test_the_router_chooses_an_expert_for_each_step(mode: Mode) -> None:
    bench = Bench("small", "large", steps=1)
    state = run(bench.agent(), mode)
    assert decisions(state) == [("router", ["small"]), ("expert", ["search"]), ("router", ["large"])]
    assert said(state) == "answer of large"
    assert bench.default.books.requests == 0
    assert state["stopped_by"] == "answer"


@both
def test_the_ledger_is_what_the_providers_billed(mode: Mode) -> None:
    bench = Bench("small", "large", "large", steps=2)
    state = run(bench.agent(), mode)
    assert ledger_of(state) == pytest.approx({**bench.billed, "search": 2 * SEARCH})
    assert state["ledger"]["dollars"] == pytest.approx(sum(bench.billed.values()) + 2 * SEARCH, abs=1e-12)
    calls = {name: account["calls"] for name, account in state["ledger"]["tools"].items()}
    assert calls == {"router": 3, "small": 1, "search": 2, "large": 2}


@both
def test_the_expert_sees_the_tools_that_the_router_shows(mode: Mode) -> None:
    @tool
    def other(query: str) -> str:
        """Do something else."""
        return query

    expert = ScriptedRouter(lambda messages: "done")
    router = ScriptedRouter([("one", {"tools": ["other"]}), ("one", {}), ("one", {"tools": []})])
    middleware = OrchestraMiddleware(router, [Expert(expert, name="one")])
    agent = create_agent(Model(model="default"), [search, other], middleware=[middleware])
    shown = []
    for _ in range(3):
        expert.tools = []
        run(agent, mode)
        shown.append([function["function"]["name"] for function in expert.tools])
    assert shown == [["other"], ["search", "other"], []]


def test_the_router_reads_prices_tools_and_results() -> None:
    bench = Bench("small", "large", steps=1)
    run(bench.agent(preferences=Preferences(text="be quick")), "sync")
    first, second = bench.router.seen
    assert all(
        text in first[0].text for text in ("- search: Look something up.", "small | expert | 1 | 10", "be quick")
    )
    assert "search | function | 0 | 0 | 0.01" in first[0].text
    assert second[: len(first)] == first
    assert [message.text for message in second[len(first) :]] == [
        "because",
        'Calls: search({"query": "q0"})',
        "",
        "result of q0",
    ]


def test_a_tool_that_is_not_there_is_a_malformed_call() -> None:
    bench = Bench(("small", {"tools": ["delete"]}), "large")
    state = run(bench.agent(), "sync")
    assert decisions(state) == [("router", []), ("router", ["large"])]
    assert "delete" in state["turns"][next(iter(state["turns"]))]["decision"]["problem"]["detail"]


@both
def test_rules_take_over_from_a_router_that_calls_nothing(mode: Mode) -> None:
    bench = Bench("I do not know.", steps=1)
    state = run(bench.agent(), mode)
    by = [by for by, _ in decisions(state)]
    assert by == ["router"] * 3 + ["fallback", "expert"] + ["router"] * 3 + ["fallback"]
    assert said(state).startswith("answer of")
    assert ledger_of(state)["router"] == pytest.approx(6 * cost("router"))


def test_without_a_fallback_the_run_ends_there() -> None:
    bench = Bench("I do not know.")
    state = run(bench.agent(fallback=None), "sync")
    assert state["stopped_by"] == "router"
    assert said(state).startswith("The run was stopped: its router chose no expert.")


@both
@pytest.mark.parametrize(
    ("router", "name"),
    [(Cheapest(), "small"), (Fixed(tool="large"), "large"), (Rules(), "small"), (Random(seed=1), None)],
)
def test_programs_decide_every_step(router: Any, name: str | None, mode: Mode) -> None:
    bench = Bench(steps=4)
    agent = bench.agent(mine=OrchestraMiddleware(router, bench.models, catalog=catalog()))
    state = run(agent, mode)
    chosen = [called for by, called in decisions(state) if by == "router"]
    assert len(chosen) == 5
    assert name is None or chosen == [[name]] * 5


def test_preferences_rule_an_expert_out() -> None:
    bench = Bench("small", "large")
    state = run(bench.agent(preferences=Preferences(never=("small",))), "sync")
    assert decisions(state) == [("router", []), ("router", ["large"])]


@both
def test_answers_in_a_form_of_their_own(mode: Mode) -> None:
    class Number(BaseModel):
        """A number."""

        value: int

    model = ScriptedRouter([("search", {"query": "q"}), ("Number", {"value": 42})])
    middleware = OrchestraMiddleware(Cheapest(), [Expert(model, name="one", price=Price(input=1.0, output=1.0))])
    agent = create_agent(
        Model(model="default"), [search], middleware=[middleware], response_format=ToolStrategy(Number)
    )
    state = run(agent, mode)
    assert state["structured_response"] == Number(value=42)
    assert decisions(state) == [("router", ["one"]), ("expert", ["search"]), ("router", ["one"])]


# Failures.


@both
def test_an_expert_that_fails_is_charged_and_its_fallback_answers(mode: Mode) -> None:
    bench = Bench("small", small=["lost"])
    state = run(bench.agent(fallbacks={"small": ("backup", "large")}), mode)
    assert said(state) == "answer of backup"
    assert ledger_of(state) == pytest.approx(bench.billed)
    accounts = state["ledger"]["tools"]
    assert accounts["small"]["uncertain_dollars"] >= cost("small")
    assert (accounts["small"]["calls"], accounts["backup"]["calls"]) == (0, 1)
    assert state["ledger"]["attempts"] == 3


@both
def test_an_expert_that_fails_without_a_fallback_fails_the_agent(mode: Mode) -> None:
    bench = Bench("small", small=["invalid"])
    with pytest.raises(RefusedError, match="no such model"):
        run(bench.agent(), mode)


@both
def test_a_step_that_failed_is_resumed_without_asking_the_router_again(mode: Mode) -> None:
    bench = Bench("small", small=["lost"])
    agent = bench.agent(build={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(Exception, match="reset"):
        run(agent, mode, config=config)
    state = run(agent, mode, None, config)
    assert bench.router.books.requests == 1
    assert ledger_of(state) == pytest.approx(bench.billed)
    assert state["ledger"]["tools"]["small"]["uncertain_dollars"] > 0


@both
def test_a_router_that_is_refused_for_good_stops_the_run(mode: Mode, tmp_path: Path) -> None:
    bench = Bench(router=["invalid"])
    with pytest.raises(RouterError, match="no such model"):
        run(bench.agent(run_log=RunLog(tmp_path / "runs.jsonl")), mode)


# Tools.


@both
def test_a_tool_that_fails_is_charged_as_uncertain(mode: Mode) -> None:
    @tool
    def broken(query: str) -> str:
        """Break."""
        raise ConnectionError("gone")

    bench = Bench("small", steps=1)
    bench.models["small"].tool = "broken"
    lines = Catalog.of([*catalog().tools.values(), ToolSpec(name="broken", price=Price(per_call=0.5))])
    agent = bench.agent(catalog=lines, build={"tools": [broken], "checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    for _ in range(2):
        with pytest.raises(ConnectionError):
            run(agent, mode, "How many?" if _ == 0 else None, config)
    charges = agent.get_state(config).values["turns"]
    assert [turn["decision"]["by"] for turn in charges.values()] == ["router", "expert"]


@both
def test_a_call_with_wrong_arguments_costs_what_was_tried(mode: Mode) -> None:
    model = ScriptedRouter([("search", {"wrong": 1}), "done"])
    agent = create_agent(
        Model(model="default"), [search], middleware=[OrchestraMiddleware(Cheapest(), [Expert(model, name="one")])]
    )
    state = run(agent, mode)
    turn = list(state["turns"].values())[1]
    assert [outcome["error"] for outcome in turn["outcomes"].values()] == [True]


@both
def test_an_orchestrator_as_a_tool_joins_the_ledger(mode: Mode) -> None:
    inner = Provider()
    graph = create_orchestrator(
        ScriptedRouter([("solver", {})]),
        [Expert(inner, name="solver", price=Price(input=10.0, output=100.0))],
    ).compile()

    @tool
    async def ask(query: str) -> str:
        """Ask another orchestrator."""
        return str((await graph.ainvoke({"messages": [HumanMessage(query)]}))["messages"][-1].text)

    @tool
    def ask_sync(query: str) -> str:
        """Ask another orchestrator."""
        return str(graph.invoke({"messages": [HumanMessage(query)]})["messages"][-1].text)

    bench = Bench("small", steps=1)
    used = ask_sync if mode == "sync" else ask
    bench.models["small"].tool = used.name
    state = run(bench.agent(build={"tools": [used]}), mode)
    assert ledger_of(state) == pytest.approx({**bench.billed, f"{used.name}/solver": cost("large")})
    assert inner.books.answered == 1


async def test_an_agent_is_a_tool_of_an_orchestrator() -> None:
    bench = Bench("small", steps=1)
    outer = create_orchestrator(ScriptedRouter([("agent", {"request": "q"})]), [_as_tool(bench.agent())])
    state = await outer.compile().ainvoke({"messages": [HumanMessage("How many?")]})
    assert state["answer"] == "answer of small"
    dollars = sum(bench.billed.values()) + SEARCH
    assert state["ledger"]["dollars"] == pytest.approx(dollars, abs=1e-12)
    assert state["ledger"]["tools"]["agent/small"]["dollars"] == pytest.approx(2 * cost("small"))


async def test_an_agent_that_an_orchestrator_calls_stays_within_what_it_is_given() -> None:
    bench = Bench("large", steps=50)
    outer = create_orchestrator(ScriptedRouter([("agent", {"request": "q"})]), [_as_tool(bench.agent())])
    state = await outer.compile().ainvoke({"messages": [HumanMessage("q")]}, context={"budget": {"dollars": 0.05}})
    assert state["ledger"]["dollars"] < 0.05 + cost("large") + SEARCH
    assert bench.models["large"].books.requests < 10


def _as_tool(agent: Any) -> Subgraph:
    return Subgraph(agent, name="agent", terminal=True)


# What does not fit together.


class Answering(ConversationProtocol):
    answers = True


@pytest.mark.parametrize(
    ("experts", "options", "match"),
    [
        ({}, {}, "experts is empty"),
        ([Model(model="m")], {}, r"expected Expert\(model, name=...\)"),
        ({"one": 3}, {}, r"experts\['one'\] = 3; expected a chat model"),
        ([Expert(ScriptedExpert("x"), name="one", role="code")], {}, "has role 'code', which is a tool"),
        ([Expert(ScriptedExpert("x"), name="one")] * 2, {}, "two experts are named 'one'"),
        ({"router": ScriptedExpert("x")}, {}, "reserved"),
        ({"one": ScriptedExpert("x")}, {"catalog": catalog()}, "'small', 'large', 'backup' without a model"),
        ({"one": ScriptedExpert("x")}, {"closing": "two"}, "closing = 'two'"),
        ({"one": ScriptedExpert("x")}, {"preferences": Preferences(never=("two",))}, "preferences name 'two'"),
        ({"one": ScriptedExpert("x")}, {"budget": 3}, "budget = 3; expected Budget"),
        ({"one": ScriptedExpert("x")}, {"protocol": Answering()}, "lets the router answer by itself"),
    ],
)
def test_what_does_not_fit_together_is_refused(experts: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=match):
        OrchestraMiddleware(Cheapest(), experts, **options)


def test_a_thread_whose_run_began_without_it_is_refused() -> None:
    saver, bench = InMemorySaver(), Bench("small", steps=1)
    config: Any = {"configurable": {"thread_id": "1"}}
    before = create_agent(bench.models["small"], [search], checkpointer=saver, interrupt_before=["tools"])
    before.invoke({"messages": [HumanMessage("q")]}, config)
    with pytest.raises(ConfigError, match="began without OrchestraMiddleware"):
        run(bench.agent(build={"checkpointer": saver}), "sync", None, config)


def test_without_langchain_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents", None)
    monkeypatch.delitem(sys.modules, "orchestra_graph.middleware")
    with pytest.raises(MissingError, match=r"orchestra-graph\[agents\]"):
        importlib.import_module("orchestra_graph.middleware")


# Tools of all sorts.


@both
def test_tools_are_given_what_they_ask_the_agent_for(mode: Mode) -> None:
    @tool
    def curious(query: str, runtime: ToolRuntime, call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Look at the agent."""
        return f"{query} {len(runtime.state['messages'])} {call_id}"

    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    remote = StructuredTool(name="remote", description="Far.", args_schema=schema, func=lambda query: f"far {query}")
    model = ScriptedRouter([[("curious", {"query": "a"}), ("remote", {"query": "b"})], "done"])
    middleware = OrchestraMiddleware(Cheapest(), [Expert(model, name="one")])
    state = run(create_agent(Model(model="default"), [curious, remote], middleware=[middleware]), mode)
    [results] = [turn["outcomes"] for turn in state["turns"].values() if turn["decision"]["by"] == "expert"]
    assert [outcome["content"] for outcome in results.values()] == ["a 2 call_0", "far b"]


def test_an_expert_may_be_named_as_create_agent_names_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    bench = Bench("named")
    lines = Catalog.of([], router=catalog().router)
    mine = OrchestraMiddleware(bench.router, {"named": "openai:gpt-4o-mini"}, catalog=lines, budget=Budget(dollars=0.0))
    state = run(bench.agent(mine=mine), "sync")
    assert state["stopped_by"] == "dollars"
