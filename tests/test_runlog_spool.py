from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.errors import RunLogError
from orchestra_graph.runlog import repair as repair_module
from orchestra_graph.runlog import spool
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.repair import repair
from tests.runs import read, spares, spools, trajectory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def attempt(run_id: str, n: int = 0) -> dict[str, Any]:
    return {"kind": "attempt", "key": f"{run_id}#{n}", "tool": "a", "upper": 1.0}


def python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    head = (
        "import os, sys\nfrom orchestra_graph.runlog.log import RunLog\nfrom tests.runs import *\n"
        "from tests.test_runlog_spool import attempt\npath = Path(sys.argv[1])\nlog = RunLog(path)\n"
    )
    return subprocess.run([sys.executable, "-c", head + code, str(path)], capture_output=True, text=True, check=False)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns so often that a missing lock is noticed."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def refuse(code: int) -> Callable[..., None]:
    def link(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    return link


# One process


def test_runs_one_after_another_use_the_same_file(path: Path) -> None:
    log = RunLog(path)
    inodes = set()
    for n in range(20):
        log.journal(f"r{n}", attempt(f"r{n}"))
        inodes.add((path.parent / f"runs.jsonl.spool/r{n}.jsonl").stat().st_ino)
        assert list(log.take_up(f"r{n}")) == [f"r{n}#0"]
        log.finish(f"r{n}", trajectory())
        assert (spools(path), [file.stat().st_size for file in spares(path)]) == ([], [0])
    assert len(inodes) == 1
    assert len(read(path)[0]) == 20


def held(path: Path) -> list[str]:
    """Kinds of the records in the one file of a spool, without looking through the log, which would write them."""
    (file,) = Path(f"{path}.spool").glob("*.jsonl")
    return [json.loads(line)["kind"] for line in file.read_text().split()]


def test_what_came_back_is_written_with_what_is_sent_next(path: Path) -> None:
    log = RunLog(path)
    log.journal("a", attempt("a"))
    log.journal("a", {"kind": "turn", "turn": {"id": "a-0", "charges": {}}}, hold=True)
    log.journal("a", {"kind": "waiting", "call": "a"}, hold=True)
    assert held(path) == ["owner", "attempt"]
    log.journal("a", attempt("a", 1))
    assert held(path) == ["owner", "attempt", "turn", "waiting", "attempt"]


def test_what_is_held_can_be_read(path: Path) -> None:
    log = RunLog(path)
    log.journal("a", attempt("a"))
    charge = {"tool": "a", "status": "paid", "dollars": 1.0, "seconds": 1.0}
    log.journal("a", {"kind": "turn", "turn": {"id": "a-0", "charges": {"a#0": charge}}}, hold=True)
    assert log.take_up("a") == {"a#0": charge}


def test_what_is_held_of_a_run_that_ended_is_dropped(path: Path) -> None:
    log = RunLog(path)
    log.journal("a", attempt("a"))
    log.journal("a", {"kind": "waiting", "call": "a"}, hold=True)
    log.finish("a", trajectory())
    del log
    gc.collect()
    assert spools(path) == []


@pytest.mark.slow
def test_what_is_held_is_written_when_the_process_ends(path: Path) -> None:
    done = python("log.journal('a', attempt('a'))\nlog.journal('a', {'kind': 'waiting', 'call': 'a'}, hold=True)", path)
    assert (done.stderr, held(path)) == ("", ["owner", "attempt", "waiting"])


def test_300_runs_at_a_time_keep_few_files_open(path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    log = RunLog(path)
    ids = [f"r{n}" for n in range(300)]
    for n in range(3):
        for run_id in ids:
            log.journal(run_id, attempt(run_id, n))
            assert len(os.listdir("/dev/fd")) - before <= 260
    for run_id in ids:
        assert list(log.take_up(run_id)) == [f"{run_id}#{n}" for n in range(3)]
        assert log.take_up(run_id).keys() == RunLog(path).take_up(run_id).keys()
    for run_id in ids:
        log.finish(run_id, trajectory())
    assert spools(path) == []
    assert len(os.listdir("/dev/fd")) - before <= 260
    log.journal("after", attempt("after"))
    assert list(log.take_up("after")) == ["after#0"]


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_share_a_log_do_not_mix_their_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MOST_OPEN", 4)
    log = RunLog(path)

    def run(worker: int) -> None:
        for part in range(5):
            run_id = f"{worker}-{part}"
            for n in range(100):
                log.journal(run_id, attempt(run_id, n))
            assert list(log.take_up(run_id)) == [f"{run_id}#{n}" for n in range(100)]
            log.finish(run_id, trajectory(answer=run_id))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    runs, report = read(path)
    assert (len(runs), report.problems, spools(path)) == (40, [], [])
    assert all(run.answer == run.run_id for run in runs)


@pytest.mark.slow
def test_a_log_that_is_no_longer_used_leaves_only_what_did_not_end(path: Path) -> None:
    gc.collect()
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    log = RunLog(path)
    for run_id in ("ended", "goes on"):
        log.journal(run_id, attempt(run_id))
    log.finish("ended", trajectory())
    assert len(spares(path)) == 2
    del log
    gc.collect()
    assert (spares(path), len(spools(path))) == ([], 1)
    assert len(os.listdir("/dev/fd")) == before
    assert list(RunLog(path).take_up("goes on")) == ["goes on#0"]


@pytest.mark.parametrize("when", ["free", "in use", "folder"])
def test_files_that_somebody_deletes_are_made_again(path: Path, when: str) -> None:
    log = RunLog(path)
    for run_id in "ab":
        log.journal(run_id, attempt(run_id))
    log.finish("a", trajectory())
    if when == "folder":
        shutil.rmtree(f"{path}.spool")
    else:
        for file in spares(path):
            file.unlink()
    if when == "in use":
        log.finish("b", trajectory())
    for run_id in "cdef":
        log.journal(run_id, attempt(run_id))
        assert list(log.take_up(run_id)) == [f"{run_id}#0"]
        log.finish(run_id, trajectory())
    assert spools(path) == (["b.jsonl"] if when == "free" else [])
    assert len(spares(path)) == 1
    assert {run.run_id for run in read(path)[0]} >= set("acdef")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_file_system_without_hard_links_will_do(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "link", refuse(code))
    log = RunLog(path)
    for run_id in "ab":
        log.journal(run_id, attempt(run_id))
        assert repair(path).running == [run_id]
        log.finish(run_id, trajectory())
    assert (spools(path), len(read(path)[0])) == ([], 2)


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/dev/fd"))
    log = RunLog(path)
    for _ in range(5):
        with monkeypatch.context() as patch, pytest.raises(RunLogError, match="No space left"):
            patch.setattr(spool, "write_all", refuse(errno.ENOSPC))
            log.journal("r", attempt("r"))
    assert len(os.listdir("/dev/fd")) - before <= 1
    log.journal("r", attempt("r"))
    assert list(log.take_up("r")) == ["r#0"]
    assert repair(path).running == ["r"]


# Several processes


@pytest.mark.slow
def test_another_process_takes_up_a_run(path: Path) -> None:
    log = RunLog(path)
    log.journal("r", attempt("r"))
    code = """
log.journal("r", attempt("r", 1))
print(list(log.take_up("r")))
log.finish("r", trajectory())
log.journal("theirs", attempt("theirs"))
os._exit(0)
"""
    assert python(code, path).stdout == "['r#0', 'r#1']\n"
    assert spools(path) == ["theirs.jsonl"]
    for run_id in ("r", "mine"):
        log.journal(run_id, attempt(run_id))
        log.finish(run_id, trajectory())
    report = repair(path)
    assert (report.folded, report.running, spools(path)) == (["theirs"], [], [])


@pytest.mark.slow
def test_a_run_of_a_process_that_died_is_taken_up(path: Path) -> None:
    python('log.journal("r", attempt("r"))\nos._exit(0)', path)
    log = RunLog(path)
    log.journal("r", attempt("r", 1))
    assert list(log.take_up("r")) == ["r#0", "r#1"]
    report = repair(path)
    assert (report.running, report.folded) == (["r"], [])
    log.journal("r", attempt("r", 2))
    assert list(log.take_up("r")) == ["r#0", "r#1", "r#2"]
    log.finish("r", trajectory())
    assert spools(path) == []


@pytest.mark.slow
def test_a_process_that_ends_leaves_no_file_behind(path: Path) -> None:
    done = python('log.journal("r", attempt("r"))\nlog.finish("r", trajectory())\nprint(len(spares(path)))', path)
    assert done.stdout == "1\n"
    assert (spools(path), spares(path)) == ([], [])


@pytest.mark.slow
def test_repair_drops_the_files_of_a_crash_and_a_live_process_misses_none(path: Path) -> None:
    code = """
for id in "abc":
    log.journal(id, attempt(id))
for id in "ab":
    log.finish(id, trajectory())
os._exit(0)
"""
    python(code, path)
    log = RunLog(path)
    for run_id in ("d", "e"):
        log.journal(run_id, attempt(run_id))
    log.finish("d", trajectory())
    assert len(spares(path)) == 5
    report = repair(path)
    assert (report.folded, report.running, spares(path)) == (["c"], ["e"], [])
    for run_id in ("f", "g", "h"):
        log.journal(run_id, attempt(run_id))
        assert list(log.take_up(run_id)) == [f"{run_id}#0"]
        log.finish(run_id, trajectory())
    assert list(log.take_up("e")) == ["e#0"]
    log.finish("e", trajectory())
    assert {run.run_id for run in read(path)[0]} == set("abcdefgh")


def test_a_run_that_ends_while_repair_looks_is_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(path)
    for run_id in "abc":
        log.journal(run_id, attempt(run_id))

    def end_then_read(file: Path) -> spool.Journal:
        if file.stem != "b":
            log.finish(file.stem, trajectory())
        return spool.read_journal(file)

    monkeypatch.setattr(repair_module, "read_journal", end_then_read)
    report = repair(path, older_than=0)
    assert (report.running, report.folded, report.unclear) == (["b"], [], [])


FORK = """
log.finish("first", trajectory())
for id in ("parent", "free"):
    log.journal(id, attempt(id))
log.finish("free", trajectory())
before = spares(path)
if os.fork() == 0:
    sys.exit()
os.wait()
assert spares(path) == before, "a child that wrote nothing deleted spare names"
child = os.fork()
run_id = "child" if child == 0 else "mine"
for n in range(50):
    log.journal(f"{run_id}{n}", attempt(run_id, n))
    assert list(log.take_up(f"{run_id}{n}")) == [f"{run_id}#{n}"]
    log.finish(f"{run_id}{n}", trajectory(answer="x" * 5000))
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert spares(path) == before, "the child left or deleted spare names"
    log.journal("parent", attempt("parent", 1))
    print(list(log.take_up("parent")))
"""


@pytest.mark.slow
def test_a_fork_shares_no_file(path: Path) -> None:
    done = python(FORK, path)
    assert (done.stdout, done.stderr) == ("['parent#0', 'parent#1']\n", "")
    runs, report = read(path)
    assert (len(runs), report.problems, spools(path), spares(path)) == (102, [], ["parent.jsonl"], [])


@pytest.mark.slow
def test_a_child_that_ends_its_parents_run_leaves_the_parents_files_alone(path: Path) -> None:
    code = """
log.journal("r", attempt("r"))
if os.fork() == 0:
    log.finish("r", trajectory())
    sys.exit()
os.wait()
print(len(spares(path)), spares(path)[0].stat().st_size > 0)
log.journal("r", attempt("r", 1))
log.finish("r", trajectory(answer="3"))
"""
    assert python(code, path).stdout == "1 True\n"
    assert [run.answer for run in read(path)[0]] == ["3"]


# The log


@pytest.mark.parametrize("change", ["moved", "deleted", "replaced", "emptied"])
def test_a_log_may_be_rotated_between_two_runs(path: Path, change: str) -> None:
    log, old = RunLog(path), path.with_name("old.jsonl")
    log.finish("a", trajectory())
    match change:
        case "moved":
            path.rename(old)
        case "deleted":
            path.unlink()
        case "replaced":
            path.with_name("new").write_text('{"torn')
            path.with_name("new").rename(path)
        case _:
            os.truncate(path, 0)
    for run_id in "bc":
        log.finish(run_id, trajectory())
    assert [run.run_id for run in read(path)[0]] == ["b", "c"]
    if change == "moved":
        assert [json.loads(line)["run_id"] for line in old.read_text().splitlines()] == ["a"]


@pytest.mark.usefixtures("hasty_threads")
def test_a_log_may_be_rotated_while_threads_write(path: Path) -> None:
    log = RunLog(path)
    with ThreadPoolExecutor(8) as pool:
        written = [pool.submit(log.finish, str(n), trajectory()) for n in range(600)]
        for n in range(20):
            written[30 * n].result()
            path.rename(path.with_name(f"{n}.old"))
            log.finish(f"after {n}", trajectory())
        for future in written:
            future.result()
    ids = [run.run_id for file in path.parent.iterdir() if file.is_file() for run in read(file)[0]]
    assert sorted(ids) == sorted([*map(str, range(600)), *(f"after {n}" for n in range(20))])


@pytest.mark.slow
def test_a_fork_waits_for_its_parent_to_write(path: Path) -> None:
    code = """
import fcntl, time
log.finish("a", trajectory())
fcntl.flock(log._lines._descriptor, fcntl.LOCK_EX)
if os.fork() == 0:
    log.finish("b", trajectory())
    sys.exit()
time.sleep(0.3)
print(path.read_text().count("run_id"))
fcntl.flock(log._lines._descriptor, fcntl.LOCK_UN)
os.wait()
print(path.read_text().count("run_id"))
"""
    assert python(code, path).stdout == "1\n2\n"


@pytest.mark.slow
def test_threads_and_processes_append_whole_lines(path: Path) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
log.finish("0", trajectory())
child = os.fork()
def write(n):
    log.finish(f"{child == 0}-{n}", trajectory(answer="x" * (n * 997 % 100_000)))
with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(200)))
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
    assert python(code, path).returncode == 0
    runs, report = read(path)
    assert (len(runs), report.lines, report.problems) == (401, 401, [])
