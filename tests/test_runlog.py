"""A run is a line of the log: written, read back, judged; and lines that are torn or foreign."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import RunLogError
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import ReadReport, read_lines, read_run, read_runs
from orchestra_graph.runlog.record import Verdict
from tests.runs import NAMES, read, spools, tear, trajectory, turn


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


ruling = Verdict(outcome=1.0, by="exact", reason="the same text")


# Writing and reading


def test_a_run_is_one_line_that_reads_back(path: Path) -> None:
    log = RunLog(path)
    catalog = Catalog.of([ToolSpec(name="search", price=Price(per_call=0.01), fallback=())])
    started = datetime.now(UTC)
    log.finish(
        "run-1",
        trajectory(
            task={"id": "t1", "question": "Ä?", "level": 3},
            group_id="g",
            rollout=2,
            split="train",
            purpose="train",
            seeds={"sampling": 7},
            protocol="conversation",
            catalog=catalog.model_dump(mode="json"),
            catalog_hash=catalog.hash,
            preferences=Preferences(prefer={"search": 1}).model_dump(mode="json"),
            budget=Budget(seconds=30).model_dump(),
            policy={"name": "rules", "weights_hash": None, "step": 3},
            tokenizer="Qwen/Qwen3-8B",
            template_hash="abc",
            sampling={"temperature": 1.0},
            constraint="required",
            logprobs_mode="processed_logprobs",
            versions={"langgraph": "1.2.22"},
            started_at=started.isoformat(),
            ended_at=started,
            turns=[turn("run-1")],
            stopped_by="answer",
            verdict={"outcome": 1.0, "by": "sympy"},
        ),
    )
    [run], report = read(path)
    assert run.task.question == "Ä?"
    assert run.task.model_extra == {"level": 3}
    assert run.catalog == catalog
    assert run.catalog_hash == catalog.hash == run.catalog.hash
    assert run.preferences.prefer == {"search": 1}
    assert run.budget == Budget(dollars=math.inf, seconds=30)
    assert run.policy is not None and run.policy.step == 3
    assert (run.started_at, run.ended_at) == (started, started)
    assert run.turns == [turn("run-1")]
    assert run.verdict is not None and run.verdict.outcome == 1.0
    assert (report.lines, report.runs, report.problems) == (1, 1, [])


def test_line_ends_of_another_system_are_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for id in ("a", "b"):
        RunLog(path).finish(id, trajectory())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    report = ReadReport()
    assert ([run.run_id for run in read_runs(path, report=report)], report.problems) == (["a", "b"], [])


def test_the_header_may_be_all_but_empty(path: Path) -> None:
    RunLog(path).finish("r", {"task": {"question": "?"}, "turns": [], "ended": "failed", "error": "x"})
    [run], _ = read(path)
    assert (run.run_id, run.ended, run.error, run.budget) == ("r", "failed", "x", Budget())


def test_each_line_is_json_and_a_compressed_log_is_ordinary_zstd(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl", compress=True)
    assert log.path.name == "runs.jsonl.zst"
    for id in "ab":
        log.finish(id, trajectory())
    with log.path.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read().decode()
    assert [json.loads(line)["run_id"] for line in text.splitlines()] == ["a", "b"]


def test_the_last_line_of_a_run_wins(path: Path) -> None:
    log = RunLog(path)
    log.finish("a", trajectory(answer="1"))
    log.finish("b", trajectory(answer="2"))
    log.finish("a", trajectory(answer="3"))
    runs, report = read(path)
    assert [(run.run_id, run.answer) for run in runs] == [("b", "2"), ("a", "3")]
    assert (report.lines, report.superseded) == (3, 1)
    assert read_run(path, "a").answer == "3"


def test_a_verdict_is_a_line_of_its_own_that_adds_to_the_run(path: Path) -> None:
    log = RunLog(path)
    for id in "abc":
        log.finish(id, trajectory(verdict={"outcome": 0.5, "by": "first"} if id == "b" else None))
    size = path.stat().st_size
    log.judge("b", Verdict(outcome=0.0, by="second"))
    log.judge("b", ruling)
    assert path.stat().st_size - size < 400
    log.judge("a", ruling)
    log.finish("a", trajectory(answer="later"))  # it went on: whether it is solved now nobody has said
    log.judge("d", ruling)
    runs, report = read(path)
    assert {run.run_id: (run.verdict, run.answer) for run in runs} == {
        "a": (None, "later"),
        "b": (ruling, "2"),
        "c": (None, "2"),
    }
    assert (report.lines, report.runs, report.superseded, report.verdicts) == (8, 3, 2, 3)
    assert dict(report.faults) == {"alone": 1}
    assert report.problems == [f"{path}:8: alone: a verdict of a run that the log does not have"]
    assert read_run(path, "b").verdict == ruling


def test_a_verdict_stays_with_a_run_whose_newest_line_is_torn(path: Path) -> None:
    log = RunLog(path)
    log.finish("a", trajectory())
    log.judge("a", ruling)
    log.judge("a", Verdict(outcome=0.0, by="torn"))
    tear(path)
    [run], report = read(path)
    assert (run.verdict, report.faults["torn"]) == (ruling, 1)


def test_a_catalog_that_was_read_before_is_not_read_again_and_runs_share_it(path: Path) -> None:
    log = RunLog(path)
    one, other = (Catalog.of([ToolSpec(name="search", price=Price(per_call=price))]) for price in (0.01, 0.02))
    for id, catalog in [("a", one), ("b", other), ("c", one)]:
        log.finish(id, trajectory(catalog=catalog.json_data, catalog_hash=catalog.hash))
    (a, b, c), _ = read(path)
    assert (a.catalog, b.catalog, c.catalog) == (one, other, one)
    assert a.catalog is c.catalog


def test_what_looks_like_the_catalog_elsewhere_in_a_line_stays_there(path: Path) -> None:
    log = RunLog(path)
    catalog = Catalog.of([ToolSpec(name="search")])
    named = {"catalog": catalog.json_data, "catalog_hash": catalog.hash}
    log.finish("a", trajectory(task={"question": "?", **named}))
    log.finish("b", trajectory(task={"question": "?", **named}, **named))
    log.finish("c", trajectory(**named))
    log.finish("d", trajectory(catalog_hash=catalog.hash, catalog=catalog.json_data))
    runs, _ = read(path)
    assert [run.task.model_extra for run in runs] == [named, named, {}, {}]
    assert [run.catalog for run in runs] == [None, catalog, catalog, catalog]


def test_a_wrong_catalog_is_told_like_any_other_field(path: Path) -> None:
    catalog = {"tools": {"search": {"name": "search", "price": {"per_call": -1}}}}
    RunLog(path).finish("a", trajectory(catalog=catalog, catalog_hash="h"))
    _, report = read(path)
    assert report.problems == [
        f"{path}:1: invalid: catalog.tools.search.price.per_call = '-1': Input should be greater than or equal to 0"
    ]


def test_runs_that_are_known_are_passed_over_and_counted(path: Path) -> None:
    log, report = RunLog(path), ReadReport()
    for id in "ab":
        log.finish(id, trajectory())
    [found] = read_lines(path, report=report, known={"a"})
    assert (found.run.run_id, report.runs, report.known, report.lines) == ("b", 1, 1, 2)
    assert json.loads(found.line)["run_id"] == "b"


def test_an_unknown_run_and_a_missing_log_are_one_clear_error(path: Path) -> None:
    with pytest.raises(RunLogError, match="no such run log"):
        next(read_runs(path))
    log = RunLog(path)
    log.journal("a", {"kind": "header"})
    with pytest.raises(RunLogError, match=r"no such run log; .* orchestra runs repair .*runs.jsonl"):
        next(read_runs(path))
    log.finish("a", trajectory())
    with pytest.raises(RunLogError, match="no run 'b'"):
        read_run(path, "b")


def test_a_log_that_cannot_be_written_is_one_clear_error_and_keeps_the_spool(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").mkdir()
    log = RunLog(tmp_path / "runs.jsonl")
    log.journal("a", {"kind": "header"})
    with pytest.raises(RunLogError, match="Is a directory"):
        log.finish("a", trajectory())
    assert spools(log.path) == ["a.jsonl"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunLogError, match="Not a directory"):
        RunLog(tmp_path / "file" / "runs.jsonl").journal("a", {"kind": "header"})


def test_a_line_of_50_mb(path: Path) -> None:
    log = RunLog(path)
    log.finish("big", trajectory(answer="x" * 50_000_000))
    log.finish("small", trajectory())
    runs, report = read(path)
    assert [len(run.answer or "") for run in runs] == [50_000_000, 1]
    assert report.problems == []


# Torn and foreign lines


def test_a_log_that_was_packed_anew_is_told_how_to_unpack(tmp_path: Path) -> None:
    path = tmp_path / "packed.jsonl.zst"
    line = json.dumps({"version": 1, "run_id": "r", "turns": []}).encode() + b"\n"
    path.write_bytes(zstandard.ZstdCompressor().compress(2 * line))
    report = ReadReport()
    assert list(read_runs(path, report=report)) == []
    assert report.problems == [
        f"{path}:1: torn: the frame holds several lines, and a log one in each; "
        "fix: zstd -d the file, and name it .jsonl"
    ]


def test_a_torn_line_costs_only_itself(path: Path) -> None:
    log = RunLog(path)
    for id in "abc":
        log.finish(id, trajectory())
        if id == "b":
            tear(path)
    runs, report = read(path)
    assert [run.run_id for run in runs] == ["a", "c"]
    assert report.faults == {"torn": 1}
    assert report.problems[0].startswith(f"{path}:2: torn: ")


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 30, 60])
def test_a_torn_tail_of_any_length(path: Path, cut: int) -> None:
    log = RunLog(path)
    log.finish("a", trajectory())
    log.finish("b", trajectory())
    tear(path, cut)
    whole = cut == 1 and path.suffix == ".jsonl"  # only the newline is gone
    assert [run.run_id for run in read(path)[0]] == ["a", "b"] if whole else ["a"]
    log.finish("c", trajectory())
    assert [run.run_id for run in read(path)[0]] == (["a", "b", "c"] if whole else ["a", "c"])


def test_the_line_before_stands_in_for_a_torn_last_one(path: Path) -> None:
    log = RunLog(path)
    log.finish("a", trajectory(answer="1"))
    log.finish("a", trajectory(answer="2"))
    tear(path)
    runs, report = read(path)
    assert [run.answer for run in runs] == ["1"]
    assert report.faults == {"torn": 1}


def test_damage_in_the_middle_of_a_compressed_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.zst")
    sizes = []
    for id in "abcd":
        log.finish(id, trajectory(answer=id * 300_000))
        sizes.append(log.path.stat().st_size)
    data = bytearray(log.path.read_bytes())
    data[sizes[0] + 20] ^= 0xFF
    log.path.write_bytes(b"no frame" + data)
    runs, report = read(log.path)
    assert [run.run_id for run in runs] == ["a", "c", "d"]
    assert report.faults["torn"] >= 2


def test_foreign_lines_are_counted_with_their_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs.jsonl"
    log = RunLog(path)
    log.finish("a", trajectory())
    with path.open("a") as file:
        file.write('hello\n{"x": 1}\n{not json}\n[1]\n\n')
        file.write('{"version":2,"run_id":"b","ended":"answered"}\n{"version": 3, "run_id": "b"}\n')
        file.write('{"version":1,"run_id":"c","task":{"question":"?"},"turns":[],"ended":"never"}\n')
        file.write('{"run_id": "d", "version": 1, "task": {"question": "?"}, "ended": "failed"}\n')
    runs, report = read(path)
    assert [run.run_id for run in runs] == ["a", "d"]
    assert report.faults == {"torn": 3, "foreign": 1, "version": 2, "invalid": 1}
    assert [problem.removeprefix(f"{path}:").partition(": ")[0] for problem in report.problems] == list("2345789")
    assert "version: version 2; expected 1" in report.problems[4]
    assert "invalid: ended = 'never'" in report.problems[6]
    list(read_runs(path))
    assert [record.message for record in caplog.records] == report.problems


def test_only_the_first_reason_of_an_invalid_run_is_told_and_the_earlier_line_read(path: Path) -> None:
    log = RunLog(path)
    log.finish("a", trajectory(answer="1"))
    log.finish("a", trajectory(budget={"turns": 0}))
    runs, report = read(path)
    assert [run.answer for run in runs] == ["1"]
    assert report.problems[0].startswith(f"{path}:2: invalid: budget.turns = '0'")
