from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra_graph.errors import ConfigError
from orchestra_graph.report.curves import read_curves


def test_the_history_of_a_trainer(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint-20" / "trainer_state.json"
    path.parent.mkdir(parents=True)
    history = [{"step": 10, "epoch": 0.1, "reward": 0.5, "note": "x"}, {"step": 20, "reward": 0.75, "done": True}]
    path.write_text(json.dumps({"log_history": history, "global_step": 20}))
    curves = read_curves(path)
    assert (curves.name, curves.series) == ("run/checkpoint-20", {"reward": [(10, 0.5), (20, 0.75)]})


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "seed0.jsonl"
    path.write_text('{"step": 2, "loss": 0.5}\n\n{"step": 1, "loss": 1.0, "grad_norm": NaN}\n')
    curves = read_curves(path)
    assert (curves.name, curves.series) == ("seed0", {"loss": [(1, 1.0), (2, 0.5)]})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", '{"loss": 1}\n', r"a\.jsonl:1: step = None; expected a number"),
        ("a.jsonl", '{"step": 1}\n[1]\n', r"a\.jsonl:2: \[1\]; expected an object"),
        ("a.jsonl", '{"step": 1\n', r"a\.jsonl:1: no JSON"),
        ("a.json", "{}", r"a\.json: log_history = None; expected a list"),
    ],
)
def test_what_is_no_curve(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_curves(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_curves(tmp_path / "nowhere.jsonl")
