from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.errors import RunLogError
from orchestra_graph.journal import NO_RETURN
from orchestra_graph.preferences import Budget
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_run
from orchestra_graph.runlog.repair import NO_REPLY, repair
from orchestra_graph.runlog.spool import is_running, this_process
from tests.runs import NAMES, capture, read, spools, tear, trajectory, turn


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def orphan(path: Path, run_id: str = "r", **owner: Any) -> Path:
    """Make this process's journal look as if another process had written it; by default one that has ended."""
    file = Path(f"{path}.spool/{run_id}.jsonl")
    here = this_process()
    there = here | {"pid": dead_process()} | owner
    text = file.read_text()
    for key in here:
        text = text.replace(f'"{key}":{json.dumps(here[key])}', f'"{key}":{json.dumps(there[key])}')
    file.write_text(text)
    return file


def journal_abandoned(log: RunLog, run_id: str = "r") -> None:
    """Two turns; the second one's call was paid once, and an attempt of it and a third decision never came back."""
    call = {"id": f"{run_id}-1-0", "tool": "large", "args": {}}
    charge = {"tool": "large", "status": "failed", "dollars": 0.1, "seconds": 1.0}
    log.journal(run_id, {"kind": "header", "task": {"question": "?"}, "purpose": "train"})
    log.journal(run_id, capture(f"{run_id}-1:0", f"{run_id}-1"))
    log.journal(run_id, {"kind": "turn", "turn": turn(run_id)})
    decision = {"calls": [call], "reason": "", "by": "router"}
    log.journal(
        run_id, {"kind": "turn", "turn": turn(run_id, 1, decision=decision, captures=[f"{run_id}-1:0", "gone"])}
    )
    for n in range(2):
        log.journal(run_id, {"kind": "attempt", "key": f"{call['id']}#{n}", "tool": "large", "upper": 0.5})
    log.journal(
        run_id, {"kind": "turn", "turn": {"id": f"{run_id}-1", "charges": {f"{call['id']}#0": charge}, "outcomes": {}}}
    )
    log.journal(run_id, {"kind": "attempt", "key": f"{run_id}-2#0", "tool": "router", "upper": 0.25})


def test_an_abandoned_run_is_folded_with_what_it_can_have_cost(path: Path) -> None:
    journal_abandoned(RunLog(path))
    orphan(path)
    report = repair(path)
    assert (report.folded, report.running, report.unclear) == (["r"], [], [])
    [run], read_report = read(path)
    assert read_report.problems == []
    assert (run.ended, run.answer, run.purpose, run.task.question) == ("abandoned", None, "train", "?")
    assert [t["id"] for t in run.turns] == ["r-0", "r-1", "r-2"]
    assert run.turns[1]["charges"]["r-1-0#0"]["status"] == "failed"
    assert run.turns[1]["charges"]["r-1-0#1"] == {
        "tool": "large",
        "status": "uncertain",
        "dollars": 0.0,
        "upper": 0.5,
        "seconds": 0.0,
        "error": NO_RETURN,
    }
    assert run.turns[2]["index"] == 2
    assert run.turns[2]["charges"]["r-2#0"]["upper"] == 0.25
    assert run.turns[2]["decision"]["problem"] == {"kind": "router_error", "detail": NO_REPLY}
    assert list(run.captures) == ["r-1:0"]
    assert run.totals is not None
    assert (run.totals["dollars"], run.totals["uncertain_dollars"]) == (0.1, 0.75)
    assert spools(path) == []
    assert repair(path).folded == []


def test_a_run_of_this_process_goes_on(path: Path) -> None:
    log = RunLog(path)
    journal_abandoned(log)
    assert repair(path, older_than=0).running == ["r"]
    log.finish("r", trajectory())
    assert [run.ended for run in read(path)[0]] == ["answered"]


def test_a_resumed_run_belongs_to_its_last_process(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", {"kind": "header"})
    orphan(path)
    RunLog(path).journal("r", {"kind": "turn", "turn": turn("r")})
    assert repair(path).running == ["r"]


def test_a_number_that_another_process_got_since_is_not_the_same_process(path: Path) -> None:
    RunLog(path).journal("r", {"kind": "header"})
    orphan(path, pid=os.getpid(), started="1")
    assert repair(path).folded == ["r"]


def test_a_machine_that_started_again_has_no_run_left(path: Path) -> None:
    RunLog(path).journal("r", {"kind": "header"})
    orphan(path, pid=os.getpid(), boot="before")
    assert repair(path).folded == ["r"]


def test_what_another_machine_wrote_is_folded_by_age_only(path: Path) -> None:
    RunLog(path).journal("r", {"kind": "header"})
    file = orphan(path, host="elsewhere")
    assert repair(path).unclear == ["r"]
    assert repair(path, older_than=60).unclear == ["r"]
    os.utime(file, (time.time() - 120, time.time() - 120))
    assert repair(path, older_than=60).folded == ["r"]


def test_processes_are_told_apart() -> None:
    here = this_process()
    assert is_running(here) is True
    assert is_running(here | {"pid": dead_process()}) is False
    assert is_running(here | {"namespace": "pid:[1]"}) is None
    assert is_running(here | {"started": None}) is True
    assert is_running(here | {"started": None, "pid": dead_process()}) is False
    assert is_running(here | {"started": None, "pid": 1}) is True


def test_a_run_that_waits_for_a_person_is_left_alone(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", {"kind": "turn", "turn": turn("r")})
    log.journal("r", {"kind": "waiting", "call": "r-0-0"})
    log.journal("r", {"kind": "attempt", "key": "r-0-1#0", "tool": "large", "upper": 0.5})  # another call of the reply
    log.journal("r", {"kind": "turn", "turn": {"id": "r-0", "outcomes": {"r-0-1": {}}, "charges": {}}})
    file = orphan(path)
    assert repair(path).waiting == ["r"]
    assert spools(path) == ["r.jsonl"]
    os.utime(file, (time.time() - 120, time.time() - 120))
    assert repair(path, older_than=60).folded == ["r"]


def test_a_run_that_waits_since_an_earlier_release_is_left_alone(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", {"kind": "turn", "turn": turn("r")})
    log.journal("r", {"kind": "waiting"})
    orphan(path)
    assert repair(path).waiting == ["r"]


GOES_ON: list[dict[str, Any]] = [
    {"kind": "attempt", "key": "r-0-0#0", "tool": "large", "upper": 0.5},
    {"kind": "turn", "turn": {"id": "r-0", "outcomes": {"r-0-0": {"content": "no", "error": True}}, "charges": {}}},
    {"kind": "error", "error": "401"},
]


@pytest.mark.parametrize("then", GOES_ON, ids=["sent", "rejected", "failed"])
def test_a_run_that_waits_no_longer_is_folded(path: Path, then: dict[str, Any]) -> None:
    log = RunLog(path)
    log.journal("r", {"kind": "turn", "turn": turn("r")})
    log.journal("r", {"kind": "waiting", "call": "r-0-0"})
    log.journal("r", then)
    orphan(path)
    assert repair(path).folded == ["r"]


def test_a_failed_run_says_so(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", {"kind": "turn", "turn": turn("r")})
    log.journal("r", {"kind": "error", "error": "401"})
    orphan(path)
    repair(path)
    run = read_run(path, "r")
    assert (run.ended, run.error) == ("failed", "401")


def test_a_crash_between_line_and_spool_leaves_the_answer(path: Path) -> None:
    log = RunLog(path)
    journal_abandoned(log)
    spool = Path(f"{path}.spool/r.jsonl").read_bytes()
    log.finish("r", trajectory())
    Path(f"{path}.spool/r.jsonl").write_bytes(spool)
    orphan(path)
    report = repair(path)
    assert (report.folded, report.finished) == ([], ["r"])
    assert read_run(path, "r").ended == "answered"
    assert spools(path) == []


def test_what_an_answered_run_paid_afterwards_is_added_to_its_line(path: Path) -> None:
    paid = {"tool": "router", "status": "paid", "dollars": 0.5, "seconds": 1.0}
    log = RunLog(path)
    first = turn("r", charges={"r-0#0": paid}, captures=["r-0:0"])
    log.journal("r", capture("r-0:0", "r-0"))
    log.finish("r", trajectory(turns=[first]))
    for key in ("r-0#1", "r-0-0/i-0#0"):
        log.journal("r", {"kind": "attempt", "key": key, "tool": "router", "upper": 0.25})
    log.journal("r", {"kind": "charges", "charges": {"r-0-0/i-0#0": paid}})
    orphan(path)
    report = repair(path)
    assert (report.folded, report.finished) == ([], ["r"])
    run = read_run(path, "r")
    assert (run.ended, run.answer, list(run.captures)) == ("answered", "2", ["r-0:0"])
    assert {key: charge["status"] for key, charge in run.turns[0]["charges"].items()} == {
        "r-0#0": "paid",
        "r-0#1": "uncertain",
        "r-0-0/i-0#0": "paid",
    }
    assert run.totals is not None
    assert (run.totals["dollars"], run.totals["uncertain_dollars"]) == (1.0, 0.25)
    assert spools(path) == []


def test_charges_of_nested_runs_are_folded_into_the_turn_of_the_call_around_them(path: Path) -> None:
    paid = {"tool": "inner/large", "status": "paid", "dollars": 0.5, "seconds": 1.0}
    log = RunLog(path)
    log.journal("r", {"kind": "turn", "turn": turn("r")})
    for key in ("r-0-0#0", "r-0-0/i-0-0#0.0", "r-0-0/i-0-1#0.0"):
        log.journal("r", {"kind": "attempt", "key": key, "tool": "inner/large", "upper": 0.25})
    log.journal("r", {"kind": "charges", "charges": {"r-0-0/i-0-0#0.0": paid}})
    orphan(path)
    repair(path)
    (only,) = read_run(path, "r").turns
    assert {key: charge["status"] for key, charge in only["charges"].items()} == {
        "r-0-0#0": "uncertain",
        "r-0-0/i-0-0#0.0": "paid",
        "r-0-0/i-0-1#0.0": "uncertain",
    }


def test_a_folded_run_that_went_on_and_died_again_keeps_both_parts(path: Path) -> None:
    journal_abandoned(RunLog(path))
    orphan(path)
    repair(path)
    RunLog(path).journal("r", {"kind": "turn", "turn": turn("r", 3)})
    orphan(path)
    repair(path)
    run = read_run(path, "r")
    assert [t["id"] for t in run.turns] == ["r-0", "r-1", "r-2", "r-3"]
    assert (run.task.question, list(run.captures), run.budget) == ("?", ["r-1:0"], Budget())
    assert read(path)[1].superseded == 1


@pytest.mark.parametrize("key", ["12345678-4#0", "12345678-4-1#0", "inner-2-0#0"])
def test_an_attempt_without_any_turn_still_counts(path: Path, key: str) -> None:
    RunLog(path).journal("12345678-abc", {"kind": "attempt", "key": key, "tool": "a", "upper": 0.5})
    orphan(path, "12345678-abc")
    repair(path)
    run = read_run(path, "12345678-abc")
    assert run.totals is not None
    assert run.totals["uncertain_dollars"] == 0.5


def test_torn_records_are_counted(path: Path) -> None:
    journal_abandoned(RunLog(path))
    file = orphan(path)
    tear(file, 4)
    report = repair(path)
    assert (report.folded, report.torn) == (["r"], 1)
    assert [t["id"] for t in read_run(path, "r").turns] == ["r-0", "r-1"]


def test_repair_of_nothing(path: Path) -> None:
    with pytest.raises(RunLogError, match="no such run log"):
        repair(path)
    RunLog(path).finish("a", trajectory())
    assert repair(path).folded == []


def test_a_spool_that_was_made_and_never_written_is_dropped_after_a_while(path: Path) -> None:
    RunLog(path).journal("r", {"kind": "header"})
    file = Path(f"{path}.spool/r.jsonl")
    file.write_bytes(b"")
    assert repair(path).unclear == ["r"]
    os.utime(file, (time.time() - 120, time.time() - 120))
    assert repair(path).unclear == []
    assert spools(path) == []


def test_a_fork_journals_as_itself(path: Path) -> None:
    log = RunLog(path)
    log.journal("parent", {"kind": "header"})
    child = os.fork()
    if child == 0:
        log.journal("child", {"kind": "header"})
        os._exit(0)
    os.waitpid(child, 0)
    report = repair(path)
    assert (report.running, report.folded) == (["parent"], ["child"])
