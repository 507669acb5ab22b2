"""A real PostgreSQL server for a test: an empty one on loopback, as an unprivileged user, gone afterwards.

Debian's package `postgresql` brings the binaries. The server does not sync to disk: tests kill its clients, not it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.test_serving_process import free_port

START_SECONDS = 30.0


def binaries() -> Path:
    """Folder of `initdb` and `postgres`, of the newest version that is installed.

    Raises:
        RuntimeError: There is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        raise RuntimeError("PostgreSQL is missing; fix: sudo apt-get install postgresql")
    return Path(initdb).parent


@contextmanager
def postgres() -> Iterator[str]:
    """A running server; gives the connection string of its database."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        user = _unprivileged(folder)
        data, log = f"{folder}/data", Path(folder, "log")
        make = f"{binaries()}/initdb -D {data} -U test -A trust -E UTF8 --locale=C --no-sync"
        subprocess.run(make.split(), check=True, capture_output=True, user=user, cwd=folder)
        port = free_port()
        start = (
            f"{binaries()}/postgres -D {data} -F -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        )
        with log.open("w") as out:
            server = subprocess.Popen(start.split(), stdout=out, stderr=out, user=user, cwd=folder)
        address = f"postgresql://test@127.0.0.1:{port}/postgres"
        try:
            _wait(server, address, log)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # lets go of its clients at once
            server.wait(START_SECONDS)


def _unprivileged(folder: str) -> int | None:
    """The user whose server it is, since PostgreSQL refuses to run as root; the folder becomes theirs."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    user = names.get("postgres", names["nobody"])
    os.chown(folder, user, -1)
    return user


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(address, connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text()}") from error
            time.sleep(0.05)
