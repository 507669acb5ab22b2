"""Runs back out of checkpoints: real SQLite files and a real PostgreSQL server, threads with several runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from orchestra_training.filters import FilterReport
from orchestra_training.groups import collect
from orchestra_training.harvest.catalogs import catalogs_of
from orchestra_training.harvest.checkpoints import PAGE, PostgresSource, SqliteSource
from orchestra_training.harvest.gather import NO_CATALOG, TRAIN, harvest
from orchestra_training.harvest.source import SourceReport
from orchestra_training.render import Renderer

from orchestra_graph import Expert, Price, RunLog, add_router, create_orchestrator
from orchestra_graph.errors import ConfigError
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.routers import Cheapest
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Policy, Trajectory, Verdict
from orchestra_graph.serving.random_weights import TEMPLATE
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.subgraph import Subgraph
from tests.integration.postgres import postgres
from tests.training.runs import VersionedRouter
from tests.training.test_render import TOKENIZER, tokenizer_of


@contextmanager
def sqlite_saver(path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        yield saver


def orchestrator(log: RunLog | None, saver: Any, **options: Any) -> Any:
    solver = Expert(ScriptedExpert("<answer>42</answer>"), name="solver", price=Price(input=3.0, output=9.0))
    looker = Expert(ScriptedExpert("a thought"), name="looker", role="chat", price=Price(per_call=0.01))
    router = VersionedRouter([("looker", {}), "no call", ("solver", {})] * 100)
    return create_orchestrator(router, [solver, looker], run_log=log, **options).compile(checkpointer=saver)


def ask(graph: Any, thread: str, question: str = "What is it?", **about: Any) -> Any:
    config = {"configurable": {"thread_id": thread}}
    return graph.invoke({"messages": [("user", question)]}, config, context={"task": about} if about else None)


def read(source: Any, known: Any = ()) -> tuple[dict[str, Trajectory], SourceReport]:
    report = SourceReport(source.name)
    found = [found.run for found in source.read(report, known)]
    assert len({run.run_id for run in found}) == len(found)
    return {run.run_id: run for run in found}, report


def same(run: Trajectory, live: Trajectory) -> None:
    """What a checkpoint holds of a run is what the log says."""
    names = (
        "task",
        "group_id",
        "purpose",
        "preferences",
        "budget",
        "started_at",
        "catalog_hash",
        "policy",
        "protocol",
        "answer",
        "stopped_by",
    )
    assert {name: getattr(run, name) for name in names} == {name: getattr(live, name) for name in names}
    assert run.turns == live.turns
    assert run.totals == live.totals


def fill(saver: Any, log: RunLog) -> None:
    """Threads with several runs, more checkpoints than a page holds."""
    graph = orchestrator(log, saver)
    for number in range(PAGE // 8):
        for question in range(2):
            ask(graph, f"thread-{number}", f"question {question}", id=f"t{question}", group_id="g", purpose="train")


def test_every_run_of_every_thread_comes_back_from_sqlite(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.sqlite"
    with sqlite_saver(path) as saver:
        fill(saver, log)
    before = path.read_bytes()
    runs, report = read(SqliteSource(path))
    live = {run.run_id: run for run in read_runs(log.path)}
    assert runs.keys() == live.keys()
    for id, run in runs.items():
        same(run, live[id])
    assert report.read > PAGE
    assert report.read == report.runs + report.noted["without_run"] + report.noted["earlier_steps"]
    assert path.read_bytes() == before
    first = next(iter(live))
    again, report = read(SqliteSource(path), {first})
    assert again.keys() == live.keys() - {first}
    assert report.known == 1


def test_a_run_log_of_the_same_graph_gives_the_catalog_that_rows_are_rendered_with(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.sqlite"
    with sqlite_saver(path) as saver:
        graph = orchestrator(log, saver)
        for thread in ("one", "two"):
            ask(graph, thread, id=thread)
    first, *_ = read_runs(log.path)
    one = RunLog(tmp_path / "one.jsonl")
    one.path.write_bytes(log.path.read_bytes().splitlines(keepends=True)[0])
    tokenizer = tokenizer_of(TOKENIZER, TEMPLATE.read_text(encoding="utf-8"), eos_token="<|im_end|>")
    renderer = Renderer(tokenizer, ConversationProtocol(), name="chat")
    for folder, catalogs, known in (("without", {}, 0), ("with", catalogs_of([one.path]), 2)):
        report = harvest([SqliteSource(path)], tmp_path / folder, test_share=0, catalogs=catalogs)
        assert report.sources[0].noted[NO_CATALOG] == 2 - known
        runs = list(read_runs(tmp_path / folder / TRAIN))
        assert [run.catalog for run in runs] == ([first.catalog] * 2 if known else [None] * 2)
        assert all(bool(renderer.render(run).captures) == bool(known) for run in runs)


def test_runs_of_checkpoints_are_grouped_by_the_version_of_their_policy_as_those_of_the_log(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.sqlite"
    with sqlite_saver(path) as saver:
        fill(saver, log)
    runs, _ = read(SqliteSource(path))
    solved = {"verdict": Verdict(outcome=1.0, by="test")}
    report = FilterReport()
    groups = collect([run.model_copy(update=solved) for run in runs.values()], report)
    live = collect([run.model_copy(update=solved) for run in read_runs(log.path)], FilterReport())
    assert report.dropped == []
    assert {group.id: set(group.run_ids) for group in groups} == {group.id: set(group.run_ids) for group in live}
    assert len(groups) == 2
    assert all(run.policy == Policy(name="VersionedRouter", weights_hash="5eed", step=7) for run in runs.values())


def test_a_checkpoint_that_does_not_say_who_decided_still_gives_its_run(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.sqlite"
    with sqlite_saver(path) as saver:
        graph = orchestrator(log, saver)
        ask(graph, "one")
        config: Any = {"configurable": {"thread_id": "one"}}
        header = graph.get_state(config).values["run"]
        earlier = {name: value for name, value in header.items() if name not in ("policy", "protocol")}
        graph.update_state(config, {"run": earlier})
    runs, report = read(SqliteSource(path))
    (run,) = runs.values()
    assert (run.policy, run.protocol, report.skipped) == (None, None, {})


@pytest.mark.slow
def test_every_run_of_every_thread_comes_back_from_postgres(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    with postgres() as address:
        source = PostgresSource(address)
        with pytest.raises(ConfigError, match=r"expected checkpoints of LangGraph's PostgresSaver"):
            read(source)
        with PostgresSaver.from_conn_string(address) as saver:
            saver.setup()
            fill(saver, log)
        runs, report = read(source)
    live = {run.run_id: run for run in read_runs(log.path)}
    assert runs.keys() == live.keys()
    for id, run in runs.items():
        same(run, live[id])
    assert report.skipped == {}
    with pytest.raises(ConfigError, match=r"^postgresql://127.0.0.1:\d+/postgres: "):
        read(source)


def test_the_password_of_a_database_is_told_nowhere() -> None:
    assert PostgresSource("postgresql://me:secret@db.example:5432/runs").name == "postgresql://db.example:5432/runs"


def test_a_graph_of_somebody_elses_with_a_router_in_it(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.db"

    def look_up(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("seven")]}

    builder = StateGraph(MessagesState)
    builder.add_node("look_up", look_up)
    router = ScriptedRouter([("look_up", {}), ("final_answer", {"answer": "7"})])
    add_router(builder, router, destinations=["look_up"], run_log=log)
    builder.add_edge(START, "router")
    with sqlite_saver(path) as saver:
        ask(builder.compile(checkpointer=saver), "one")
    runs, _ = read(SqliteSource(path))
    (live,) = read_runs(log.path)
    same(runs[live.run_id], live)


def test_every_run_of_an_agents_thread_has_its_own_answer(tmp_path: Path) -> None:
    path, expert = tmp_path / "agents.sqlite", ScriptedExpert(lambda task: f"answer to {task}")
    middleware = OrchestraMiddleware(Cheapest(), {"small": expert})
    with sqlite_saver(path) as saver:
        agent = create_agent(expert, [], middleware=[middleware], checkpointer=saver)
        for question in ("one", "two", "three"):
            ask(agent, "thread", question)
    runs, _ = read(SqliteSource(path))
    assert {run.task.question: run.answer for run in runs.values()} == {
        question: f"answer to {question}" for question in ("one", "two", "three")
    }


def test_a_graph_whose_own_state_has_a_run(tmp_path: Path) -> None:
    class State(MessagesState):
        run: dict[str, Any]

    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.db"
    builder = StateGraph(State)
    builder.add_node("look_up", lambda state: {"messages": [AIMessage("seven")]})
    add_router(builder, ScriptedRouter([("look_up", {}), ("final_answer", {"answer": "7"})]), ["look_up"], run_log=log)
    builder.add_edge(START, "router")
    with sqlite_saver(path) as saver:
        config: Any = {"configurable": {"thread_id": "one"}}
        asked: Any = {"messages": [("user", "q")], "run": {"id": "job-7", "owner": "me"}}
        builder.compile(checkpointer=saver).invoke(asked, config)
    runs, _ = read(SqliteSource(path))
    (live,) = read_runs(log.path)
    same(runs[live.run_id], live)


async def test_runs_that_are_not_ended_and_nested_ones_are_counted(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path / "runs.jsonl"), tmp_path / "checkpoints.sqlite"

    async def careful(question: str) -> str:
        """Asks a person."""
        return str(interrupt(question))

    config: Any = {"configurable": {"thread_id": "one"}}
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        tools: list[Any] = [careful, Subgraph(orchestrator(None, True), name="inner", terminal=True)]
        script = [("careful", {"question": "may I?"}), ("inner", {"request": "do it"})]
        outer = create_orchestrator(ScriptedRouter(script), tools, run_log=log).compile(checkpointer=saver)
        await outer.ainvoke({"messages": [("user", "q")]}, config)
        runs, report = read(SqliteSource(path))
        assert (runs, report.skipped) == ({}, {"not_ended": 1})
        await outer.ainvoke(Command(resume="yes"), config)
    runs, report = read(SqliteSource(path))
    (live,) = read_runs(log.path)
    same(runs[live.run_id], live)
    assert report.skipped == {"nested": 1}


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    sqlite3.connect(path).close()
    path.write_bytes(b"no database at all, but some text")
    with pytest.raises(ConfigError, match=r"other.sqlite: .*; expected checkpoints of LangGraph's SqliteSaver"):
        read(SqliteSource(path))
