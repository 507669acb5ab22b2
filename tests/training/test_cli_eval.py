"""`orchestra eval` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.cli import main
from tests.commands import complaint, seen
from tests.openai_server import OpenAIServer, Refusal, Reply

QUESTION = '{"question": "Capital of France?", "answer": "Paris"}\n'


def tools(url: str) -> str:
    return (
        'version = 1\n[tools.sage]\nkind = "expert"\nmodel = "sage"\nterminal = true\n'
        f'description = "Geography, capitals, rivers."\nbase_url = "{url}"\n'
    )


@pytest.fixture
def orchestra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, columns: int | None = None) -> tuple[int, str, str]:
        if columns is not None:
            for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", str(columns))):
                monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["orchestra", "eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), seen(out), err

    return run


def test_a_table_and_json(orchestra: Any) -> None:
    made, out, _ = orchestra("--make-reference", "rules", "--reference", "ref.jsonl", "--tasks", 5, "--workers", 1)
    assert made == 0
    hash = json.loads(out)["sha256"]
    arguments = ("rules", "oracle", "--tasks", 5, "--workers", 1, "--reference", "ref.jsonl", "--draws", 100)
    code, out, err = orchestra(*arguments)
    assert (code, err) == (0, "")
    assert "in-distribution: 5 tasks" in out and "utility over rules" in out
    assert out.index("oracle ") < out.index("rules ")
    code, out, _ = orchestra(*arguments, "--json")
    found = json.loads(out)
    assert found["resumed"] == 10 and found["reference"]["sha256"] == hash
    assert found["conditions"]["in-distribution"]["against"] == "rules"


def test_tables_fit_a_narrow_terminal(orchestra: Any) -> None:
    arguments = ("rules", "cheapest", "-c", "budget", "--tasks", 2, "--workers", 1, "--draws", 100)
    whole = orchestra(*arguments, "--dollar-limits", "0.001,0.002", columns=200)[1]
    narrow = orchestra(*arguments, "--dollar-limits", "0.001,0.002", columns=80)[1]
    table = [line for line in narrow.splitlines() if not line.startswith("In brackets")]
    assert all(len(line) <= 80 for line in table) and "…" not in narrow
    assert "malformed" in whole and "malformed" not in narrow
    assert all(kind in narrow for kind in ("1 turn", "10 turns", "$0.001", "$0.002"))
    assert {word.strip("─") for word in narrow.split()} <= {word.strip("─") for word in whole.split()}
    least = orchestra(*arguments, "--dollar-limits", "0.001,0.002", columns=12)[1]
    assert "rules           100.0%" in least


def test_runs_that_broke_make_no_reference(orchestra: Any, tmp_path: Path, openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply(calls=[("small", {})]), Refusal(400, "too long"), Reply(calls=[("small", {})])]
    one_by_one = ("--tasks", 4, "--workers", 1, "--concurrent", 1, "--reference", "ref.jsonl")
    code, out, err = orchestra("--make-reference", f"m=m@{openai_server.base_url}", *one_by_one)
    assert (code, out) == (1, "") and "1 run broke" in err and "too long" in err
    assert not (tmp_path / "ref.jsonl").exists()
    code, out, _ = orchestra("--make-reference", f"m=m@{openai_server.base_url}", *one_by_one)
    assert code == 0 and (tmp_path / "ref.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--condition", "prise"), "condition 'prise'; expected one of in-distribution"),
        (("magic",), "router 'magic': "),
        (("rules", "--against", "large"), "--against large: no such router; expected one of rules"),
        (("-c", "budget", "--turn-limits", "many"), "--turn-limits 'many'"),
        (("-c", "budget", "--turn-limits", "1,0"), "--turn-limits '1,0': expected numbers above 0"),
        (("-c", "budget", "--turn-limits", "inf"), "--turn-limits 'inf': expected numbers above 0"),
        (("-c", "budget", "--turn-limits", "1.5"), "--turn-limits '1.5': expected whole numbers"),
        (("-c", "budget", "--dollar-limits", "0,0.1"), "--dollar-limits '0,0.1': expected numbers above 0"),
        (("-c", "budget", "--dollar-limits", "nan"), "--dollar-limits 'nan': expected numbers above 0"),
        (("--log", "."), "--log . is a folder; expected a file"),
        (("--html", "nodir/x.html"), "nodir/x.html: cannot be written: nodir is no folder"),
        (("--html", "."), ". is a folder; expected a file"),
        (("--make-reference", "rules", "--reference", "there"), "there is there already"),
        (("--make-reference", "rules", "--reference", "nodir/r"), "nodir/r: cannot be written: nodir is no folder"),
        (("tiny", "--questions", "q.jsonl", "--catalog", "tools.toml"), "the tiny router was trained on the workbench"),
        (("--questions", "q.parquet", "--catalog", "tools.toml"), "q.parquet: no Parquet: "),
        (
            ("--questions", "q.jsonl", "--catalog", "tools.toml", "--world", "w.py:W"),
            "--world w.py:W: no file of ToolScale",
        ),
        (("--make-reference", "m=rules,random", "--reference", "r.jsonl"), "router m: 2 members; expected one"),
        (("--reference", "nowhere.jsonl"), "nowhere.jsonl: cannot be read"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_run(
    orchestra: Any, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    for name, text in {"there": "", "q.jsonl": QUESTION, "q.parquet": "", "tools.toml": tools("http://x")}.items():
        (tmp_path / name).write_text(text)
    code, out, err = orchestra("--tasks", 1, "--workers", 1, *arguments)
    assert (code, out) == (1, "")
    assert problem in err and err.count("\n") == 1
    assert not (tmp_path / "evaluation.jsonl.zst").exists()


@pytest.mark.parametrize("option", ["--catalog", "--judge", "--models", "--world"])
def test_what_goes_with_questions_is_not_ignored_without_them(orchestra: Any, option: str) -> None:
    code, _, err = orchestra("rules", option, "x")
    assert code == 2 and f"{option} without --questions FILE" in complaint(err)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--questions", "q.jsonl", "--catalog", "tools.toml", "--models", "x"), "--models without --judge LINE"),
        (("--make-reference", "rules"), "--make-reference needs --reference FILE"),
        (("rules", "--make-reference", "rules", "--reference", "r"), "ROUTERS beside --make-reference"),
        (("rules", "--turn-limits", "1,2"), "--turn-limits without --condition budget"),
        (("rules", "-c", "unseen", "--dollar-limits", "1"), "--dollar-limits without --condition budget"),
        (("rules", "--page-runs", 5), "--page-runs without --html FILE"),
    ],
)
def test_what_would_be_ignored_is_refused(orchestra: Any, arguments: tuple[object, ...], told: str) -> None:
    code, _, err = orchestra(*arguments)
    assert code == 2 and told in complaint(err)


def test_a_page_may_stand_beside_a_new_log(orchestra: Any, tmp_path: Path) -> None:
    code, _, _ = orchestra(
        "rules", "--tasks", 1, "--workers", 1, "--draws", 100, "--log", "new/runs.jsonl", "--html", "new/page.html"
    )
    assert code == 0 and (tmp_path / "new" / "page.html").is_file()


def test_a_page_with_curves(orchestra: Any, tmp_path: Path) -> None:
    (tmp_path / "seed0.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    arguments = ("rules", "-c", "budget", "--tasks", 2, "--workers", 1, "--turn-limits", "1,2", "--dollar-limits", "")
    code, out, _ = orchestra(*arguments, "--html", "page.html", "--curves", "seed0.jsonl", "--draws", 100)
    assert code == 0
    assert "page: page.html" in out and "1 turn" in out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_questions_of_ones_own(orchestra: Any, tmp_path: Path, openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply("<answer>Paris</answer>")]
    (tmp_path / "q.jsonl").write_text(QUESTION)
    (tmp_path / "tools.toml").write_text(tools(openai_server.base_url))
    code, out, err = orchestra("--questions", "q.jsonl", "--catalog", "tools.toml", "--workers", 1, "--draws", 100)
    assert (code, err) == (0, "")
    assert "q: 1 task" in out and "100.0%" in out and "workbench" not in out
