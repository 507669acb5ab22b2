"""Environments for tests that need packages which cannot stand beside those of the development environment.

They lie in `${XDG_CACHE_HOME:-~/.cache}/orchestra-graph/` and serve all later runs. An installation that was broken off
is started anew: the stamp that says it is whole is written last. Only one process installs at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import venv
from collections.abc import Callable
from pathlib import Path


def environment(name: str, made_from: bytes, install: Callable[[Path], None]) -> Path:
    """The interpreter of a whole environment; installs it where there is none.

    Args:
        name: Of its folder.
        made_from: Pins, script, and whatever else decides what is in it; others make another one.
        install: Puts the packages in, with the interpreter that it is given.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "orchestra-graph" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(made_from + sys.version.encode()).hexdigest()
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, python = folder / "complete", folder / "bin" / "python"
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"installing {folder} (once, about a minute)", file=sys.stderr)
            venv.create(folder, with_pip=True)
            install(python)
            stamp.write_text(wanted)
    return python
