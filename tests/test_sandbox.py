"""The sandbox contains what code may try, and says so. Needs bubblewrap."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.sandbox import Bubblewrap, Execution, Sandbox, Subprocess
from orchestra_graph.tools.seccomp import syscall_filter

SLEEP = "import time; time.sleep(60)"
BOTH = pytest.mark.parametrize("kind", ["bubblewrap", "subprocess"])


@pytest.fixture(scope="module")
def bubblewrap() -> Bubblewrap:
    return Bubblewrap(memory_mb=128, processes=24, file_mb=16, disk_mb=32, output_kb=16)


@pytest.fixture
def sandbox(kind: str, bubblewrap: Bubblewrap) -> Sandbox:
    return bubblewrap if kind == "bubblewrap" else Subprocess(trusted=True, memory_mb=128, file_mb=16, output_kb=16)


def marked(mark: str) -> list[int]:
    """Processes of this machine with a text in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    return found


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
    for wait in (0.0, 0.002, 0.01, 0.3):
        mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
        code = f"import os, sys\nfor _ in range(3): os.fork()\nos.execv(sys.executable, ['{mark}', '-c', {SLEEP!r}])"
        task = asyncio.create_task(sandbox.run(code, timeout=30))
        await asyncio.sleep(wait)
        assert wait < 0.3 or marked(mark)
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


# What only bubblewrap does.


async def test_files_outside_are_not_seen(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("tell-no-one")
    for path in (secret, Path(__file__), "/etc/passwd", "/etc/shadow", "/proc/1/root/etc/passwd"):
        done = await bubblewrap.run(f"print(open({str(path)!r}).read())")
        assert re.search("No such file|Permission denied", done.stderr), path
        assert done.stdout == ""


async def test_home_is_not_seen(bubblewrap: Bubblewrap) -> None:
    # folders above the interpreter are there, but empty
    code = f"import pathlib; print([p for p in pathlib.Path({str(Path.home())!r}).glob('*') if p.is_file()])"
    done = await bubblewrap.run(code)
    assert done.text == "[]"


async def test_system_is_read_only(bubblewrap: Bubblewrap) -> None:
    code = (
        f"import os\nfor folder in ('/', '/usr', '/usr/bin', '/dev', '/proc/sys/kernel', {sys.prefix!r}):\n"
        "    try: open(os.path.join(folder, 'x'), 'w'); print('wrote', folder)\n"
        "    except OSError as error: print(type(error).__name__)\n"
        "try: open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh'); print('wrote')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    done = await bubblewrap.run(code)
    assert len(done.stdout.splitlines()) == 7
    assert "wrote" not in done.stdout


async def test_network(bubblewrap: Bubblewrap) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import socket\n"
            f"for address in (('127.0.0.1', {port}), ('1.1.1.1', 53)):\n"
            "    try: socket.create_connection(address, 1); print('connected')\n"
            "    except OSError as error: print(error)\n"
            "try: socket.socket(40, socket.SOCK_STREAM); print('vsock')\n"
            "except OSError as error: print(error)\n"
        )
        done = await bubblewrap.run(code)
    refused, unreachable, family = done.stdout.splitlines()
    assert "Connection refused" in refused
    assert "Network is unreachable" in unreachable
    assert "Address family not supported" in family


async def test_fork_bomb(bubblewrap: Bubblewrap) -> None:
    done = await bubblewrap.run("import os\nwhile True: os.fork()")
    assert "Resource temporarily unavailable" in done.text


async def test_fork_bomb_that_goes_on(bubblewrap: Bubblewrap) -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
    code = f"import os, sys\nos.execv(sys.executable, ['{mark}', '-S', '-c', {bomb!r}])"
    run = asyncio.create_task(bubblewrap.run(code, timeout=1))
    most = 0
    while not run.done():
        most = max(most, len(marked(mark)))
        await asyncio.sleep(0.05)
    assert 10 < most <= 24
    done = await run
    assert done.text == "[stopped after 1 s]"
    assert not marked(mark)


async def test_disk_bomb(bubblewrap: Bubblewrap) -> None:
    for folder in ("/tmp", "/dev/shm"):
        code = f"for i in range(100): open(f'{folder}/{{i}}', 'wb').write(bytes(10 * 2**20))"
        done = await bubblewrap.run(code)
        assert "No space left on device" in done.text


async def test_bomb_of_empty_files(bubblewrap: Bubblewrap) -> None:
    done = await bubblewrap.run("i = 0\nwhile True: i += 1; open(f'/tmp/{i}', 'w').close()")
    assert done.text == "[killed: more than 20000 files]"


async def test_memory_outside_of_every_limit_is_refused(bubblewrap: Bubblewrap) -> None:
    code = (
        "import ctypes, os\ntry: os.memfd_create('x')\nexcept OSError as error: print(error)\n"
        "print(ctypes.CDLL(None).shmget(0, 4096, 0o1600))\n"
    )
    done = await bubblewrap.run(code)
    assert done.stdout == "[Errno 1] Operation not permitted\n-1\n"


async def test_killing_the_parent(bubblewrap: Bubblewrap) -> None:
    caller = os.getpid()
    code = (
        "import os, signal\n"
        f"for pid in [os.getppid(), {caller}, -1, *range(3, 200)]:\n"
        "    try: os.kill(pid, signal.SIGKILL)\n"
        "    except OSError: pass\n"
        "print('alive in', os.getpid())\n"
    )
    done = await bubblewrap.run(code)
    assert done.text == "alive in 2"
    os.kill(caller, 0)


async def test_no_rights_and_no_new_namespace(bubblewrap: Bubblewrap) -> None:
    code = (
        "import ctypes, os\nprint(os.getuid() != 0, 'CapEff:\\t0000000000000000' in open('/proc/self/status').read())\n"
        "print(ctypes.CDLL(None).unshare(0x10000000))\n"
    )
    done = await bubblewrap.run(code)
    assert done.stdout == "True True\n-1\n"


async def test_ordinary_code_runs(bubblewrap: Bubblewrap) -> None:
    code = (
        "import multiprocessing, pathlib, subprocess, tempfile, threading\n"
        "with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
        "print(subprocess.run(['echo', 'hello'], capture_output=True, text=True).stdout)\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "path = pathlib.Path('note.txt'); path.write_text('kept'); print(path.read_text(), path.absolute())\n"
    )
    done = await bubblewrap.run(code)
    assert done.text == "[1, 2]\nhello\n\nthread\nkept /tmp/note.txt"


async def test_runs_do_not_share_files(bubblewrap: Bubblewrap) -> None:
    await bubblewrap.run("open('/tmp/left', 'w').write('x')")
    done = await bubblewrap.run("import os; print(os.path.exists('/tmp/left'), os.listdir('/dev/shm'))")
    assert done.stdout == "False []\n"


async def test_read_only_folder_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    tmp_path.chmod(0o755)
    sandbox = Bubblewrap(read_only=[tmp_path])
    path = str(tmp_path / "data.csv")
    done = await sandbox.run(f"print(open({path!r}).read()); open({path!r}, 'w')")
    assert done.stdout == "1,2\n"
    assert "Read-only file system" in done.stderr


async def gone(mark: str) -> bool:
    """Whether no process with the mark is left, within a time that is long on the busiest machine."""
    for _ in range(200):
        if not marked(mark):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_dies_with_its_caller(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    script = (
        "import asyncio\nfrom orchestra_graph.tools.sandbox import Bubblewrap\n"
        f"code = \"import os, sys; os.execv(sys.executable, ['{mark}', '-c', 'import time; time.sleep(60)'])\"\n"
        "asyncio.run(Bubblewrap().run(code, timeout=60))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as caller:
        for _ in range(200):
            await asyncio.sleep(0.05)
            if len(marked(mark)) > 1:  # the caller itself has it in its command line
                break
        assert len(marked(mark)) > 1
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    assert await gone(mark)


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
