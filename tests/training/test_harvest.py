"""Harvests of run logs: nothing lost, nothing doubled, all that is left out counted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.harvest.gather import REPORT, TEST, TRAIN, harvest
from orchestra_training.harvest.langsmith import LangSmithSource
from orchestra_training.harvest.logs import LogSource, logs_in
from orchestra_training.harvest.output import provenance
from orchestra_training.harvest.sources import Wanted, open_sources
from orchestra_training.harvest.split import is_test, task_hash

from orchestra_graph import RunLog
from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError, RunLogError
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Task, Trajectory, Verdict
from tests.runs import tear
from tests.training.runs import CATALOG, decided
from tests.training.test_fidelity import EXACT, capture

SOLVED = Verdict(outcome=1.0, by="exact")
UNTOLD = Verdict(outcome=None, by="judge")


def fields(number: int = 0, **parts: Any) -> dict[str, Any]:
    """What a run writes into its log."""
    return {
        "task": {"question": f"What is {number} + 1?", "id": f"t{number}"},
        "turns": [decided(0, ["search"]), decided(1, ["large"])],
        "ended": "answered",
        "answer": str(number + 1),
        "catalog": CATALOG.json_data,
        "catalog_hash": CATALOG.hash,
        **parts,
    }


def faithful(number: int = 0, **parts: Any) -> dict[str, Any]:
    """The same of a run whose tokens are known."""
    turns = [decided(0, ["search"], captures=["a"]), decided(1, ["large"], captures=["b"])]
    return fields(number, turns=turns, **EXACT, **parts)


def write(log: RunLog, run_id: str, trajectory: dict[str, Any], *, judged: bool = True) -> None:
    for id in [name for turn in trajectory["turns"] for name in turn.get("captures", ())]:
        log.journal(run_id, {"kind": "capture", **capture(id)})
    log.finish(run_id, trajectory)
    if judged:
        log.judge(run_id, SOLVED)


def runs_of(folder: Path) -> dict[str, Trajectory]:
    """All harvested runs; none is in both files."""
    runs = [run for name in (TRAIN, TEST) if (folder / name).exists() for run in read_runs(folder / name)]
    assert len({run.run_id for run in runs}) == len(runs)
    return {run.run_id: run for run in runs}


def without_provenance(run: Trajectory) -> dict[str, Any]:
    return run.model_dump(exclude={"harvest"})


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.jsonl.zst"])
def test_runs_come_through_as_they_were_judged_and_split_by_task(tmp_path: Path, name: str) -> None:
    log = RunLog(tmp_path / name)
    for number in range(60):
        write(log, f"run-{number}", fields(number // 3, group_id=f"g{number // 3}"), judged=number % 2 == 0)
    report = harvest([LogSource(log.path)], tmp_path / "data", test_share=0.3)
    before, after = {run.run_id: run for run in read_runs(log.path)}, runs_of(tmp_path / "data")
    assert {id: without_provenance(run) for id, run in after.items()} == {
        id: without_provenance(run) for id, run in before.items()
    }
    train, test = (list(read_runs(tmp_path / "data" / file)) for file in (TRAIN, TEST))
    assert len(train) > 0 < len(test)
    assert not {run.task.id for run in train} & {run.task.id for run in test}
    assert (report.runs, report.splits["train"].runs, report.splits["test"].runs) == (60, len(train), len(test))
    assert sum(split.tasks for split in report.splits.values()) == 20
    assert sum(split.judged for split in report.splits.values()) == 30
    assert report.fidelity == {"text": 60}
    told = provenance(train[0])
    assert told is not None
    assert (told.source, told.fidelity, told.shortfall) == (str(log.path), "text", "no_tokens")
    saved = json.loads((tmp_path / "data" / REPORT).read_bytes())
    assert (saved["state"], saved["runs"], saved["fidelity"]) == ("done", 60, {"text": 60})


def test_of_a_run_in_two_logs_the_better_one_stands_with_the_verdict_of_either(tmp_path: Path) -> None:
    one, two = RunLog(tmp_path / "one.jsonl"), RunLog(tmp_path / "two.jsonl")
    write(one, "a", fields(1))  # judged here, exact there
    write(two, "a", faithful(1), judged=False)
    write(one, "b", faithful(2), judged=False)  # exact here, judged there
    write(two, "b", fields(2))
    write(one, "c", fields(3, ended="abandoned", answer=None), judged=False)
    write(two, "c", fields(3), judged=False)
    write(one, "d", fields(4), judged=False)
    report = harvest([LogSource(one.path), LogSource(two.path)], tmp_path / "data")
    runs = runs_of(tmp_path / "data")
    assert {id: (run.ended, run.verdict) for id, run in runs.items()} == {
        "a": ("answered", SOLVED),
        "b": ("answered", SOLVED),
        "c": ("answered", None),
        "d": ("answered", None),
    }
    stated = {id: provenance(run) for id, run in runs.items()}
    assert {id: told.fidelity for id, told in stated.items() if told} == {
        "a": "exact",
        "b": "exact",
        "c": "text",
        "d": "text",
    }
    assert report.sources[1].noted["duplicates"] == 3
    assert report.written == {str(one.path): 2, str(two.path): 2}
    assert report.fidelity == {"exact": 2, "text": 2}
    assert sum(split.judged for split in report.splits.values()) == 2


@pytest.mark.parametrize("exact_first", [False, True])
@pytest.mark.parametrize("judged_first", [False, True])
def test_a_judge_that_could_not_tell_stands_in_nobodys_way(
    tmp_path: Path, judged_first: bool, exact_first: bool
) -> None:
    logs = [RunLog(tmp_path / f"{name}.jsonl") for name in ("one", "two")]
    for log, judged, exact in zip(logs, (judged_first, not judged_first), (exact_first, not exact_first), strict=True):
        write(log, "a", faithful(1) if exact else fields(1), judged=False)
        write(log, "b", fields(2), judged=False)
        log.judge("a", SOLVED if judged else UNTOLD)
        log.judge("b", UNTOLD)
    report = harvest([LogSource(log.path) for log in logs], tmp_path / "data")
    runs = runs_of(tmp_path / "data")
    assert {id: run.verdict for id, run in runs.items()} == {"a": SOLVED, "b": UNTOLD}
    assert report.fidelity == {"exact": 1, "text": 1}
    assert sum(split.judged for split in report.splits.values()) == 1


def test_what_cannot_be_read_or_used_is_counted_with_its_reason(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for number in range(4):
        write(log, f"run-{number}", fields(number), judged=False)
    with log.path.open("ab") as file:
        file.write(b'{"some":"thing else"}\n[1,2]\n')
        file.write(b'{"version":7,"run_id":"later"}\n{"version":1,"task":{"question":"no id"},"ended":"answered"}\n')
    log.finish("wrong", fields(ended="vanished"))
    log.finish("nothing", fields(task={"question": " "}))
    log.finish("skewed", fields(started_at="2026-01-01T00:00:10+00:00", ended_at="2026-01-01T00:00:00+00:00"))
    log.judge("nobody", SOLVED)
    log.journal("going", {"kind": "header", **fields()})
    log.finish("torn", fields(9))
    tear(log.path)
    report = harvest([LogSource(log.path)], tmp_path / "data")
    assert report.skipped == {
        "foreign": 2,
        "version": 1,
        "invalid": 1,
        "no_task": 1,
        "alone": 1,
        "running": 1,
        "torn": 2,
    }
    assert (report.runs, report.clock_skew) == (5, 1)
    source = report.sources[0]
    assert source.read == 13
    assert source.read + 1 == report.runs + sum(report.skipped.values())  # the one that runs has no line
    [invalid] = [problem for problem in source.problems if "invalid" in problem]
    assert invalid.startswith(f"{log.path}:9: invalid: ended = 'vanished'")
    assert len(source.problems) == 9


def test_a_waiting_run_of_a_process_that_is_gone_is_counted_and_told_how_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    code = "import sys; from orchestra_graph import RunLog; RunLog(sys.argv[1]).journal('a', {'kind': 'header'})"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    write(RunLog(path), "b", fields())
    report = harvest([LogSource(path)], tmp_path / "data")
    assert report.skipped == {"not_ended": 1}
    assert f"orchestra runs repair {path}" in report.sources[0].problems[0]


def test_a_folder_is_its_logs(tmp_path: Path) -> None:
    for name in ("a.jsonl", "deep/b.jsonl.zst"):
        write(RunLog(tmp_path / "runs" / name), name, fields())
    (tmp_path / "runs" / "a.parquet").touch()
    pattern = str(tmp_path / "runs" / "a.*")
    assert [source.name for source in open_sources([pattern])] == [str(tmp_path / "runs" / "a.jsonl"), pattern]
    RunLog(tmp_path / "runs" / "a.jsonl").journal("going", {"kind": "header"})
    assert [source.path.name for source in logs_in(tmp_path / "runs")] == ["a.jsonl", "b.jsonl.zst"]
    assert [source.name for source in open_sources([pattern])] == [str(tmp_path / "runs" / "a.jsonl"), pattern]
    spool = tmp_path / "runs" / "a.jsonl.spool"
    with pytest.raises(ConfigError, match=r"a.jsonl.spool: holds neither run logs nor \*.parquet; expected a folder"):
        open_sources([str(spool)])


def test_a_nested_run_is_harvested_with_the_run_around_it_or_alone_where_that_is_missing(tmp_path: Path) -> None:
    log, outer, lone = RunLog(tmp_path / "runs.jsonl"), "a" * 32, "c" * 32
    inner = fields(1, parent=f"{outer[:8]}-0-0")
    write(log, "b" * 32, inner)
    write(log, outer, fields(0, runs={"b" * 32: {**inner, "run_id": "b" * 32}}))
    write(log, lone, fields(2, parent="dddddddd-0-0"))
    report = harvest([LogSource(log.path)], tmp_path / "data", test_share=0.5)
    runs = runs_of(tmp_path / "data")
    assert {id: set(run.runs) for id, run in runs.items()} == {outer: {"b" * 32}, lone: set()}
    assert (report.sources[0].runs, report.sources[0].noted["nested"]) == (2, 1)


# Redaction


def hide_names(text: str) -> str:
    return re.sub("Ada Lovelace", "[name]", text)


def test_redaction_reaches_every_text_and_takes_the_tokens_that_spell_it(tmp_path: Path) -> None:
    log, name = RunLog(tmp_path / "runs.jsonl"), "Ada Lovelace"
    call: dict[str, Any] = {"id": "r-0-0", "tool": "search", "args": {"id": name, "deep": [{"by": name}]}}
    decision = {"calls": [call], "reason": name, "thought": name, "repaired": [name]}
    outcome = {"content": name, "answer": name, "artifacts": [{"model": name}]}
    turn = decided(0, ["search"], decision=decision, outcome=outcome, captures=["a"])
    turn["decision"]["problem"] = {"kind": "too_many_calls", "detail": name}
    turn["charges"]["r-0#0"]["error"] = name
    inner = {**faithful(), "run_id": "inner", "answer": name, "ended": "answered"}
    inner["captures"] = {id: capture(id, reasoning=name) for id in "ab"}
    write(
        log,
        "a",
        faithful(task={"question": f"Who is {name}?", "note": name}, answer=name, error=name, runs={"inner": inner})
        | {"turns": [turn], "preferences": {"text": name}},
    )
    log.judge("a", Verdict.model_validate({"outcome": 1.0, "by": "judge", "reason": name}))
    write(log, "b", faithful(2))
    report = harvest([LogSource(log.path)], tmp_path / "data", redact=hide_names)
    runs = runs_of(tmp_path / "data")
    text = runs["a"].model_dump_json()
    assert name not in text
    assert text.count("[name]") == 17
    assert (runs["a"].captures, runs["a"].turns[0].get("captures"), runs["a"].runs["inner"].captures) == ({}, None, {})
    assert runs["a"].catalog == CATALOG
    assert report.fidelity == {"exact": 1, "rendered": 1}
    assert report.shortfalls == {"rendered: redacted": 1}


# Interruptions


def interrupted(after: int) -> Any:
    """Interrupts a harvest when so many runs of a source were read."""

    def stop(report: Any) -> None:
        if report.runs == after:
            raise KeyboardInterrupt

    return stop


def test_an_interrupted_harvest_goes_on_where_it_was(tmp_path: Path) -> None:
    log, data = RunLog(tmp_path / "runs.jsonl"), tmp_path / "data"
    for number in range(20):
        write(log, f"run-{number}", fields(number), judged=number % 2 == 0)
    whole = harvest([LogSource(log.path)], tmp_path / "whole", test_share=0.3)

    with pytest.raises(KeyboardInterrupt):
        harvest([LogSource(log.path)], data, test_share=0.3, on_run=interrupted(9))
    tear(data / TRAIN, 10)
    with pytest.raises(ConfigError, match="was interrupted; expected the same"):
        harvest([LogSource(log.path)], data, test_share=0.2)
    report = harvest([LogSource(log.path)], data, test_share=0.3)
    assert report.sources[0].known == 5  # the torn one is read again, and those that may have been judged since
    assert {**report.to_json(), "sources": [], "splits": {}} == {**whole.to_json(), "sources": [], "splits": {}}
    assert {id: without_provenance(run) for id, run in runs_of(data).items()} == {
        id: without_provenance(run) for id, run in runs_of(tmp_path / "whole").items()
    }
    with (data / TRAIN).open("rb") as file:  # what any reader of zstd takes: no torn frame is left inside
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    assert text.endswith(b"}\n")
    assert len(text.splitlines()) == report.splits["train"].runs
    with pytest.raises(ConfigError, match="a harvest that is done"):
        harvest([LogSource(log.path)], data, test_share=0.3)


def test_an_interrupted_harvest_goes_on_with_the_same_catalogs_filter_dates_and_feedback_only(tmp_path: Path) -> None:
    class DownError(Exception):
        pass

    def client() -> Any:
        raise DownError

    def start(wanted: Wanted, catalogs: dict[str, Catalog]) -> None:
        harvest([LangSmithSource("mine", wanted, client)], tmp_path / "data", catalogs=catalogs)

    january, known = Wanted(since=datetime(2026, 1, 1, tzinfo=UTC)), {CATALOG.hash: CATALOG}
    with pytest.raises(DownError):
        start(january, known)
    for wanted, catalogs in ((january, {}), (Wanted(), known), (replace(january, feedback="good"), known)):
        with pytest.raises(ConfigError, match="was interrupted; expected the same"):
            start(wanted, catalogs)
    with pytest.raises(DownError):
        start(january, known)


def test_a_verdict_that_comes_while_a_harvest_is_interrupted_is_taken(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for number in range(3):
        write(log, f"run-{number}", fields(number), judged=number == 0)
    with pytest.raises(KeyboardInterrupt):
        harvest([LogSource(log.path)], tmp_path / "data", on_run=interrupted(2))
    log.judge("run-1", SOLVED)
    report = harvest([LogSource(log.path)], tmp_path / "data")
    assert {id: run.verdict for id, run in runs_of(tmp_path / "data").items()} == {
        "run-0": SOLVED,
        "run-1": SOLVED,
        "run-2": None,
    }
    assert sum(split.judged for split in report.splits.values()) == 2
    assert (report.sources[0].known, report.sources[0].runs, report.sources[0].noted) == (1, 2, {"verdicts": 1})


def test_an_interrupted_harvest_into_a_folder_of_its_logs_goes_on(tmp_path: Path) -> None:
    log, data = RunLog(tmp_path / "runs" / "a.jsonl"), tmp_path / "runs" / "data"
    for number in range(3):
        write(log, f"run-{number}", fields(number))
    with pytest.raises(KeyboardInterrupt):
        harvest(logs_in(tmp_path / "runs"), data, on_run=interrupted(2))
    report = harvest(logs_in(tmp_path / "runs"), data)
    assert (report.runs, report.written) == (3, {str(log.path): 3})


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.zst"))


KILLED = """
import sys, time
from pathlib import Path
from orchestra_training.harvest.gather import harvest
from orchestra_training.harvest.logs import LogSource

def slowly(report):
    time.sleep(0.002)

harvest([LogSource(Path(sys.argv[1])), LogSource(Path(sys.argv[2]))], Path(sys.argv[3]), on_run=slowly)
"""


@pytest.mark.slow
def test_killed_again_and_again_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """By SIGKILL, at whatever it does; the second log has half of the runs again, better, and judged."""
    one, two, data = RunLog(tmp_path / "one.jsonl.zst"), RunLog(tmp_path / "two.jsonl"), tmp_path / "data"
    for number in range(300):
        write(one, f"run-{number}", fields(number), judged=False)
        if number % 2:
            write(two, f"run-{number}", faithful(number))
    command = [sys.executable, "-c", KILLED, str(one.path), str(two.path), str(data)]
    for kill in range(3):
        written = size(data)
        process = subprocess.Popen(command)
        while size(data) < written + 5_000 * (kill + 1):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    runs = runs_of(data)
    assert runs.keys() == {f"run-{number}" for number in range(300)}
    assert {run.verdict for run in runs.values() if run.captures} == {SOLVED}
    saved = json.loads((data / REPORT).read_bytes())
    assert saved["fidelity"] == {"text": 150, "exact": 150}
    assert (saved["runs"], saved["splits"]["train"]["judged"] + saved["splits"]["test"]["judged"]) == (300, 150)


def test_two_harvests_do_not_write_into_one_folder(tmp_path: Path) -> None:
    write(RunLog(tmp_path / "runs.jsonl"), "a", fields())

    def again(report: Any) -> None:
        harvest([LogSource(tmp_path / "runs.jsonl")], tmp_path / "data")

    with pytest.raises(ConfigError, match="another harvest writes here"):
        harvest([LogSource(tmp_path / "runs.jsonl")], tmp_path / "data", on_run=again)


def test_a_folder_with_somebody_elses_files_is_left_alone(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "data" / "train.jsonl.zst")
    write(log, "a", fields())
    size = log.path.stat().st_size
    with pytest.raises(RunLogError, match=r"train.jsonl.zst:1: no line of a harvest"):
        harvest([LogSource(log.path)], tmp_path / "data")
    assert log.path.stat().st_size == size


def test_a_harvest_can_be_harvested(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    write(log, "a", faithful())
    harvest([LogSource(log.path)], tmp_path / "one", test_share=0)
    harvest([LogSource(tmp_path / "one" / TRAIN)], tmp_path / "two", test_share=0)
    (run,) = read_runs(tmp_path / "two" / TRAIN)
    told = provenance(run)
    assert told is not None
    assert (told.source, told.fidelity) == (str(tmp_path / "one" / TRAIN), "exact")


# Splits


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_task_is_on_one_side_and_stays_there_when_the_share_grows(question: str, one: float, other: float) -> None:
    hash = task_hash(Task(question=question, id="t"))
    assert hash is not None
    assert (
        hash == task_hash(Task(question=f"  {question} ".upper().lower(), id="t"))
        or question.upper().lower() != question.lower()
    )
    low, high = sorted((one, other))
    assert is_test(hash, low) <= is_test(hash, high)
    assert (is_test(hash, 0), is_test(hash, 1)) == (False, True)


def test_shares_are_kept_about() -> None:
    hashes = [task_hash(Task(question=f"question {n}")) for n in range(2_000)]
    share = sum(is_test(hash, 0.25) for hash in hashes if hash) / 2_000
    assert 0.2 < share < 0.3
