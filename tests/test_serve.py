"""`orchestra serve` as a process: what it prints, how it ends, what is left of the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.routers.bundled import tiny_folder
from tests.test_serving_process import STAND_IN, free_port, is_there, read_pid

pytestmark = pytest.mark.slow

START = [sys.executable, "-c", "from orchestra_graph.cli import main; main()", "serve"]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that has a package vllm: the stand-in."""
    packages = tmp_path / "packages"
    folder = packages / "vllm" / "entrypoints" / "openai"
    folder.mkdir(parents=True)
    (folder / "api_server.py").write_text(f"import runpy; runpy.run_path({STAND_IN!r}, run_name='__main__')")
    info = packages / "vllm-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9\n")
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text("{}")
    return folder


def serve(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*START, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


@contextmanager
def serving(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    command = [*START, *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        if process.poll() is None:
            process.kill()


def events(process: subprocess.Popen[str], until: str) -> list[dict[str, Any]]:
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    for line in process.stdout:
        found.append(json.loads(line))
        if found[-1]["event"] == until:
            return found
    raise AssertionError(f"no {until} among {found}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, python: Path, model: Path, how: signal.Signals) -> None:
    port = free_port()
    flags = ["--orphan", tmp_path / "orphan", "--pid", tmp_path / "pid"]
    with serving(model, "--port", port, "--python", python, "--json", "--", *flags, cwd=tmp_path) as process:
        starting, ready = events(process, "ready")
        assert starting["command"][-4:] == list(map(str, flags))
        assert starting["version"] == "vllm 9.9"
        assert ready["base_url"] == f"http://127.0.0.1:{port}/v1"
        pids = [read_pid(tmp_path / "orphan"), read_pid(tmp_path / "pid")]
        process.send_signal(how)
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1]) == {"event": "stopping"}
    assert "Traceback" not in errors
    assert not any(map(is_there, pids))
    assert Path(starting["log"]).read_text().startswith("loading the model")


def test_figures_and_restarts(tmp_path: Path, python: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--port", free_port(), "--python", python, "--json", "--log", "server.log", "--restarts", 1]
    with serving(model, *arguments, "--", "--crash", 0.5, cwd=tmp_path) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    found = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in found] == ["starting", "ready", "crashed", "ready", "stopping"]
    assert found[2]["restart"] == 1
    assert errors.startswith(
        "error: given up after 1 restarts: the server ended with exit code 3: ValueError: the stand"
    )
    assert errors.count("\n") == 1
    assert (tmp_path / "server.log").read_text().count("loading") == 2


def test_words_where_there_is_no_terminal(tmp_path: Path, python: Path, model: Path) -> None:
    port = free_port()
    with serving(model, "--port", port, "--python", python, cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    dry = serve(model, "--port", port, "--python", python, "--dry-run", cwd=tmp_path)
    assert lines[0] == dry.stdout
    assert lines[1].startswith("vllm 9.9; log: ")
    assert lines[2].startswith("ready after ")
    assert out == "stopping the server and all its processes\n"


def test_it_ends_in_one_line_when_the_server_ends_at_its_start(tmp_path: Path, python: Path, model: Path) -> None:
    done = serve(model, "--port", free_port(), "--python", python, "--", "--crash-early", cwd=tmp_path)
    assert done.returncode == 1
    assert "before it was ready: ValueError: the stand-in was told to end; full log: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_ends_in_one_line_when_the_server_is_never_ready(tmp_path: Path, python: Path, model: Path) -> None:
    started = time.monotonic()
    flags = ["--ready-after", 60, "--pid", tmp_path / "pid"]
    done = serve(model, "--port", free_port(), "--python", python, "--timeout", 1, "--", *flags, cwd=tmp_path)
    assert time.monotonic() - started < 30
    assert done.returncode == 1
    assert "error: the server was not ready within 1 s; it said last: loading the model; full log: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not is_there(read_pid(tmp_path / "pid"))


def test_a_killed_command_leaves_no_server(tmp_path: Path, python: Path, model: Path) -> None:
    arguments = ["--port", free_port(), "--python", python, "--json", "--", "--pid", tmp_path / "pid"]
    with serving(model, *arguments, cwd=tmp_path) as process:
        events(process, "ready")
        pid = read_pid(tmp_path / "pid")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        deadline = time.monotonic() + 20
        while is_there(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not is_there(pid)


def test_the_model_with_random_weights_is_made_whatever_it_is_called(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ["--served-model-name", "x", "--port", free_port(), "--python", python, "--json"]
    with serving("random-weights", *arguments, cwd=tmp_path) as process:
        starting, _ = events(process, "ready")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    command = starting["command"]
    assert (Path(command[command.index("--model") + 1]) / "model.safetensors").is_file()
    assert command[command.index("--served-model-name") + 1] == "x"


def test_dry_run_of_presets(tmp_path: Path) -> None:
    done = serve("nemotron-orchestrator-8b", "--dry-run", "--tensor-parallel", 16, "--ray", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert "--model nvidia/Nemotron-Orchestrator-8B" in done.stdout
    assert "--tensor-parallel-size 16 --distributed-executor-backend ray" in done.stdout
    options = ["--lora", "a=b", "--reasoning-parser", "none", "--host", "0.0.0.0", "--served-model-name", "x"]
    done = serve("qwen3-8b", "--dry-run", *options, "--", "--seed", 3, cwd=tmp_path)
    assert "--served-model-name x --host 0.0.0.0" in done.stdout
    assert "--reasoning-parser" not in done.stdout
    assert done.stdout.endswith("--enable-lora --lora-modules a=b --seed 3\n")
    done = serve("tiny", "--dry-run", cwd=tmp_path)
    assert f"--model {tiny_folder()} --served-model-name tiny " in done.stdout


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["qwen3-9b"], "'qwen3-9b' is no preset; expected "),
        (["qwen3-8b"], "vllm in "),
        (["qwen3-8b", "--python", "/nowhere"], "--python /nowhere is no Python interpreter that runs"),
        (["qwen3-8b", "--lora", "x"], "--lora x: expected NAME=PATH"),
        (["."], "has no config.json"),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = serve(*arguments, "--port", free_port(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["m", "--port", "0"], ["m", "word"], ["m", "--gpu-memory-utilization", "2"]])
def test_a_wrong_command_line(tmp_path: Path, arguments: list[str]) -> None:
    assert serve(*arguments, cwd=tmp_path).returncode == 2
