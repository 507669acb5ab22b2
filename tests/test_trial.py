"""Runs of routers on tasks of the workbench."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra_graph import Fixed, RunLog
from orchestra_graph.errors import ConfigError
from orchestra_graph.events import Event
from orchestra_graph.report import RunFigures
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.workbench import Oracle, Task, Workbench
from orchestra_graph.workbench.trial import open_run, try_router


async def test_figures_come_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    bench = Workbench()
    tasks = bench.tasks("held_out", 10)
    told: list[tuple[Task, RunFigures]] = []
    log = RunLog(tmp_path / "runs.jsonl")
    figures = await try_router(bench, Oracle(), tasks, run_log=log, on_run=lambda *run: told.append(run))
    assert len(figures) == len(told) == 10
    assert all(run.solved and run.ledger["dollars"] > 0 and run.turns >= 1 for run in figures)
    assert dict(zip((task.id for task in tasks), figures, strict=True)) == {task.id: run for task, run in told}
    logged = list(read_runs(log.path))
    assert {run.task.id for run in logged} == {task.id for task in tasks}
    assert [run.verdict for run in logged] == [Verdict(outcome=1.0, by="workbench")] * 10


async def test_the_log_says_what_a_run_is_for_and_who_solved_it(tmp_path: Path) -> None:
    bench, log = Workbench(), RunLog(tmp_path / "runs.jsonl")
    [task] = bench.tasks("train", 1, families=["arithmetic"])
    about = {"group_id": "g", "rollout": 1, "purpose": "train", "split": "train", "seeds": {"task": 3}, "level": 5}
    figures = await open_run(bench, Fixed(tool="clerk"), task, run_log=log, about=about).result()
    (run,) = read_runs(log.path)
    assert run.verdict == Verdict(outcome=float(figures.solved), by="workbench")
    assert (run.group_id, run.rollout, run.purpose, run.split, run.seeds) == ("g", 1, "train", "train", {"task": 3})
    assert (run.task.id, run.task.model_extra) == (task.id, {"level": 5})
    with pytest.raises(ConfigError, match="the context's task: purpose = 'practice'"):
        await open_run(bench, Fixed(tool="clerk"), task, about={"purpose": "practice"}).result()


async def test_a_router_that_fails_gets_no_help() -> None:
    bench = Workbench()
    [task] = bench.tasks("held_out", 1, families=["arithmetic"])
    [figures] = await try_router(bench, Fixed(tool="clerk"), [task])
    assert not figures.solved
    assert set(figures.ledger["tools"]) == {"router", "clerk"}


async def test_a_watched_run_is_judged_like_an_unwatched_one() -> None:
    bench = Workbench()
    [task] = bench.tasks("held_out", 1, families=["lookup"])
    run = open_run(bench, Oracle(), task)
    events: list[Event] = [event async for event in run.events()]
    answer = events[-1]
    assert answer["type"] == "answer"
    decisions = [event for event in events if event["type"] == "decision"]
    figures = await run.figures(answer, len(decisions))
    assert figures.solved
    assert figures.turns == (await open_run(bench, Oracle(), task).result()).turns
