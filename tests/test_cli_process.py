"""The command as a process of its own: interrupts, closed pipes, encodings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.openai_server import OpenAIServer, Silence

pytestmark = pytest.mark.slow

START = [sys.executable, "-c", "from orchestra_graph.cli import main; main()"]
CATALOG = """\
version = 1
[tools.expert]
kind = "expert"
terminal = true
model = "expert"
base_url = "{url}"
price = {{ input = 3, output = 4 }}
"""


def test_ctrl_c_ends_it_without_a_traceback(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script = [Silence()]
    (tmp_path / "c.toml").write_text(CATALOG.format(url=openai_server.base_url))
    asked = subprocess.Popen(
        [*START, "ask", "q", "--catalog", "c.toml", "--log", "runs.jsonl"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with asked:
        deadline = time.monotonic() + 60
        while not openai_server.requests and time.monotonic() < deadline:
            time.sleep(0.02)
        assert openai_server.requests
        asked.send_signal(signal.SIGINT)
        _, errors = asked.communicate(timeout=20)
    assert asked.returncode == 130
    assert "Traceback" not in errors
    # What was sent is not lost: the run is folded with the most that it can cost.
    folded = subprocess.run(
        [*START, "runs", "repair", "runs.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert folded.stdout.startswith("folded 1")
    run = json.loads((tmp_path / "runs.jsonl").read_text())
    assert run["ended"] == "abandoned"
    assert run["totals"]["uncertain_dollars"] > 0
    shown = subprocess.run(
        [*START, "runs", "show", "runs.jsonl", run["run_id"][:8]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "abandoned" in shown.stdout
    assert "perhaps more" in shown.stdout


def test_a_closed_pipe_and_another_encoding(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path.cwd())}
    asked = subprocess.run(
        [*START, "ask", "What is 6 * 7?"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert asked.returncode == 0
    assert b"answer  42" in asked.stdout
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(
            [*START, "ask", "What is 6 * 7?", "--json"],
            cwd=tmp_path,
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
