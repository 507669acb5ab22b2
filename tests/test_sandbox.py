"""The sandbox contains what code may try, and says so. Needs bubblewrap."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path

import pytest

from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.sandbox import Bubblewrap, Execution, Sandbox, Subprocess
from orchestra_graph.tools.seccomp import syscall_filter
from tests.sandboxes import BOTH, SLEEP, marked
from tests.sandboxes import bubblewrap as bubblewrap
from tests.sandboxes import sandbox as sandbox

# What both do.


@BOTH
async def test_output_input_and_exit_code(sandbox: Sandbox) -> None:
    code = "import sys; print('got', input()); print('wrong', file=sys.stderr); sys.exit(3)"
    done = await sandbox.run(code, stdin="ünï\n")
    assert (done.stdout, done.stderr, done.exit_code) == ("got ünï\n", "wrong\n", 3)
    assert done.text == "got ünï\n[stderr]\nwrong\n[exit code 3]"
    assert not done.timed_out and not done.truncated and 0 < done.seconds < 5


@BOTH
async def test_quiet_program(sandbox: Sandbox) -> None:
    done = await sandbox.run("x = 1")
    assert (done.exit_code, done.text) == (0, "(no output)")


@BOTH
@pytest.mark.parametrize("code", ["1/0", "print('\ud800')", "def", "\x00"])
async def test_error_in_the_code_is_output(sandbox: Sandbox, code: str) -> None:
    done = await sandbox.run(code)
    assert done.exit_code == 1
    assert "Error" in done.text


@BOTH
async def test_crash_names_the_signal(sandbox: Sandbox) -> None:
    done = await sandbox.run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert done.text == "[exit code 139, SIGSEGV]"


@BOTH
async def test_caller_environment_is_not_seen(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "tell-no-one")
    done = await sandbox.run(
        "import os, glob\nprint(dict(os.environ))\n"
        "for path in glob.glob('/proc/[0-9]*/environ'):\n"
        "    try: print(open(path).read())\n"
        "    except OSError: pass\n"
        if isinstance(sandbox, Bubblewrap)
        else "import os; print(dict(os.environ))"
    )
    assert done.exit_code == 0
    assert "tell-no-one" not in done.stdout


@BOTH
async def test_sleep_beyond_timeout(sandbox: Sandbox) -> None:
    done = await sandbox.run("import time; print('before', flush=True); time.sleep(60)", timeout=0.4)
    assert done.timed_out and done.exit_code is None and done.seconds < 3
    assert done.text == "before\n[stopped after 0.4 s]"


@BOTH
async def test_endless_output(sandbox: Sandbox) -> None:
    done = await sandbox.run("while True: print('x' * 1000)")
    assert done.truncated and not done.timed_out and len(done.stdout) == 16 * 1024
    assert done.text.endswith("[output cut at 16 KB]")


@BOTH
async def test_long_output_of_a_program_that_ended(sandbox: Sandbox) -> None:
    done = await sandbox.run("import sys; sys.stdout.write('x' * 20_000)")
    assert done.truncated and len(done.stdout) == 16 * 1024
    assert "[output cut at 16 KB]" in done.text


@BOTH
async def test_memory_bomb_in_one_process(sandbox: Sandbox) -> None:
    done = await sandbox.run("x = bytearray(10**9)")
    assert done.exit_code == 1
    assert "MemoryError" in done.text


@BOTH
async def test_memory_bomb_in_shared_memory(sandbox: Sandbox) -> None:
    code = "import mmap\nm = mmap.mmap(-1, 2**31)\nfor i in range(0, 2**31, 4096): m[i] = 1\n"
    done = await sandbox.run(code)
    assert done.exit_code is None
    assert done.text == "[killed: memory limit 128 MB]"


@BOTH
async def test_memory_bomb_spread_over_processes(sandbox: Sandbox) -> None:
    code = (
        "import os, time\nfor _ in range(10):\n    if not os.fork(): break\nx = bytearray(60 * 2**20)\ntime.sleep(60)\n"
    )
    done = await sandbox.run(code)
    assert done.text == "[killed: memory limit 128 MB]"


@BOTH
async def test_forked_processes_that_share_memory_are_not_counted_twice(sandbox: Sandbox) -> None:
    code = (
        "import os, time\nx = bytearray(60 * 2**20)\nfor _ in range(5):\n    if not os.fork(): break\ntime.sleep(0.3)\n"
    )
    done = await sandbox.run(code)
    assert (done.exit_code, done.text) == (0, "(no output)")


@BOTH
async def test_large_file(sandbox: Sandbox) -> None:
    done = await sandbox.run("open('x', 'wb').write(bytes(20 * 2**20))")
    assert "File too large" in done.text


@BOTH
async def test_cancellation_leaves_no_process(sandbox: Sandbox) -> None:
    for wait in (0.0, 0.002, 0.01, None):
        mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
        code = f"import os, sys\nfor _ in range(3): os.fork()\nos.execv(sys.executable, ['{mark}', '-c', {SLEEP!r}])"
        task = asyncio.create_task(sandbox.run(code, timeout=30))
        await asyncio.sleep(wait or 0)
        while wait is None and not marked(mark):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not marked(mark)


@BOTH
async def test_timeout_kills_the_whole_tree(sandbox: Sandbox) -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    code = (
        "import os, sys\nif not os.fork(): os.setsid()\nos.fork()\n"
        f"os.execv(sys.executable, ['{mark}', '-c', 'import time; time.sleep(60)'])"
    )
    done = await sandbox.run(code, timeout=0.4)
    assert done.timed_out
    assert not marked(mark)


@BOTH
async def test_background_process_does_not_hold_the_call(sandbox: Sandbox) -> None:
    done = await sandbox.run("import os, time\nif not os.fork(): time.sleep(60)\nprint('done')")
    assert (done.stdout, done.exit_code) == ("done\n", 0)
    assert done.seconds < 3


@BOTH
async def test_many_at_once(sandbox: Sandbox) -> None:
    done = await asyncio.gather(*(sandbox.run(f"print({i})") for i in range(20)))
    assert [d.stdout for d in done] == [f"{i}\n" for i in range(20)]


@BOTH
async def test_no_file_descriptor_is_left(sandbox: Sandbox) -> None:
    await sandbox.run("pass")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await sandbox.run("import time; time.sleep(60)", timeout=0.05)
        await sandbox.run("1/0")
    assert len(os.listdir("/proc/self/fd")) == before


@BOTH
async def test_no_file_descriptor_is_left_by_a_cancelled_run(sandbox: Sandbox) -> None:
    await sandbox.run("pass")
    before = len(os.listdir("/proc/self/fd"))
    for steps in range(20):
        task = asyncio.create_task(sandbox.run("pass"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == before


@BOTH
async def test_timeout_that_is_no_time(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match=r"timeout = 0: expected a number above 0"):
        await sandbox.run("pass", timeout=0)


# What is refused.


def test_missing_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"bubblewrap is missing; fix: apt-get install bubblewrap"):
        Bubblewrap()


def fake_bubblewrap(folder: Path, script: str) -> None:
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_forbidden_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_bubblewrap(tmp_path, "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"No permissions to create new namespace.*fix: `sysctl"):
        Bubblewrap()


async def test_sandbox_that_fails_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_bubblewrap(tmp_path, "echo ready")
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = Bubblewrap()
    fake_bubblewrap(tmp_path, "echo 'bwrap: Creating new namespace failed: Resource exhausted' >&2; exit 1")
    with pytest.raises(ToolError, match=r"the sandbox did not start: bwrap: Creating") as caught:
        await sandbox.run("pass")
    assert caught.value.retryable


@pytest.mark.parametrize("trusted", [False, "yes", 1, None])
def test_subprocess_must_be_trusted(trusted: bool) -> None:
    with pytest.raises(ConfigError, match=r"expected trusted=True, or use Bubblewrap\(\)"):
        Subprocess(trusted=trusted)


def test_wrong_limits_and_interpreter() -> None:
    with pytest.raises(ConfigError, match="memory_mb = 0: expected a number above 0"):
        Bubblewrap(memory_mb=0)
    with pytest.raises(ConfigError, match="python = '/nowhere/python': expected the path of a Python interpreter"):
        Bubblewrap(python="/nowhere/python")


def test_missing_read_only_path() -> None:
    with pytest.raises(ConfigError, match="read_only = '/nowhere'"):
        Bubblewrap(read_only=["/nowhere"])


def test_filter_jumps_stay_inside() -> None:
    for machine in ("x86_64", "aarch64"):
        steps = list(struct.iter_unpack("=HBBI", syscall_filter(machine)))
        assert len(steps) < 100
        for position, (code, yes, no, _) in enumerate(steps):
            if code & 7 == 5:  # a jump
                assert position + 1 + max(yes, no) < len(steps)
        assert steps[-1] == (6, 0, 0, 0x7FFF0000)
    with pytest.raises(ConfigError, match="machine = 'riscv64'"):
        syscall_filter("riscv64")


def test_text_keeps_what_matters() -> None:
    execution = Execution("out\n", "", None, timed_out=True, stopped="stopped after 2 s")
    assert execution.text == "out\n[stopped after 2 s]"
