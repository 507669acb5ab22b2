"""Several processes and one log; what a run is sent while it runs, and what becomes of it."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestra_graph.journal import lost
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_run
from orchestra_graph.runlog.repair import repair
from tests.runs import NAMES, capture, read, spools, tear, trajectory, turn


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


# Several processes


def write_many(path: Path, writer: int, count: int) -> None:
    log = RunLog(path)
    for n in range(count):
        run_id = f"{writer}-{n}"
        log.journal(run_id, {"kind": "header"})
        log.finish(run_id, trajectory(answer=f"{writer}" * (n * 37 % 9000)))


@pytest.mark.slow
def test_several_processes_write_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, writer, 200)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    runs, report = read(path)
    assert {run.run_id for run in runs} == {f"{writer}-{n}" for writer in range(4) for n in range(200)}
    assert (report.lines, report.problems) == (800, [])
    assert all(run.answer == run.run_id[0] * (int(run.run_id[2:]) * 37 % 9000) for run in runs)
    assert spools(path) == []


def test_who_wrote_in_a_run_that_others_ended_does_not_write_into_the_next_one(path: Path) -> None:
    """Two workers take turns at a run; each `RunLog` stands for a process."""

    def attempt(key: str) -> dict[str, object]:
        return {"kind": "attempt", "key": key, "tool": "t", "upper": 1.0}

    first, second = RunLog(path), RunLog(path)
    first.journal("r", attempt("r-0-0#0"))
    second.journal("r", attempt("r-0-0#1"))
    first.finish("r", trajectory())
    first.journal("next", attempt("next-0-0#0"))  # in the file that was the run's
    second.journal("r", attempt("r-0-0#2"))
    assert list(first.take_up("next")) == ["next-0-0#0"]
    assert list(RunLog(path).take_up("r")) == ["r-0-0#2"]
    second.finish("r", trajectory())
    first.finish("next", trajectory())
    assert spools(path) == []


WRITER = """
import sys
from orchestra_graph.runlog.log import RunLog
log = RunLog(sys.argv[1])
n = 0
while True:
    run_id = f"{sys.argv[2]}-{n}"
    log.journal(run_id, {"kind": "header", "task": {"question": "?"}})
    run = {"task": {"question": "?"}, "turns": [], "ended": "answered", "answer": "x" * 300_000}
    log.finish(run_id, run)
    n += 1
    print(n, flush=True)
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_costs_at_most_its_own_last_line(path: Path) -> None:
    for kill in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(kill)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        written = 0
        while written < 3 + kill:
            written = int(process.stdout.readline())
        time.sleep(0.0007 * kill)
        process.send_signal(signal.SIGKILL)
        written = max([written, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        RunLog(path).finish(f"after-{kill}", trajectory())
        ids = {run.run_id for run in read(path)[0]}
        assert {f"{kill}-{n}" for n in range(written)} | {f"after-{kill}"} <= ids
    for file in Path(f"{path}.spool").iterdir():  # one may have been made and not yet written
        os.utime(file, (time.time() - 120, time.time() - 120))
    report = repair(path)
    assert report.running == report.unclear == []
    assert spools(path) == []


# The spool


def test_captures_that_turns_name_become_part_of_the_line_and_others_are_dropped(path: Path) -> None:
    log = RunLog(path)
    for id in ("r-0:0", "r-0:1", "lost"):
        log.journal("r", capture(id, "r-0"))
    log.finish("r", trajectory(turns=[turn("r", captures=["r-0:1", "r-0:0", "elsewhere"])]))
    [run], _ = read(path)
    assert list(run.captures) == ["r-0:1", "r-0:0"]
    assert run.captures["r-0:0"].token_ids == [2, 3]
    assert run.captures["r-0:0"].logprobs == [-1.0, 0.0]
    assert run.captures["r-0:0"].model_extra == {}
    assert spools(path) == []


def test_the_capture_of_a_decision_that_was_made_again_is_the_last_one(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", capture("r-0:0", "r-0"))
    log.journal("r", {**capture("r-0:0", "r-0"), "token_ids": [9]})
    log.finish("r", trajectory(turns=[turn("r", captures=["r-0:0"])]))
    assert read_run(path, "r").captures["r-0:0"].token_ids == [9]


def test_attempts_are_read_back_in_another_process(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", {"kind": "header"})
    log.journal("r", {"kind": "attempt", "key": "r-0-0#0", "tool": "large", "upper": 0.25})
    log.journal("r", {"kind": "turn", "turn": turn("r")})
    assert RunLog(path).take_up("r") == {"r-0-0#0": lost("large", 0.25)}


def test_a_run_that_goes_on_after_its_line_was_written_has_its_charges_and_captures_back(path: Path) -> None:
    paid = {"tool": "router", "status": "paid", "dollars": 0.5, "seconds": 1.0}
    log = RunLog(path)
    log.journal("r", {"kind": "header"})
    log.journal("r", capture("r-0:0", "r-0"))
    log.journal("other", {"kind": "header"})
    first = turn("r", charges={"r-0#0": paid}, captures=["r-0:0"])
    log.finish("r", trajectory(turns=[first]))
    another = RunLog(path)
    assert another.take_up("r") == {"r-0#0": paid}
    another.journal("r", {"kind": "attempt", "key": "r-0#1", "tool": "router", "upper": 0.25})
    path.rename(path.with_suffix(".moved"))  # the log is looked through once
    assert RunLog(path).take_up("r") == {"r-0#0": paid, "r-0#1": lost("router", 0.25)}
    path.with_suffix(".moved").rename(path)
    another.finish("r", trajectory(turns=[first]))
    [run], report = read(path)
    assert (list(run.captures), report.superseded) == (["r-0:0"], 1)
    assert run.captures["r-0:0"].token_ids == [2, 3]
    assert spools(path) == ["other.jsonl"]


def test_captures_of_a_line_are_kept_where_nothing_was_sent_again(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", capture("r-0:0", "r-0"))
    turns = [turn("r", captures=["r-0:0"]), turn("r", 1, captures=["r-1:0"])]
    for _ in range(2):
        log.journal("r", {**capture("r-1:0", "r-1"), "token_ids": [9]})
        log.finish("r", trajectory(turns=turns))
    captures = read_run(path, "r").captures
    assert [captures[id].token_ids for id in ("r-0:0", "r-1:0")] == [[2, 3], [9]]


@pytest.mark.parametrize("run_id", ["../../etc/x", "a/b", "", "\ud800", "ä" * 300, 'quote"\\', "."])
def test_any_text_is_a_run_id(path: Path, run_id: str) -> None:
    log = RunLog(path)
    log.journal(run_id, {"kind": "header"})
    assert len(spools(path)) == 1
    log.finish(run_id, trajectory())
    assert [run.run_id for run in read(path)[0]] == [run_id.replace("\ud800", "\ufffd")]
    assert spools(path) == []


def test_a_torn_record_does_not_spoil_the_one_after_it(path: Path) -> None:
    log = RunLog(path)
    for n in range(2):
        log.journal("r", {"kind": "attempt", "key": f"r-0-{n}#0", "tool": "a", "upper": 1})
        if n == 0:
            tear(Path(f"{path}.spool/r.jsonl"), 5)
    assert list(log.take_up("r")) == ["r-0-1#0"]


def test_a_journal_entry_costs_a_few_microseconds(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    record = {"kind": "attempt", "key": "12345678-0-0#0", "tool": "large", "upper": 0.01}
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(500):
            log.journal("r", record)
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 50e-6  # about 4 where nothing else runs; the rest is for a busy machine
