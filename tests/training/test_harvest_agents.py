"""Agents of `create_agent` with the middleware, and runs that were resumed, which have parts in other traces.

Out of real traces: what has ended in one comes back whole, the rest is counted.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, hook_config
from langchain.agents.structured_output import ToolStrategy
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command, interrupt
from orchestra_training.datasets.build import build
from orchestra_training.datasets.source import logs_of
from orchestra_training.groups import group_id
from orchestra_training.harvest.checkpoints import SqliteSource
from pydantic import BaseModel

from orchestra_graph import RunLog, create_orchestrator
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.routers import Cheapest
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.state import NO_ANSWER
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.subgraph import Subgraph
from tests.agents import MODES, Bench, Mode, run
from tests.commands import Orchestra
from tests.commands import orchestra as orchestra
from tests.langsmith_recorder import Recorder
from tests.test_lang_smith import ARGS, question, search
from tests.training.test_harvest_langsmith import Interface, export, interface, read, recorder, source, traced

__all__ = ["interface", "orchestra", "recorder"]  # fixtures


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_that_has_ended_comes_back_whole(
    recorder: Recorder, interface: Interface, mode: Mode, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    about = {"id": "t1", "group_id": "g", "purpose": "train"}
    agent = Bench("small", "large", steps=1).agent(run_log=log)
    traced(recorder, lambda: run(agent, mode, context={"task": about}))
    [found], report = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert [turn["decision"]["by"] for turn in found.turns] == ["router", "expert", "router"]
    same = (
        "run_id",
        "task",
        "group_id",
        "purpose",
        "policy",
        "protocol",
        "started_at",
        "answer",
        "stopped_by",
        "ended",
    )
    assert {name: getattr(found, name) for name in same} == {name: getattr(live, name) for name in same}
    assert (found.turns, found.totals, group_id(found)) == (live.turns, live.totals, group_id(live))
    assert (report.runs, report.skipped) == (1, {})


class Number(BaseModel):
    """A number."""

    value: int


class Stop(AgentMiddleware[Any, Any, Any]):
    """Ends the agent before its model is asked."""

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"jump_to": "end"}


@tool(return_direct=True)
def direct(query: str) -> str:
    """Answer."""
    return f"result of {query}"


@pytest.mark.parametrize(
    ("said", "options", "answer"),
    [
        (("Number", {"value": 42}), {"response_format": ToolStrategy(Number)}, '{"value": 42}'),
        (("direct", {"query": "q"}), {"tools": [direct]}, "result of q"),
        ("42", {"others": [Stop()]}, NO_ANSWER),
    ],
)
def test_all_sources_agree_on_the_answer_however_the_agent_ended(
    recorder: Recorder, interface: Interface, said: Any, options: dict[str, Any], answer: str, tmp_path: Path
) -> None:
    log, path, expert = RunLog(tmp_path / "runs.jsonl"), tmp_path / "runs.sqlite", ScriptedRouter([said])
    middleware = [OrchestraMiddleware(Cheapest(), {"small": expert}, run_log=log), *options.get("others", ())]
    build = {name: value for name, value in options.items() if name != "others"}
    with SqliteSaver.from_conn_string(str(path)) as saver:
        agent = create_agent(expert, middleware=middleware, checkpointer=saver, **build)
        traced(recorder, lambda: run(agent, "sync", config={"configurable": {"thread_id": "one"}}))
    found = [*read_runs(log.path), *read(SqliteSource(path))[0], *read(source(recorder, interface))[0]]
    assert [run.answer for run in found] == [answer] * 3


def test_an_agent_that_failed_is_counted_and_told(
    recorder: Recorder, interface: Interface, orchestra: Orchestra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Bench("small", small=["lost"]).agent()

    def failing() -> None:
        with pytest.raises(Exception, match="reset"):
            run(agent, "sync")

    traced(recorder, failing)
    traced(recorder, lambda: run(agent, "sync"))
    found, report = read(source(recorder, interface))
    assert (len(found), report.runs, report.skipped) == (1, 1, {"agent_not_ended": 1})
    export(recorder, tmp_path / "traces.parquet")
    done = orchestra("harvest", "--from", "traces.parquet", "--to", "data", "--test-share", 0)
    assert done.code == 0, done.err
    assert "1 agent_not_ended" in done.out
    assert "agent_not_ended: an agent that failed, waits or goes on" in done.err
    build("grpo", logs_of(tmp_path / "data"), tmp_path / "tasks")
    assert "| harvest | agent_not_ended | 1 |" in (tmp_path / "tasks" / "README.md").read_text()


def test_logs_and_an_export_in_one_folder_are_both_read(
    recorder: Recorder, orchestra: Orchestra, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "all" / "runs.jsonl")
    traced(recorder, lambda: run(Bench("small").agent(run_log=log), "sync"))
    traced(recorder, lambda: run(Bench("small").agent(), "sync"))
    export(recorder, tmp_path / "all" / "traces.parquet")
    told = orchestra("harvest", "--from", "all", "--to", "data", "--json").json
    assert (told["runs"], told["written"]) == (2, {"all/runs.jsonl": 1, "all": 1})


def test_an_agent_that_waited_is_in_the_trace_in_which_it_ended(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    asks = HumanInTheLoopMiddleware({"search": True})
    agent = Bench("small", steps=1).agent(asks, run_log=log, build={"checkpointer": InMemorySaver()})
    config: Any = {"configurable": {"thread_id": "one"}}
    traced(recorder, lambda: run(agent, "sync", config=config))
    approved: Any = Command(resume={"decisions": [{"type": "approve"}]})
    traced(recorder, lambda: run(agent, "sync", approved, config))
    [found], report = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert (found.run_id, found.turns, found.totals) == (live.run_id, live.turns, live.totals)
    assert (report.read, report.skipped) == (2, {"agent_not_ended": 1})


def test_an_orchestrator_that_waited_is_counted_in_both_traces(recorder: Recorder, interface: Interface) -> None:
    def careful(question: str) -> str:
        """Asks a person."""
        return str(interrupt(question))

    for script in ([("careful", {"question": "?"})], [("search", ARGS["search"]), ("careful", {"question": "?"})]):
        router = ScriptedRouter([*script, ("final_answer", {"answer": "7"})])
        graph = create_orchestrator(router, [search, careful]).compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "one"}}
        traced(recorder, partial(graph.invoke, question(), config))
        traced(recorder, partial(graph.invoke, Command(resume="yes"), config))
    runs, report = read(source(recorder, interface))
    assert runs == []
    assert report.skipped == {"not_ended": 2, "earlier_parts": 2}


def test_an_agent_in_a_call_is_in_the_run_around_it_or_counted(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    inner = Subgraph(Bench("small", steps=1).agent(), name="inner", terminal=True)
    router = ScriptedRouter([("inner", {"request": "do it"})])
    graph = create_orchestrator(router, [inner], run_log=log).compile()
    traced(recorder, lambda: asyncio.run(graph.ainvoke(question())))
    [found], report = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert report.skipped == {}
    assert found.totals == live.totals
    (mine,), (theirs,) = found.runs.values(), live.runs.values()
    assert (mine.turns, mine.parent, mine.answer) == (theirs.turns, theirs.parent, theirs.answer)

    # Traces of earlier releases do not state the call.
    stated = {each["extra"]["metadata"].pop("parent", None) for each in recorder.runs.values()}
    assert stated == {None, mine.parent}
    [found], _ = read(source(recorder, interface))
    assert found.runs.keys() == {mine.run_id}

    for each in recorder.runs.values():
        if (each.get("outputs") or {}).get("turns") and each["extra"]["metadata"].get("run") == mine.run_id:
            each["outputs"]["turns"].popitem()
    [found], report = read(source(recorder, interface))
    assert (found.totals, found.runs) == (live.totals, {})
    assert report.skipped == {"earlier_parts": 1}


def test_an_agent_in_an_agents_tool_is_in_the_run_around_it(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    inner = Bench("small").agent()

    @tool
    def search(query: str) -> str:
        """Ask another agent."""
        return str(inner.invoke({"messages": [("user", query)]})["messages"][-1].text)

    log = RunLog(tmp_path / "runs.jsonl")
    agent = Bench("large", steps=1).agent(run_log=log, build={"tools": [search]})
    state = traced(recorder, lambda: run(agent, "sync"))
    [found], _ = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    (mine,), (theirs,) = found.runs.values(), live.runs.values()
    assert (mine.run_id, mine.parent, mine.totals) == (theirs.run_id, theirs.parent, theirs.totals)
    assert found.totals == state["ledger"]
