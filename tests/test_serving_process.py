"""Servers as child processes: start, health, failures, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestra_graph.errors import ConfigError, ServerError
from orchestra_graph.serving import keeper
from orchestra_graph.serving.process import Server

STAND_IN = str(Path(__file__).with_name("stand_in_server.py"))


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra_graph.serving.process._POLL", 0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make(tmp_path: Path, *flags: object, grace: float = 5.0) -> Server:
    port = free_port()
    command = [sys.executable, "-IS", STAND_IN, "--port", str(port), *map(str, flags)]
    return Server(command, f"http://127.0.0.1:{port}", log=tmp_path / "server.log", grace=grace)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return condition()


def read_pid(path: Path) -> int:
    return int(path.read_text())


async def test_it_starts_is_healthy_and_stops_with_exit_code_0(tmp_path: Path) -> None:
    lines: list[str] = []
    server = make(tmp_path, "--ready-after", 0.3, "--pid", tmp_path / "pid")
    async with server:
        assert not await server.healthy()
        await server.wait_healthy(20, lines.append)
        assert await server.healthy()
        assert server.base_url == f"{server.address}/v1"
        assert is_there(read_pid(tmp_path / "pid"))
        load = await server.load()
        assert load is not None and (load.requests, load.running, load.hit_rate) == (7, 2, 0.8)
    assert server.exit_code == 0
    assert not await server.healthy()
    assert await server.load() is None
    assert not is_there(read_pid(tmp_path / "pid"))
    assert lines == ["loading the model"]


async def test_stopping_takes_every_descendant(tmp_path: Path) -> None:
    """Also one that ignores SIGTERM, whose parent has ended, in a session of its own."""
    async with make(tmp_path, "--orphan", tmp_path / "orphan") as server:
        await server.wait_healthy(20)
        orphan = read_pid(tmp_path / "orphan")
        assert is_there(orphan)
        assert server._process is not None
        assert os.getsid(orphan) != os.getsid(server._process.pid)
    assert not is_there(orphan)


async def test_stopping_does_not_wait_for_forked_children_of_this_process(tmp_path: Path) -> None:
    async with make(tmp_path) as server:
        await server.wait_healthy(20)
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it still runs"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


async def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    server = make(tmp_path, "--ignore-term", "--pid", tmp_path / "pid", grace=0.3)
    await server.start()
    await server.wait_healthy(20)
    started = time.monotonic()
    await server.stop()
    assert 0.3 <= time.monotonic() - started < 5
    assert server.exit_code == 137
    assert not is_there(read_pid(tmp_path / "pid"))


async def test_a_killed_server_leaves_no_orphan(tmp_path: Path) -> None:
    async with make(tmp_path, "--orphan", tmp_path / "orphan", "--pid", tmp_path / "pid") as server:
        await server.wait_healthy(20)
        os.kill(read_pid(tmp_path / "pid"), signal.SIGKILL)
        assert await asyncio.wait_for(server.wait(), 10) == 137
        assert not is_there(read_pid(tmp_path / "orphan"))
        assert not await server.healthy()


async def test_a_killed_keeper_leaves_no_server(tmp_path: Path) -> None:
    async with make(tmp_path, "--pid", tmp_path / "pid") as server:
        await server.wait_healthy(20)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        assert await asyncio.wait_for(server.wait(), 10) == 137
        assert await soon(lambda: not is_there(read_pid(tmp_path / "pid")))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_owner_leaves_no_server(tmp_path: Path, how: signal.Signals) -> None:
    owner = f"""
import asyncio, sys
from pathlib import Path
from orchestra_graph.serving.process import Server
async def main():
    async with Server(sys.argv[2:], sys.argv[1], log=Path({str(tmp_path / "server.log")!r})) as server:
        await server.wait_healthy(20)
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    server = make(tmp_path, "--orphan", tmp_path / "orphan", "--pid", tmp_path / "pid")
    with subprocess.Popen(
        [sys.executable, "-c", owner, server.address, *server.command], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        pids = [read_pid(tmp_path / "orphan"), read_pid(tmp_path / "pid")]
        assert all(map(is_there, pids))
        process.send_signal(how)
    assert await soon(lambda: not any(map(is_there, pids)))


async def test_it_can_be_started_again(tmp_path: Path) -> None:
    server = make(tmp_path)
    for _ in range(2):
        async with server:
            await server.wait_healthy(20)
    await server.stop()
    assert server.log.read_text() == "loading the model\n" * 2


@pytest.mark.parametrize(
    "said, shown",
    [
        ("just this", "just this"),
        ("(Engine pid=7) ERROR 11-23 14:21 [core.py:12] ValueError: no GPU\nRuntimeError: Engine core initialization"
         " failed. See root cause above.", "ValueError: no GPU"),
        ("KeyError: mended\n[a.py:1] RuntimeError: Worker failed\nEngineDeadError: EngineCore encountered an issue.",
         "RuntimeError: Worker failed"),
        ("(API pid=1) pydantic.ValidationError: 1 validation error for ModelConfig\n(API pid=1)   unknown  model\n  x",
         "pydantic.ValidationError: 1 validation error for ModelConfig: unknown model"),
        ("\x1b[31mtwo\x1b[0m   words\n\n", "two words"),
        ("server.py: error: unrecognized arguments: --x\n", "server.py: error: unrecognized arguments: --x"),
    ],
)  # fmt: skip
async def test_ending_before_it_is_ready_is_one_line(tmp_path: Path, said: str, shown: str) -> None:
    program = [sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit(9)", said]
    async with Server(program, "http://127.0.0.1:9", log=tmp_path / "server.log") as server:
        with pytest.raises(ServerError) as raised:
            await server.wait_healthy(20)
    text = str(raised.value)
    assert text == (
        f"the server ended with exit code 9 before it was ready: {shown}; full log: {tmp_path / 'server.log'}"
    )


async def test_the_reason_is_that_of_this_start(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("OSError: of another day\n")
    async with Server(["false"], "http://127.0.0.1:9", log=tmp_path / "server.log") as server:
        with pytest.raises(ServerError, match="it said nothing"):
            await server.wait_healthy(20)


async def test_never_ready_is_one_line(tmp_path: Path) -> None:
    started = time.monotonic()
    async with make(tmp_path, "--ready-after", 60, "--say", "half way") as server:
        with pytest.raises(ServerError, match=r"not ready within 0.5 s; it said last: half way; full log: .*--timeout"):
            await server.wait_healthy(0.5)
    assert time.monotonic() - started < 5
    assert server.exit_code == 0


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    async with Server(["/nowhere/python"], "http://127.0.0.1:9", log=tmp_path / "server.log") as server:
        with pytest.raises(ServerError, match=r"exit code 127 .*: /nowhere/python cannot be started: No such file"):
            await server.wait_healthy(20)


async def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    server = Server(["true"], "http://127.0.0.1:9", log=tmp_path / "nowhere" / "server.log")
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        await server.start()
    await server.stop()


async def test_waiting_for_a_server_that_was_not_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="call start"):
        await Server(["true"], "http://127.0.0.1:9", log=tmp_path / "server.log").wait()


def test_the_keeper_gives_the_exit_code_and_obeys_signals(tmp_path: Path) -> None:
    run = [sys.executable, "-I", keeper.__file__, "1"]
    with subprocess.Popen([*run, "sh", "-c", "exit 5"], stdin=subprocess.PIPE) as process:
        assert process.wait(10) == 5
    with subprocess.Popen([*run, "sleep", "60"], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
    assert not is_there(int(children[0]))
