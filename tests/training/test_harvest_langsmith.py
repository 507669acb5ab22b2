"""Traces of a real HTTP server back into trajectories, through both of LangSmith's interfaces, and out of an export."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import langsmith
import pyarrow as pa
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from orchestra_training.groups import group_id
from orchestra_training.harvest.export import ExportSource
from orchestra_training.harvest.gather import TRAIN, harvest
from orchestra_training.harvest.langsmith import LangSmithSource
from orchestra_training.harvest.logs import LogSource
from orchestra_training.harvest.output import provenance
from orchestra_training.harvest.source import Found, Source, SourceReport
from orchestra_training.harvest.sources import Wanted
from pyarrow import parquet

from orchestra_graph import Budget, RunLog, add_router, create_orchestrator
from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Policy, Trajectory
from orchestra_graph.testing import ScriptedRouter
from tests.langsmith_recorder import KEY, Recorder, recording, served
from tests.test_lang_smith import ARGS, PRICES, asked, question, team
from tests.training.runs import VersionedRouter

Interface = Literal["new", "old"]
VERSIONS: dict[Interface, str] = {"new": "0.16.2", "old": "0.10"}
ALL = Wanted()
SCRIPT: list[Any] = [
    ("search", ARGS["search"]),
    [("shaky", {}), ("dear", {})],
    "no call at all",
    ("broken", {}),
    ("answer", {}),
]


@pytest.fixture(params=["new", "old"])
def interface(request: pytest.FixtureRequest) -> Interface:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with served() as recorder:
        yield recorder


def traced(recorder: Recorder, work: Callable[[], Any]) -> Any:
    """What the work returns; all that it left is with the recorder."""
    with recording() as other:
        result = work()
    recorder.runs |= other.runs
    recorder.feedback += other.feedback
    return result


@langsmith.traceable(name="foreign")
def foreign() -> int:
    return 1


def client_of(recorder: Recorder) -> langsmith.Client:
    return langsmith.Client(api_url=recorder.url, api_key=KEY)


def source(recorder: Recorder, interface: Interface, wanted: Wanted = ALL, **options: Any) -> LangSmithSource:
    recorder.version = VERSIONS[interface]
    return LangSmithSource("test", wanted, lambda: client_of(recorder), first_pause=0.01, **options)


def read(source: Any, known: Any = ()) -> tuple[list[Trajectory], SourceReport]:
    report = SourceReport(source.name)
    found: list[Found] = list(source.read(report, known))
    return [each.run for each in found], report


def orchestrated(log: RunLog, script: list[Any] = SCRIPT, **context: Any) -> Any:
    graph = asked(script, run_log=log, budget=Budget(dollars=1, seconds=500))
    return asyncio.run(graph.ainvoke(question(), context=context or None))


def told(turn: Any) -> Any:
    """What a trace tells of a turn: all but artifacts, errors of attempts, and names of captures."""
    kept = {"charges": ("error",), "outcomes": ("artifacts",)}
    return {
        name: {id: {k: v for k, v in part.items() if k not in kept[name]} for id, part in value.items()}
        if name in kept
        else value
        for name, value in turn.items()
    }


def test_a_trace_gives_back_decisions_outcomes_charges_and_totals(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    about = {"id": "t1", "group_id": "g", "rollout": 2, "purpose": "train", "level": 3}
    preferences = {"cost": 0.5, "prefer": {"search": 0.7}}
    state = traced(recorder, lambda: orchestrated(log, task=about, preferences=preferences))
    [run], report = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert run.turns == [told(turn) for turn in live.turns]
    assert run.totals == live.totals == state["ledger"]
    same = ("run_id", "task", "group_id", "rollout", "purpose", "preferences", "budget", "protocol", "started_at")
    assert {name: getattr(run, name) for name in same} == {name: getattr(live, name) for name in same}
    assert (run.answer, run.stopped_by, run.ended, run.catalog_hash) == ("42", "answer", "answered", live.catalog_hash)
    assert run.policy is not None and live.policy is not None and run.policy.name == live.policy.name
    assert (report.read, report.runs, report.skipped) == (1, 1, {})


def test_a_run_of_a_trace_is_in_the_group_that_its_log_puts_it_in(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    router = VersionedRouter([("search", ARGS["search"]), ("answer", {})])
    graph = create_orchestrator(router, team(), catalog=PRICES, run_log=log).compile()
    traced(recorder, lambda: graph.invoke(question()))
    [run], _ = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert run.policy == live.policy == Policy(name="policy-8b", weights_hash="5eed", step=7)
    assert group_id(run) == group_id(live)


def test_a_run_that_its_budget_stopped_has_its_closing_turn(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    graph = asked([("search", ARGS["search"])] * 9, run_log=log, budget=Budget(turns=2), closing="answer")
    state = traced(recorder, lambda: asyncio.run(graph.ainvoke(question())))
    [run], _ = read(source(recorder, interface))
    assert run.stopped_by == "turns"
    assert run.turns[-1]["decision"]["by"] == "closing"
    assert run.totals is not None
    assert run.totals["dollars"] == pytest.approx(state["ledger"]["dollars"], abs=1e-15)
    assert {name: each["calls"] for name, each in run.totals["tools"].items()} == {
        name: each["calls"] for name, each in state["ledger"]["tools"].items()
    }


def test_a_graph_of_somebody_elses_with_a_router_in_it(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    def look_up(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("seven")]}

    builder = StateGraph(MessagesState)
    builder.add_node("look_up", look_up)
    log = RunLog(tmp_path / "runs.jsonl")
    router = ScriptedRouter([("look_up", {}), ("final_answer", {"answer": "7"})])
    add_router(builder, router, destinations=["look_up"], run_log=log)
    builder.add_edge(START, "router")
    asked_for: Any = {"messages": [("user", "How many?")]}
    traced(recorder, lambda: builder.compile().invoke(asked_for))
    [run], _ = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert (run.run_id, run.answer, run.totals) == (live.run_id, live.answer, live.totals)
    assert [turn["decision"]["calls"] for turn in run.turns] == [turn["decision"]["calls"] for turn in live.turns]


def test_a_nested_run_is_in_the_one_around_it(recorder: Recorder, interface: Interface, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    script = [("nested", ARGS["nested"]), ("answer", {})]
    traced(recorder, lambda: orchestrated(log, script))
    [run], report = read(source(recorder, interface))
    (live,) = read_runs(log.path)
    assert run.totals == live.totals
    assert run.runs.keys() == live.runs.keys()
    (mine,), (theirs,) = run.runs.values(), live.runs.values()
    assert (mine.parent, mine.answer, mine.totals) == (theirs.parent, theirs.answer, theirs.totals)
    assert report.runs == 1


def test_feedback_of_people_is_the_verdict(recorder: Recorder, interface: Interface, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for _ in range(4):
        traced(recorder, lambda: orchestrated(log))
    roots = [run["trace_id"] for run in recorder.runs.values() if not run.get("parent_run_id")]
    people = {"feedback_source": {"type": "app", "user_name": "Ada"}, "created_at": "2026-01-01T00:00:00+00:00"}
    recorder.feedback = [
        {"id": roots[0], "key": "correct", "run_id": roots[0], "trace_id": roots[0], "score": 1, **people},
        {"id": roots[1], "key": "correct", "run_id": roots[1], "trace_id": roots[1], "score": 0, **people},
        {"id": roots[2], "key": "correct", "run_id": roots[2], "trace_id": roots[2], "score": None, **people},
        {"id": roots[3], "key": "correct", "run_id": roots[3], "trace_id": roots[3], "score": 4, **people},
        {"id": PROJECT_FEEDBACK, "key": "tone", "run_id": roots[2], "trace_id": roots[2], "score": 1, **people},
    ]
    for record in recorder.feedback:
        record["modified_at"] = record["created_at"]
    runs, report = read(source(recorder, interface, Wanted(feedback="correct")))
    found = sorted((run.verdict.outcome, run.verdict.by) for run in runs if run.verdict)
    assert found == [(0.0, "feedback:correct:Ada"), (1.0, "feedback:correct:Ada")]
    assert report.noted == {"feedback_no_score": 1, "feedback_out_of_scale": 1}


@pytest.mark.parametrize("pages", [True, False])
def test_more_feedback_than_a_page_is_read_once(recorder: Recorder, tmp_path: Path, pages: bool) -> None:
    traced(recorder, lambda: orchestrated(RunLog(tmp_path / "runs.jsonl")))
    recorder.pages_feedback = pages
    trace = {name: recorder.root["trace_id"] for name in ("run_id", "trace_id")}
    for number in range(250):
        moment = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)).isoformat()
        said = {"id": str(UUID(int=number)), "key": "correct", "score": number == 249, "created_at": moment}
        recorder.feedback.append({**said, **trace, "modified_at": moment})
    [run], report = read(source(recorder, "old", Wanted(feedback="correct")))
    assert run.verdict is not None and run.verdict.outcome == 1.0
    assert report.noted == {"feedback_outdated": 249}


PROJECT_FEEDBACK = "00000000-0000-4000-8000-000000000009"


def test_traces_are_wanted_by_filter_and_time(recorder: Recorder, interface: Interface, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    traced(recorder, lambda: orchestrated(log))
    traced(recorder, foreign)
    now = datetime.now(UTC)
    for wanted, count in [
        (Wanted(), 1),
        (Wanted(filter='eq(name, "LangGraph")'), 1),
        (Wanted(filter='eq(name, "Other")'), 0),
        (Wanted(since=now - timedelta(hours=1), until=now + timedelta(hours=1)), 1),
        (Wanted(since=now + timedelta(hours=1)), 0),
        (Wanted(filter='eq(name, "LangGraph")', until=now - timedelta(hours=1)), 0),
    ]:
        runs, _ = read(source(recorder, interface, wanted))
        assert len(runs) == count, wanted


def test_rate_limits_and_errors_of_the_server_are_waited_out(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for _ in range(5):
        traced(recorder, lambda: orchestrated(log))
    recorder.read_page = 2
    faults: list[tuple[int, dict[str, str]]] = [(429, {"Retry-After": "1"}), (500, {}), (503, {})]
    recorder.faults = faults[:1]
    runs = []
    report = SourceReport("x")
    for found in source(recorder, interface).read(report, ()):
        runs.append(found.run)
        recorder.faults = faults[len(runs) :][:1]
    assert {run.run_id for run in runs} == {run.run_id for run in read_runs(log.path)}
    assert (len(runs), report.read) == (5, 5)


def test_a_server_that_does_not_recover_or_refuses_is_one_line(recorder: Recorder, interface: Interface) -> None:
    recorder.faults = [(401, {})] * 3
    with pytest.raises(ConfigError, match=r"langsmith:test: .*401"):
        read(source(recorder, interface))
    recorder.faults = []
    with pytest.raises(ConfigError, match="langsmith:elsewhere: Project elsewhere not found"):
        read(LangSmithSource("elsewhere", make_client=lambda: client_of(recorder)))


def test_an_interrupted_harvest_of_a_project_asks_for_what_is_new_only(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for _ in range(4):
        traced(recorder, lambda: orchestrated(log))

    class StopError(Exception):
        pass

    def stop(report: SourceReport) -> None:
        if report.runs == 3:
            raise StopError

    with pytest.raises(StopError):
        harvest([source(recorder, interface)], tmp_path / "data", on_run=stop)
    before = len(recorder.reads)
    report = harvest([source(recorder, interface)], tmp_path / "data", test_share=0.1)
    assert (report.runs, report.sources[0].known) == (4, 3)
    assert len(recorder.reads) - before == 3  # the project, the page of roots, the trace that was new


def test_what_gives_no_trajectory_is_counted(recorder: Recorder, interface: Interface, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")

    def root_of(work: Callable[[], Any]) -> dict[str, Any]:
        known = set(recorder.runs)
        traced(recorder, work)
        (root,) = [run for id, run in recorder.runs.items() if id not in known and not run.get("parent_run_id")]
        return root

    going, cut, waiting, lost = (root_of(lambda: orchestrated(log)) for _ in range(4))
    going["end_time"] = None
    cut["extra"]["metadata"]["question"] = "x" * 10 + " [... 4,000 characters left out ...] " + "y"
    del waiting["extra"]["metadata"]["stopped_by"]
    lost["dotted_order"] = None
    failed = root_of(lambda: orchestrated(log))
    del failed["extra"]["metadata"]["stopped_by"]
    failed["error"] = "RouterError(no reply)"
    runs, report = read(source(recorder, interface))
    assert report.skipped == {"running": 1, "cut_question": 1, "not_ended": 1, "missing_ids": 1}
    assert [(run.ended, run.error) for run in runs] == [("failed", "RouterError(no reply)")]
    assert all(problem.startswith("langsmith:test, ") for problem in report.problems)


def test_clocks_that_disagree_change_neither_order_nor_sums(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    state = traced(recorder, lambda: orchestrated(log))
    recorder.root["end_time"] = "2020-01-01T00:00:00+00:00"
    for number, step in enumerate(recorder.children(recorder.root)):
        stamp = f"20250101T0000{59 - number:02}000000Z"
        parent, _, own = step["dotted_order"].rpartition(".")
        moved = f"{parent}.{stamp}{own[len(stamp) :]}"
        for below in recorder.runs.values():
            if below["dotted_order"].startswith(step["dotted_order"]):
                below["dotted_order"] = below["dotted_order"].replace(step["dotted_order"], moved)
    report = harvest([source(recorder, interface)], tmp_path / "data", test_share=0)
    (run,) = read_runs(tmp_path / "data" / TRAIN)
    assert run.totals == state["ledger"]
    assert [turn["index"] for turn in run.turns] == list(range(len(run.turns)))
    assert report.clock_skew == 1


def test_the_run_log_stands_for_a_trace_of_the_same_run(
    recorder: Recorder, interface: Interface, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    traced(recorder, lambda: orchestrated(log))
    trace = recorder.root["trace_id"]
    people = {
        "feedback_source": {"type": "app"},
        "created_at": "2026-01-01T00:00:00",
        "modified_at": "2026-01-01T00:00:00",
    }
    recorder.feedback = [{"id": trace, "key": "correct", "run_id": trace, "trace_id": trace, "score": 1, **people}]
    sources: list[Source] = [source(recorder, interface, Wanted(feedback="correct")), LogSource(log.path)]
    for order in (sources, sources[::-1]):
        folder = tmp_path / order[0].name.replace("/", "_")
        harvest(order, folder, test_share=0)
        (run,) = read_runs(folder / TRAIN)
        assert run.verdict is not None and run.verdict.by == "feedback:correct"
        assert provenance(run) is not None


# The bulk export


COLUMNS = ("id", "trace_id", "dotted_order", "start_time", "end_time", "error", "inputs", "outputs", "extra", "tags")


def export(recorder: Recorder, path: Path, *, runs: list[dict[str, Any]] | None = None, **changed: Any) -> None:
    """The recorder's runs as a file of an export: JSON in columns of text."""
    rows = [
        {
            **{name: run.get(name) for name in COLUMNS},
            **{n: json.dumps(run.get(n)) for n in ("inputs", "outputs", "extra")},
        }
        for run in (list(recorder.runs.values()) if runs is None else runs)
    ]
    table = pa.Table.from_pylist([{**row, **changed} for row in rows])
    parquet.write_table(table, path, row_group_size=7)


def test_an_export_gives_what_the_project_does(recorder: Recorder, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for _ in range(3):
        traced(recorder, lambda: orchestrated(log))
    traced(recorder, foreign)
    scattered = sorted(recorder.runs.values(), key=lambda run: str(run["id"])[::-1])
    export(recorder, tmp_path / "a.parquet", runs=scattered[::2])
    export(recorder, tmp_path / "b.parquet", runs=scattered[1::2])
    runs, report = read(ExportSource("export", (tmp_path / "a.parquet", tmp_path / "b.parquet")))
    live = {run.run_id: run for run in read_runs(log.path)}
    assert {run.run_id: run.totals for run in runs} == {id: run.totals for id, run in live.items()}
    assert {run.run_id: run.turns for run in runs} == {id: [*map(told, run.turns)] for id, run in live.items()}
    assert (report.read, report.runs, report.skipped) == (len(recorder.runs), 3, {"foreign": 1})


def test_a_bad_export_is_one_line_or_counted(recorder: Recorder, tmp_path: Path) -> None:
    traced(recorder, lambda: orchestrated(RunLog(tmp_path / "runs.jsonl")))
    path = tmp_path / "a.parquet"
    export(recorder, path, outputs="{torn")
    _, report = read(ExportSource("export", (path,)))
    assert report.skipped == {"invalid": len(recorder.runs), "foreign": 1}
    assert report.problems[0].startswith(f"{path}:1: invalid: no JSON")
    parquet.write_table(pa.table({"trace_id": ["x"]}), path)
    with pytest.raises(ConfigError, match=r"a.parquet: no column id, dotted_order, .*; expected an export of runs"):
        read(ExportSource("export", (path,)))
    path.write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match=r"a.parquet: cannot be read"):
        read(ExportSource("export", (path,)))
