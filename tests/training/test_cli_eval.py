"""`orchestra eval` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.cli import main


@pytest.fixture
def orchestra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["orchestra", "eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

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


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--condition", "prise"), "condition 'prise'; expected one of in-distribution"),
        (("magic",), "router 'magic': "),
        (("rules", "--against", "large"), "--against large: no such router; expected one of rules"),
        (("--turn-limits", "many"), "--turn-limits 'many'"),
        (("--reference", "nowhere.jsonl"), "nowhere.jsonl: cannot be read"),
    ],
)
def test_mistakes_are_told_in_one_line(orchestra: Any, arguments: tuple[str, ...], problem: str) -> None:
    code, out, err = orchestra("--tasks", 1, "--workers", 1, *arguments)
    assert (code, out) == (1, "")
    assert problem in err and err.count("\n") == 1
