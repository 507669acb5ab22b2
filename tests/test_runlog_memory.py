from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.errors import RouterError, RunLogError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.routers import Fixed
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.memory import MemoryLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.workbench import Workbench
from orchestra_graph.workbench.trial import JUDGE, try_router

QUESTION: Any = {"messages": [("user", "What is 6 x 7?")]}


def expert() -> Expert:
    return Expert(name="expert", description="Answers.", model=ScriptedExpert("<answer>42</answer>"), terminal=True)


def told(run: Trajectory) -> dict[str, object]:
    """What does not differ between two runs of the same script."""
    return run.model_dump(include={"answer", "ended", "stopped_by", "task", "catalog_hash", "policy"}) | {
        "decisions": [[call["tool"] for call in turn["decision"]["calls"]] for turn in run.turns],
        "charges": [sorted(charge["tool"] for charge in turn["charges"].values()) for turn in run.turns],
    }


async def test_a_run_is_as_a_file_would_have_it(tmp_path: Path) -> None:
    memory, file = MemoryLog(), RunLog(tmp_path / "runs.jsonl")
    for log in (memory, file):
        graph = create_orchestrator(ScriptedRouter([("expert", {})]), [expert()], run_log=log).compile()
        await graph.ainvoke(QUESTION)
    (kept,), (written,) = memory.take(), list(read_runs(tmp_path / "runs.jsonl"))
    assert told(kept) == told(written)
    assert kept.answer == "42"
    assert memory.take() == []


async def test_a_run_that_broke_keeps_what_it_paid() -> None:
    log = MemoryLog()
    refused = ValueError("the server says 400")
    router = ScriptedRouter([("expert", {}), refused])
    wrong = Expert(name="expert", description="Answers.", model=ScriptedExpert("I cannot tell."))
    with pytest.raises(RouterError):
        await create_orchestrator(router, [wrong], run_log=log).compile().ainvoke(QUESTION)
    (run,) = log.take()
    assert (run.ended, run.answer) == ("failed", None)
    assert "the server says 400" in (run.error or "")
    assert {charge["tool"] for charge in run.turns[0]["charges"].values()} == {"router", "expert"}


async def test_a_run_of_the_workbench_has_its_verdict() -> None:
    bench, log = Workbench(), MemoryLog()
    tasks = bench.tasks("train", 2, families=["arithmetic"])
    figures = await try_router(bench, Fixed(tool="large"), tasks, run_log=log)
    runs = {run.task.id: run.verdict for run in log.take()}
    assert runs == {
        task.id: Verdict(outcome=float(one.solved), by=JUDGE) for task, one in zip(tasks, figures, strict=True)
    }


def test_a_run_that_is_not_held_cannot_be_judged() -> None:
    with pytest.raises(RunLogError, match="'gone' is not held; expected one that has ended; fix: judge it before"):
        MemoryLog().judge("gone", Verdict(outcome=1.0, by="me"))


@pytest.mark.parametrize("column", ["What is 7 * 6?", {"text": "What is 7 * 6?", "language": "en"}])
async def test_what_was_asked_is_the_question_whatever_the_row_of_a_data_set_calls_so(column: Any) -> None:
    log, row = MemoryLog(), {"id": "t1", "question": column, "level": 3}
    graph = create_orchestrator(ScriptedRouter([("expert", {})]), [expert()], run_log=log).compile()
    await graph.ainvoke(QUESTION, context={"task": row})
    (run,) = log.take()
    assert (run.task.question, run.task.id, run.task.model_extra) == ("What is 6 x 7?", "t1", {"level": 3})
