"""Where a router's Python code runs: `Bubblewrap` contains it, `Subprocess` only bounds it.

Any object with the method `run` of `Sandbox` fits in their place, for example a hosted sandbox.

Not covered, by either: holes of the kernel itself, timing and other side channels, processor time below the wall limit,
and kernel memory that belongs to sockets and pipes, which only the number of processes and open files bounds.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.seccomp import syscall_filter
from orchestra_graph.tools.supervise import Execution, supervise, temporary

__all__ = ["Bubblewrap", "Execution", "Sandbox", "Subprocess"]

_OPEN_FILES = 256
_WRITABLE = ("/dev/shm", "/tmp")
"""The private folders."""
_FOLDER_ENTRIES = 20_000
"""Files and folders that they may hold: each costs kernel memory that their size does not count."""

_LIMITS = """
import os, resource, sys
user, memory, processes, file_size, open_files, *command = sys.argv[1:]
if os.path.exists("/proc/self/oom_score_adj"):
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
if int(user):
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
for limit, value in (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_DATA, int(memory)),
    (resource.RLIMIT_FSIZE, int(file_size)),
    (resource.RLIMIT_NOFILE, int(open_files)),
    (resource.RLIMIT_NPROC, int(processes)),
):
    if value >= 0:
        resource.setrlimit(limit, (value, value))
os.execv(command[0], command)
"""
"""Runs before the code: as an ordinary user, with limits, and first in line when the machine is out of memory."""

_SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin")
_LOADER = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime")
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    # numeric libraries otherwise start a thread for each core, which the limit on processes refuses
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_SYSTEM_USERS = range(61184, 65520)
"""Ids that systemd sets aside for services of the moment: no files belong to them."""
_INSTALL = "apt-get install bubblewrap (or dnf, pacman, apk); on other systems pass a hosted sandbox"
_ALLOW = (
    "expected the right to create namespaces, and a Python that other users may run; fix: "
    "`sysctl -w kernel.unprivileged_userns_clone=1` (Debian), `sysctl -w "
    "kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), `docker run --privileged` (in a container), "
    "or pass a hosted sandbox"
)


class Sandbox(Protocol):
    """Runs Python code somewhere safe."""

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        """Run a program to its end, and tell what it wrote and why it was stopped.

        Args:
            code: Source of the program; an error in it is part of the execution, not raised.
            timeout: Wall seconds after which it is killed.
            stdin: Text on its standard input.

        Raises:
            ToolError: The code could not be run at all.
        """
        ...


class Bubblewrap:
    """Runs code behind bubblewrap: Linux namespaces, resource limits and a system call filter.

    The code sees the system and the Python installation read-only, private folders `/tmp` and `/dev/shm` that are
    gone afterwards, and a small fixed environment. It sees no network, no home, no working folder and no process of
    the caller. The memory of all its processes together is watched 20 times a second, so it can be exceeded for that
    long; the kernel holds the private memory of each single process below it. Started by root, the code runs as
    another user. On Linux before 5.14, `processes` counts everything that the user runs. In a container, have an
    init process (`docker run --init`) collect the sandbox's ended processes.

    Args:
        memory_mb: Megabytes of all processes together.
        processes: Processes and threads at one time.
        file_mb: Megabytes of one file.
        disk_mb: Megabytes that the private folders hold, each; they lie in memory.
        output_kb: Kilobytes of standard output, and of standard error, after which the code is stopped.
        python: Interpreter; its packages can be imported by the code.
        read_only: Further files and folders that the code may read, under their own paths.

    Raises:
        MissingError: bubblewrap is not installed.
        ConfigError: A sandbox cannot be started on this machine, or the interpreter cannot be bound.
    """

    def __init__(
        self,
        *,
        memory_mb: int = 512,
        processes: int = 64,
        file_mb: int = 64,
        disk_mb: int = 128,
        output_kb: int = 64,
        python: str = sys.executable,
        read_only: Sequence[str | Path] = (),
    ) -> None:
        program = shutil.which("bwrap")
        if program is None:
            raise MissingError("bubblewrap", _INSTALL)
        _positive(memory_mb=memory_mb, processes=processes, file_mb=file_mb, disk_mb=disk_mb, output_kb=output_kb)
        self._memory_mb = memory_mb
        self._output_kb = output_kb
        self._filter = syscall_filter()
        self._root = os.getuid() == 0
        self._limits = [memory_mb * 2**20, processes, file_mb * 2**20, _OPEN_FILES]
        self._python = python
        folders = [*_prefixes(python), *map(_existing, read_only)]
        self._program = [program, *_namespaces(self._root), *_view(folders, disk_mb * 2**20)]
        self._probe()

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        """Run a program; see `Sandbox.run`."""
        _positive(timeout=timeout)
        with self._command(code) as (argv, files):
            execution = await supervise(
                argv,
                timeout=timeout,
                memory_mb=self._memory_mb,
                output_kb=self._output_kb,
                stdin=stdin,
                pass_fds=files,
                check=_too_many_files,
            )
        if execution.exit_code == 1 and execution.stderr.startswith("bwrap: "):
            raise ToolError(f"the sandbox did not start: {execution.stderr.strip()}", retryable=True)
        return execution

    @contextmanager
    def _command(self, code: str) -> Iterator[tuple[list[str], list[int]]]:
        user = random.choice(_SYSTEM_USERS) if self._root else 0
        with temporary(code) as source, tempfile.TemporaryFile() as rules:
            rules.write(self._filter)
            rules.seek(0)
            files = [source.fileno(), rules.fileno()]
            sandbox = ["--perms", "0444", "--file", str(files[0]), "/tmp/main.py", "--seccomp", str(files[1])]
            limits = map(str, (user, *self._limits))
            program = [self._python, "-I", "-B", "-X", "utf8", "/tmp/main.py"]
            yield (
                [*self._program, *sandbox, "--", self._python, "-I", "-B", "-S", "-c", _LIMITS, *limits, *program],
                files,
            )

    def _probe(self) -> None:
        with self._command("print('ready')") as (argv, files):
            done = subprocess.run(argv, env={}, pass_fds=files, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode or done.stdout != "ready\n":
            raise ConfigError(
                f"bubblewrap cannot start a sandbox here: {done.stderr.strip() or done.stdout.strip()}; {_ALLOW}"
            )


class Subprocess:
    """Runs code in a plain process of this user: for code that you trust, or in a container of its own.

    Contained: wall time, memory of all processes together, size of a file, length of the output; the environment
    is empty. Not contained: the code reads and writes every file that the user can, reaches the network, sees and
    kills the user's processes (the caller among them), starts any number of processes, and a process that detaches
    itself from its parent and its session outlives the call.

    Args:
        trusted: Must be True: says that the code may do all of this.
        memory_mb: Megabytes of all processes together.
        file_mb: Megabytes of one file.
        output_kb: Kilobytes of standard output, and of standard error, after which the code is stopped.
        python: Interpreter.

    Raises:
        ConfigError: `trusted` is not True.
    """

    def __init__(
        self,
        *,
        trusted: bool = False,
        memory_mb: int = 512,
        file_mb: int = 64,
        output_kb: int = 64,
        python: str = sys.executable,
    ) -> None:
        if trusted is not True:
            raise ConfigError(
                f"Subprocess(trusted={trusted!r}): it contains nothing that the code does to your files, network and "
                "processes; expected trusted=True, or use Bubblewrap()"
            )
        _positive(memory_mb=memory_mb, file_mb=file_mb, output_kb=output_kb)
        self._memory_mb = memory_mb
        self._output_kb = output_kb
        limits = map(str, (0, memory_mb * 2**20, -1, file_mb * 2**20, _OPEN_FILES))
        self._program = [python, "-I", "-B", "-S", "-c", _LIMITS, *limits, python, "-I", "-B", "-X", "utf8"]

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        """Run a program in a temporary folder; see `Sandbox.run`."""
        _positive(timeout=timeout)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder, "main.py")
            path.write_bytes(code.encode(errors="surrogatepass"))
            return await supervise(
                [*self._program, str(path)],
                timeout=timeout,
                memory_mb=self._memory_mb,
                output_kb=self._output_kb,
                stdin=stdin,
                cwd=folder,
            )


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} = {value!r}: expected a number above 0")


def _existing(path: str | Path) -> str:
    if not os.path.exists(path):
        raise ConfigError(f"read_only = {str(path)!r}: expected a file or folder that exists")
    return os.path.abspath(path)


def _namespaces(root: bool) -> list[str]:
    flags = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if root:
        # in a user namespace root stays root, whose processes the kernel does not count: change the user instead
        flags += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        flags += ["--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000"]
    return [*flags, "--die-with-parent", "--hostname", "sandbox", "--clearenv"]


def _view(folders: Sequence[str], disk: int) -> list[str]:
    """The file system that the code sees."""
    view = [word for name, value in _ENVIRONMENT.items() for word in ("--setenv", name, value)]
    view += ["--ro-bind", "/usr", "/usr"]
    for path in _SYSTEM:
        if os.path.islink(path):
            view += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            view += ["--ro-bind", path, path]
    for path in _LOADER:
        view += ["--ro-bind-try", path, path]
    view += ["--proc", "/proc", "--dev", "/dev"]
    for path in _WRITABLE:
        view += ["--perms", "1777", "--size", str(disk), "--tmpfs", path]
    # made by bubblewrap on its way, folders above would be closed to the user whom root becomes
    above = {str(parent) for path in folders for parent in Path(path).parents}
    for path in sorted(above - {"/", "/tmp", "/dev", "/dev/shm"}):
        view += ["--perms", "0755", "--dir", path]
    for path in folders:
        view += ["--ro-bind", path, path]
    return [*view, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def _prefixes(python: str) -> list[str]:
    """Folders of an interpreter outside of `/usr`: its virtual environment and the installation behind it."""
    ask = "import sys; print(sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, sep='\\n')"
    try:
        told = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"python = {python!r}: expected the path of a Python interpreter ({error})") from error
    named = [path for line in told.stdout.splitlines() for path in (line, os.path.realpath(line))]
    folders = [path for path in dict.fromkeys(named) if not Path(path).is_relative_to("/usr")]
    for path in folders:
        if Path.home().is_relative_to(path):
            raise ConfigError(
                f"python = {python!r} is installed in {path!r}, which holds your home; expected a folder of its own"
            )
    return folders


def _too_many_files(pids: list[int]) -> str:
    try:
        # the first two are bubblewrap's own
        folders = [os.statvfs(f"/proc/{pids[2]}/root{path}") for path in _WRITABLE]
    except (IndexError, OSError):  # not started yet, or ended meanwhile
        return ""
    used = sum(folder.f_files - folder.f_ffree for folder in folders)
    return f"killed: more than {_FOLDER_ENTRIES} files" if used > _FOLDER_ENTRIES else ""
