"""The bar of many concurrent runs, on a fifth of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_200_concurrent_runs_have_exact_ledgers() -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.benchmarks.concurrency", "--runs", "200", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["errors"], report["wrong"], report["lines"]) == ([], [], 200)
    assert report["gib"] < 1.5
