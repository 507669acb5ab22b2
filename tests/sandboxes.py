"""What the tests of the sandboxes share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestra_graph.tools.sandbox import Bubblewrap, Sandbox, Subprocess

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


async def gone(mark: str) -> bool:
    """Whether no process with the mark is left, within a time that is long on the busiest machine."""
    for _ in range(200):
        if not marked(mark):
            return True
        await asyncio.sleep(0.05)
    return False
