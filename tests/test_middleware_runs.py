"""A run of an agent with the middleware: its log, its books, its budget, and another process that takes it up."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from langchain.agents.middleware import AgentMiddleware, hook_config
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.testing import ScriptedRouter
from tests.agents import SEARCH, Bench, Mode, Model, both, cost, decisions, ledger_of, run, said
from tests.runs import read


@both
def test_the_log_holds_the_run(mode: Mode, tmp_path: Path) -> None:
    bench = Bench("small", "large", steps=1)
    state = run(bench.agent(run_log=RunLog(tmp_path / "runs.jsonl")), mode, context={"task": {"id": "t1"}})
    [logged], _ = read(tmp_path / "runs.jsonl")
    assert logged.turns == list(state["turns"].values())
    assert logged.totals == state["ledger"]
    assert (logged.answer, logged.stopped_by, logged.task.id) == ("answer of large", "answer", "t1")
    assert logged.protocol == "conversation"
    assert list((tmp_path / "runs.jsonl.spool").glob("*.jsonl")) == []


@both
def test_a_second_question_on_the_thread_starts_at_zero(mode: Mode) -> None:
    bench = Bench("small", steps=1)
    agent = bench.agent(build={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    run(agent, mode, config=config)
    state = run(agent, mode, "And now?", config)
    assert decisions(state) == [("router", ["small"])]
    assert ledger_of(state) == {"router": cost("router"), "small": cost("small")}
    assert [message.text for message in bench.router.seen[-1][1:]] == ["How many?", "answer of small", "And now?"]


@both
def test_the_state_is_plain_json(mode: Mode) -> None:
    bench = Bench("small", steps=1)
    agent = bench.agent(build={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    run(agent, mode, config=config)
    values = agent.get_state(config).values
    plain = {key: values[key] for key in ("run", "turns", "ledger", "stopped_by")}
    assert json.loads(json.dumps(plain)) == plain
    assert all(json.dumps(message.response_metadata) for message in values["messages"])


def test_the_input_is_as_it_was_and_the_output_has_the_books() -> None:
    agent = Bench().agent()
    assert set(agent.get_input_jsonschema()["properties"]) == {"messages"}
    output = set(agent.get_output_jsonschema()["properties"])
    assert output == {"messages", "structured_response", "turns", "ledger", "stopped_by"}


@dataclass
class Context:
    """A context of the user's own."""

    user: str
    budget: dict[str, Any]


@dataclass(slots=True)
class SlottedContext:
    """One whose objects have no `__dict__`."""

    budget: dict[str, Any]


@both
@pytest.mark.parametrize(
    "given", [Context("u", {"turns": 1}), SlottedContext({"turns": 1}), {"user": "u", "budget": {"turns": 1}}]
)
def test_a_run_is_given_its_budget_by_the_agents_context(given: Any, mode: Mode) -> None:
    bench = Bench("large", steps=1)
    state = run(bench.agent(), mode, context=given)
    assert state["stopped_by"] == "turns"


@both
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"preferences": "dark"}, "the context's preferences: preferences = 'dark': .*"),
        ({"preferences": {"theme": "dark"}}, "the context's preferences: theme = 'dark': .*"),
        (SlottedContext(cast("Any", 7)), "the context's budget: budget = 7: .*"),
        ({"task": "translate"}, "the context's task: task = 'translate': .*"),
    ],
)
def test_a_field_of_the_users_own_under_a_name_of_ours_is_told_with_the_fix(
    given: Any, problem: str, mode: Mode
) -> None:
    fix = "; orchestra reads preferences, budget, task of the context: a field of your own needs another name"
    with pytest.raises(ConfigError, match=problem + fix):
        run(Bench("small").agent(), mode, context=given)


async def test_concurrent_runs_have_a_ledger_each() -> None:
    bench = Bench("small", steps=2)
    agent = bench.agent()
    states = await asyncio.gather(*(agent.ainvoke({"messages": [HumanMessage(f"q{n}")]}) for n in range(30)))
    each = {"router": 3 * cost("router"), "small": 3 * cost("small"), "search": 2 * SEARCH}
    assert all(ledger_of(state) == pytest.approx(each) for state in states)
    assert sum(bench.billed.values()) == pytest.approx(30 * (each["router"] + each["small"]))


def test_concurrent_threads_have_a_ledger_each() -> None:
    bench = Bench("small", steps=2)
    agent = bench.agent()
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda n: run(agent, "sync", f"q{n}"), range(16)))
    each = {"router": 3 * cost("router"), "small": 3 * cost("small"), "search": 2 * SEARCH}
    assert all(ledger_of(state) == pytest.approx(each) for state in states)


async def test_what_happens_is_streamed_and_the_router_is_not_heard() -> None:
    bench = Bench("small", steps=1)
    agent = bench.agent()
    given = {"messages": [HumanMessage("q")]}
    events = [event async for event in agent.astream(given, stream_mode="custom") if event["type"] != "charge"]
    kinds = [event["type"] for event in events]
    assert kinds == ["decision", "outcome", "decision", "outcome", "decision", "outcome", "answer"]
    charged = sum(charge["dollars"] for event in events[:-1] for charge in event["charges"].values())
    assert charged == pytest.approx(events[-1]["ledger"]["dollars"])
    heard = [message.text async for message, _ in agent.astream(given, stream_mode="messages")]
    assert "answer of small" in heard
    assert "because" not in heard


def test_a_synchronous_stream_tells_the_same() -> None:
    agent = Bench("small", steps=1).agent()
    events = list(agent.stream({"messages": [HumanMessage("q")]}, stream_mode="custom"))
    assert [event["type"] for event in events].count("outcome") == 3


# Another process takes a run up.


@both
def test_another_process_finds_in_the_log_what_was_paid(mode: Mode, tmp_path: Path) -> None:
    saver, log = InMemorySaver(), RunLog(tmp_path / "runs.jsonl")
    bench = Bench("small", small=["lost"])
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(Exception, match="reset"):
        run(bench.agent(run_log=log, build={"checkpointer": saver}), mode, config=config)
    later = bench.agent(run_log=RunLog(tmp_path / "runs.jsonl"), build={"checkpointer": saver})
    state = run(later, mode, None, config)
    assert ledger_of(state) == pytest.approx(bench.billed)
    assert bench.router.books.answered == 2
    assert state["ledger"]["tools"]["small"]["uncertain_dollars"] >= cost("small")


@both
def test_another_process_finds_in_the_result_what_the_tool_cost(mode: Mode) -> None:
    saver, bench = InMemorySaver(), Bench("small", steps=1)
    config = {"configurable": {"thread_id": "1"}}
    run(bench.agent(build={"checkpointer": saver, "interrupt_after": ["tools"]}), mode, config=config)
    state = run(bench.agent(build={"checkpointer": saver}), mode, None, config)
    assert ledger_of(state) == pytest.approx({**bench.billed, "search": SEARCH})


def swarm(bench: Bench, update: Any, log: RunLog) -> Any:
    """An agent whose tool hands over to another node of the graph around it."""

    @tool
    def search(query: str, runtime: ToolRuntime) -> Command[Any]:
        """Hand over."""
        return Command(goto="other", graph=Command.PARENT, update=update(runtime))

    builder = StateGraph(MessagesState)
    builder.add_node("agent", bench.agent(run_log=log, build={"tools": [search]}), destinations=("other",))
    builder.add_node("other", lambda state: {"messages": [AIMessage("the other's answer")]})
    builder.add_edge(START, "agent")
    return builder.compile()


UPDATES = {
    "whole": lambda r: {"messages": [*r.state["messages"], ToolMessage("to the other", tool_call_id=r.tool_call_id)]},
    "none": lambda r: None,
}


@both
@pytest.mark.parametrize(("update", "answer"), [("whole", "to the other"), ("none", "handed over")])
def test_an_agent_that_hands_over_closes_its_books(update: str, answer: str, mode: Mode, tmp_path: Path) -> None:
    log, bench = RunLog(tmp_path / "runs.jsonl"), Bench("small", steps=1)
    graph = swarm(bench, UPDATES[update], log)
    state = run(graph, mode)
    assert said(state) == "the other's answer"
    [logged], _ = read(log.path)
    assert (logged.answer, logged.stopped_by, len(logged.turns)) == (answer, "answer", 2)
    assert logged.totals is not None
    assert logged.totals["dollars"] == pytest.approx(cost("router") + cost("small") + SEARCH)
    assert list((tmp_path / "runs.jsonl.spool").glob("*.jsonl")) == []
    given = {"messages": [HumanMessage("How many?")]}
    events = [part["type"] for _, part in graph.stream(given, stream_mode="custom", subgraphs=True)]
    assert events[-2:] == ["outcome", "answer"]


@both
def test_of_two_tools_that_hand_over_both_are_charged(mode: Mode, tmp_path: Path) -> None:
    log, bench = RunLog(tmp_path / "runs.jsonl"), Bench("small")
    twice = ScriptedRouter([[("search", {"query": "a"}), ("search", {"query": "b"})]])
    bench.models["small"] = cast("Model", twice)
    run(swarm(bench, UPDATES["none"], log), mode)
    [logged], _ = read(log.path)
    assert logged.totals is not None
    assert logged.totals["tools"]["search"]["dollars"] == pytest.approx(2 * SEARCH)


class Insistent(AgentMiddleware[Any, Any, Any]):
    """Has the agent try again when it has ended."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    @hook_config(can_jump_to=["model"])
    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        self.times -= 1
        return {"messages": [HumanMessage("Try again.")], "jump_to": "model"} if self.times >= 0 else None


@both
@pytest.mark.parametrize("times", [1, 2])
def test_an_agent_that_goes_on_after_its_end_keeps_its_books(times: int, mode: Mode, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    bench = Bench("small")
    state = run(bench.agent(Insistent(times), first=False, run_log=log), mode)
    assert ledger_of(state) == pytest.approx(
        {"router": (times + 1) * cost("router"), "small": (times + 1) * cost("small")}
    )
    [logged], _ = read(tmp_path / "runs.jsonl")
    assert (logged.totals, len(logged.turns)) == (state["ledger"], times + 1)
    assert list((tmp_path / "runs.jsonl.spool").glob("*.jsonl")) == []


class Guard(AgentMiddleware[Any, Any, Any]):
    """Lets no question through that has a word in it."""

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        if "bomb" not in state["messages"][-1].text:
            return None
        return {"messages": [AIMessage("I cannot.")], "jump_to": "end"}


@both
def test_a_question_that_another_middleware_turned_away_is_no_run(mode: Mode, tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    bench = Bench("small")
    agent = bench.agent(Guard(), first=False, run_log=RunLog(log), build={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    for question in ("A bomb?", "How many?", "A bomb?", "Another bomb?"):
        state = run(agent, mode, question, config)
        turned_away = "bomb" in question
        assert said(state) == ("I cannot." if turned_away else "answer of small")
        assert (state["ledger"] is None, state["turns"] == {}) == (turned_away, turned_away)
    [logged], report = read(log)
    assert (logged.task.question, logged.answer, report.lines) == ("How many?", "answer of small", 1)
