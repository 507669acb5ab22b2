"""`orchestra harvest` and `orchestra runs score` as a user meets them."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from orchestra_training.evaluate.score import write_reference

from orchestra_graph import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Verdict
from tests.commands import Orchestra, complaint
from tests.commands import orchestra as orchestra
from tests.training.runs import decided, run
from tests.training.test_harvest import fields, runs_of, write

POLICY = {"name": "tiny", "weights_hash": "w", "step": 3}


def test_a_folder_of_logs_becomes_train_and_test(orchestra: Orchestra, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.zst"):
        log = RunLog(tmp_path / "runs" / name)
        for number in range(10):
            write(log, f"{name}-{number}", fields(number))
    with (tmp_path / "runs" / "a.jsonl").open("ab") as file:
        file.write(b"{torn")
    done = orchestra("harvest", "--from", "runs", "--to", "data", "--test-share", 0.3)
    assert done.code == 0, done.err
    assert "fidelity: 20 text" in done.out
    assert "runs/a.jsonl:21: torn: the line is cut short" in done.err
    assert len(runs_of(tmp_path / "data")) == 20
    again = orchestra("harvest", "--from", "runs", "--to", "data", "--test-share", 0.3)
    assert again.code == 1
    assert again.err.startswith("error: data/harvest.json: a harvest that is done; fix:")
    told = orchestra("harvest", "--from", "runs/*", "--to", "again", "--json").json
    assert (told["runs"], told["skipped"], told["fidelity"]) == (20, {"torn": 1}, {"text": 20})


def test_a_catalog_of_which_only_the_hash_is_stated_comes_from_a_run_log(orchestra: Orchestra, tmp_path: Path) -> None:
    write(RunLog(tmp_path / "runs.jsonl"), "a", fields(1))
    with (tmp_path / "bare.jsonl").open("wb") as bare:
        for line in (tmp_path / "runs.jsonl").read_bytes().splitlines():
            bare.write(
                orjson.dumps({key: value for key, value in orjson.loads(line).items() if key != "catalog"}) + b"\n"
            )
    told = "catalog not known: 1 run, of which no tokens can be rendered; fix: --catalogs RUNS.jsonl"
    assert told in orchestra("harvest", "--from", "bare.jsonl", "--to", "without").out
    done = orchestra("harvest", "--from", "bare.jsonl", "--to", "data", "--catalogs", "runs.jsonl")
    assert done.code == 0 and "catalog not known" not in done.out
    assert runs_of(tmp_path / "data")["a"].catalog == next(read_runs(tmp_path / "runs.jsonl")).catalog is not None


def test_texts_are_redacted_by_a_function_that_is_named(orchestra: Orchestra, tmp_path: Path) -> None:
    write(RunLog(tmp_path / "runs.jsonl"), "a", fields(answer="the key is sk-abcdefgh12345678"))
    (tmp_path / "my_redaction.py").write_text("from orchestra_graph.redact import hide_secrets as hide")
    for number, redact in enumerate(("orchestra_graph.redact:hide_secrets", "my_redaction:hide")):
        folder = tmp_path / f"data{number}"
        done = orchestra("harvest", "--from", "runs.jsonl", "--to", folder, "--redact", redact)
        assert done.code == 0, done.err
        assert [run.answer for run in runs_of(folder).values()] == ["the key is [secret]"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", "nowhere"), "error: --from nowhere: no such file or folder; expected a folder of run logs"),
        (("--from", "notes.txt"), "error: --from notes.txt: not known what it holds; expected a folder of run logs"),
        (("--from", "other.sqlite"), "error: other.sqlite: no such table: checkpoints; expected checkpoints"),
        (("--from", "runs.jsonl", "--catalogs", "none.jsonl"), "error: none.jsonl: "),
        (("--from", "runs.jsonl", "--redact", "nothing"), "error: --redact nothing: expected MODULE:FUNCTION"),
        (("--from", "runs.jsonl", "--redact", "os:nothing"), "error: --redact os:nothing: AttributeError: module"),
        (("--from", "runs.jsonl", "--redact", "torn_redaction:f"), "error: --redact torn_redaction:f: ValueError: oh"),
        (("--from", "runs.jsonl", "--from", "runs.jsonl"), "error: sources = ['runs.jsonl', 'runs.jsonl']; expected"),
        (("--from", "postgresql://nobody@127.0.0.1:1/x"), "error: postgresql://127.0.0.1:1/x: "),
    ],
)
def test_bad_input_is_one_line(orchestra: Orchestra, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "torn_redaction.py").write_text("raise ValueError('oh')")
    sqlite3.connect(tmp_path / "other.sqlite").close()
    write(RunLog(tmp_path / "runs.jsonl"), "a", fields())
    done = orchestra("harvest", *arguments, "--to", "data")
    assert done.code == 1
    assert done.err.startswith(told)
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "option", [("--filter", "nonsense("), ("--since", "2024-01-01"), ("--until", "2024-01-01"), ("--feedback", "good")]
)
def test_what_only_langsmith_is_asked_is_refused_without_it(
    orchestra: Orchestra, tmp_path: Path, option: tuple[str, str]
) -> None:
    write(RunLog(tmp_path / "runs.jsonl"), "a", fields())
    done = orchestra("harvest", "--from", "runs.jsonl", "--to", "data", *option)
    assert done.code == 2 and f"{option[0]} without --from langsmith:PROJECT" in complaint(done.err)
    assert not (tmp_path / "data").exists()


def scored_log(path: Path) -> RunLog:
    """A group of four: two solved, one of them dearer; and a run that nobody judged."""
    log = RunLog(path)
    for id, dollars, outcome in [
        ("a", 0.01, 1.0),
        ("b", 0.04, 1.0),
        ("c", 0.01, 0.0),
        ("d", 0.01, 0.0),
        ("e", 0.01, None),
    ]:
        turn = decided(0, ["large"])
        turn["charges"]["r-0-0#0"]["dollars"] = dollars
        log.finish(id, fields(1, turns=[turn], stopped_by="answer", policy=POLICY))
        if outcome is not None:
            log.judge(id, Verdict(outcome=outcome, by="exact"))
    return log


def test_runs_are_scored_group_by_group(orchestra: Orchestra, tmp_path: Path) -> None:
    scored_log(tmp_path / "runs.jsonl")
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in orchestra("runs", "score", "runs.jsonl", "--json").out.splitlines()
    ]
    runs = {line["run"]: line for line in lines[:-1]}
    assert (set(runs), lines[-1]["groups"], lines[-1]["solved"]) == (set("abcd"), 1, 2)
    assert lines[-1]["left_out"] == {"unjudged: no_verdict": 1}
    # By hand: outcome 1 and cost 0.4 of the cheaper solved run; seconds are the same for all.
    assert [runs[id]["guarded"] for id in "abcd"] == pytest.approx([1.4, 1.0, 0.0, 0.0])
    assert [runs[id]["paper"] for id in "abcd"] == pytest.approx([1.4, 1.0, 0.0, 0.0])
    assert runs["a"]["advantage"] == pytest.approx(0.8 / math.sqrt((0.64 + 0.16 + 0.36 + 0.36) / 3))
    assert runs["a"]["utility"] is None
    table = orchestra("runs", "score", "runs.jsonl")
    assert "4 runs in 1 group, 2 solved; left out: 1 unjudged: no_verdict" in table.out


def test_a_reference_gives_the_absolute_utility(orchestra: Orchestra, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    made = run("a")
    log.finish("a", made.model_dump(mode="json", exclude={"verdict", "captures"}))
    log.judge("a", Verdict(outcome=1.0, by="exact"))
    write_reference(tmp_path / "reference.jsonl", [made])
    done = orchestra("runs", "score", "runs.jsonl", "--reference", "reference.jsonl", "--json")
    # It costs what the reference does: (1 + 0.4 / 2 + 0.1 / 2) / 1.5.
    assert json.loads(done.out.splitlines()[0])["utility"] == pytest.approx(1.25 / 1.5)


def test_brackets_in_tasks_and_paths_are_text(orchestra: Orchestra, tmp_path: Path) -> None:
    task = {"question": "Sort [c, a, b] as [/b] does", "id": None}
    write(RunLog(tmp_path / "[old].jsonl"), "a", fields(task=task, policy=POLICY))
    assert "Sort [c, a, b] as [/b] does" in orchestra("runs", "score", "[old].jsonl").out
    done = orchestra("harvest", "--from", "[old].jsonl", "--to", "ds[old]")
    assert done.code == 0 and "[old].jsonl  " in done.out and "ds[old]/train.jsonl" in done.out
    (tmp_path / "d[x]").mkdir()
    (tmp_path / "[old].jsonl").rename(tmp_path / "d[x]" / "a.jsonl")
    assert orchestra("harvest", "--from", "d[x]/*.jsonl", "--to", "more").code == 0


def test_scores_fit_a_narrow_terminal(orchestra: Orchestra, tmp_path: Path) -> None:
    scored_log(tmp_path / "runs.jsonl")
    lines = orchestra("runs", "score", "runs.jsonl", columns=80).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    heads = ["group", "run", "task", "solved", "dollars", "seconds", "guarded", "advantage", "utility"]
    assert lines[0].split() == heads
    assert [line.split()[1] for line in lines[1:5]] == ["a", "b", "c", "d"] and "…" not in lines[1]
