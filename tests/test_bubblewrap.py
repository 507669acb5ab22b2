"""What bubblewrap contains beyond the limits of a process. Needs bubblewrap."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestra_graph.portal import Portal
from orchestra_graph.tools.sandbox import Bubblewrap
from tests.sandboxes import bubblewrap as bubblewrap
from tests.sandboxes import gone, marked
from tests.sandboxes import sandbox as sandbox


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


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
async def test_bomb_of_empty_files(bubblewrap: Bubblewrap, folder: str) -> None:
    done = await bubblewrap.run(f"i = 0\nwhile True: i += 1; open(f'{folder}/{{i}}', 'w').close()")
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


@pytest.mark.slow
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


def test_a_program_outlives_the_thread_that_asked_for_it(bubblewrap: Bubblewrap) -> None:
    """A loop goes from thread to thread; a program that dies with its parent dies with the thread that started it."""
    portal, waits = Portal(), threading.Event()

    async def wait() -> None:
        waits.set()
        await asyncio.sleep(1)

    first = threading.Thread(target=portal.run, args=(wait(),))
    first.start()
    waits.wait()
    done = portal.run(bubblewrap.run("import time\ntime.sleep(2)\nprint('done')"))
    first.join()
    assert done.text == "done"


async def test_a_forked_process_runs_programs_too(bubblewrap: Bubblewrap) -> None:
    assert (await bubblewrap.run("print(1)")).text == "1"
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(asyncio.run(bubblewrap.run("print(2)")).text))
    child.start()
    try:
        assert ours.poll(60) and ours.recv() == "2"
    finally:
        child.kill()
        child.join()


def test_a_program_outlives_the_main_thread(bubblewrap: Bubblewrap) -> None:
    script = (
        "import asyncio, threading\nfrom orchestra_graph.tools.sandbox import Bubblewrap\n"
        "code = 'import time; time.sleep(0.5); print(42)'\n"
        "def work(): print([asyncio.run(Bubblewrap().run(code)).text for _ in range(2)])\n"
        "threading.Thread(target=work).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['42', '42']\n", "")
