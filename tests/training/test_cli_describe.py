"""`orchestra describe`: what it asks, what it writes, and what it refuses."""

from __future__ import annotations

import errno
import json
import re
import stat
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.catalog import Catalog, Measured
from orchestra_graph.runlog.read import read_runs
from tests.commands import Orchestra
from tests.openai_server import Body, OpenAIServer, Refusal, Reply
from tests.training.test_descriptions import CATALOG, adder

WORKBENCH = Path(__file__).parents[2] / "orchestra_graph" / "catalogs" / "workbench.toml"

MINE = """\
# what I pay for
version = 1

[tools.adder]   # adds
kind = "expert"
description = "?"
model = "adder"
base_url = "{url}"
terminal = true
limits = {{ retries = 0 }}
price = {{ input = 1, output = 1 }}

[tools.down]
kind = "expert"
model = "down"
base_url = "{url}"
terminal = true
limits = {{ retries = 0 }}
price = {{ input = 1, output = 1 }}

[tools.keyless]
kind = "function"
api_key_env = "NO_SUCH_KEY"
"""
PENS = """\
version = 1
[tools.pen]
kind = "expert"
model = "pen"
base_url = "{url}"
"""


def answer(body: Body) -> Reply | Refusal:
    prompt = body["messages"][-1]["content"]
    match body["model"]:
        case "adder":
            return Reply(adder(prompt))
        case "pen" if "response_format" in body:
            return Reply(json.dumps({"description": "Adds numbers of one digit; wrong beyond."}))
        case "pen":
            return Reply("It is the same.\nCORRECT")
    return Refusal(400, "no such model")


@pytest.fixture
def mine(openai_server: OpenAIServer, tmp_path: Path) -> Path:
    openai_server.script = answer
    (tmp_path / "pens.toml").write_text(PENS.format(url=openai_server.base_url))
    path = tmp_path / "mine.toml"
    path.write_text(MINE.format(url=openai_server.base_url))
    path.chmod(0o640)
    lines = [
        {"question": "What is 1 + 2?", "answer": "3", "verdict": "numeric"},
        {"question": "What is 4 + 4?", "answer": "8"},
        {"question": "What is 10 + 4?", "answer": "14"},
        {"question": "What is 2 + 4?", "answer": "six", "verdict": "judge"},
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


OPTIONS = ("--tasks", "tasks.jsonl", "--writer", "pen", "--judge", "pen", "--models", "pens.toml")


def test_the_command_describes_real_models(orchestra: Orchestra, mine: Path, openai_server: OpenAIServer) -> None:
    before = mine.read_text()
    done = orchestra("describe", mine, "--tool", "adder", *OPTIONS, "--log", "runs.jsonl", "--json")
    assert done.code == 0, done.err
    found = done.json["tools"]["adder"]
    assert found["measured"]["tasks"] == 4 and found["measured"]["success"] == 0.75
    assert found["measured"]["dollars"] > 0 and found["problem"] is None
    text = mine.read_text()
    assert 'description = "Adds numbers of one digit; wrong beyond."' in text and "# what I pay for" in text
    assert stat.S_IMODE(mine.stat().st_mode) == 0o640
    assert text.partition("[tools.down]")[2] == before.partition("[tools.down]")[2]
    assert Catalog.from_toml(mine).tools["adder"].measured == Measured.model_validate(found["measured"])
    assert len(list(read_runs("runs.jsonl"))) == 4
    judged = [body for r in openai_server.requests if "CORRECT" in str((body := r.body)["messages"][0])]
    assert [body["temperature"] for body in judged] == [0]
    assert [path.name for path in mine.parent.iterdir() if path.name.startswith(".")] == []


def test_a_tool_that_cannot_be_tried_is_told_and_the_others_are_written(orchestra: Orchestra, mine: Path) -> None:
    before = mine.read_text()
    done = orchestra("describe", mine, *OPTIONS)
    assert done.code == 1
    assert re.search(r"adder +4 +75%", done.out) and "down: no call was answered" in done.out
    assert "400" in done.out
    text = mine.read_text()
    assert "Adds numbers of one digit" in text
    assert text.partition("[tools.down]")[2] == before.partition("[tools.down]")[2]


def test_what_is_edited_while_it_runs_stays(orchestra: Orchestra, mine: Path, openai_server: OpenAIServer) -> None:
    note = '\n# typed meanwhile\n[tools.other]\nkind = "expert"\n'

    def edit(body: Body) -> Reply | Refusal:
        text = mine.read_text()
        if note not in text:
            text = text.replace("retries = 0 }", "retries = 0, timeout = 9 }")
            mine.write_text(text.replace('model = "down"', 'description = "typed"\nmodel = "down"') + note)
        return answer(body)

    openai_server.script = edit
    done = orchestra("describe", mine, *OPTIONS, "--json")
    assert done.code == 1 and "typed" not in done.json["diff"]
    assert mine.read_text().endswith(note)
    tools = Catalog.from_toml(mine).tools
    assert tools["adder"].description.startswith("Adds numbers") and tools["adder"].limits.timeout == 9
    assert tools["down"].description == "typed"


def test_what_cannot_be_written_is_told_before_anything_is_paid(
    orchestra: Orchestra, mine: Path, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", refuse)
        assert "mine.toml: cannot be written (Permission denied)" in orchestra("describe", mine, *OPTIONS).err
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tomlkit", None)
        assert "error: the package `tomlkit` is missing" in orchestra("describe", mine, *OPTIONS).err
    assert openai_server.requests == []


def test_a_link_stays_one(orchestra: Orchestra, mine: Path) -> None:
    link = mine.with_name("link.toml")
    link.symlink_to(mine.name)
    assert orchestra("describe", link, "--tool", "adder", *OPTIONS).code == 0
    assert link.is_symlink() and "Adds numbers of one digit" in mine.read_text()


def test_a_dry_run_shows_the_change_and_makes_none(orchestra: Orchestra, tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_bytes(WORKBENCH.read_bytes())
    done = orchestra("describe", path, "--tool", "small", "--count", 5, "--dry-run")
    assert done.code == 0, done.err
    assert path.read_bytes() == WORKBENCH.read_bytes()
    assert "+measured = { tasks = 5, success = 0.2," in done.out and "-latency = { p50 = 2, p95 = 5 }" in done.out
    assert "description" not in "".join(re.findall(r"^[+-][^+-].*$", done.out, re.MULTILINE))


def test_the_workbench_is_described_offline(orchestra: Orchestra, tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_bytes(WORKBENCH.read_bytes())
    done = orchestra("describe", path, "--count", 2)
    assert done.code == 0, done.err
    written = tomllib.loads(path.read_text())["tools"]
    assert list(written) == list(CATALOG.tools)
    assert all(line["measured"]["tasks"] == 2 for line in written.values())
    assert path.read_text().splitlines()[:5] == WORKBENCH.read_text().splitlines()[:5]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tool", "none"], "'none': no such tool"),
        (["--writer", "small"], "--writer small: the catalog has no line with a model"),
        (["--tasks", "none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(orchestra: Orchestra, arguments: list[str], told: str) -> None:
    done = orchestra("describe", WORKBENCH, "--dry-run", *arguments)
    assert done.code == 1 and told in done.err
    assert orchestra("describe", "none.toml").code == 1
