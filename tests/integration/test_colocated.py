"""Training with a real vLLM in the trainer's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 0.03
"""Nats a token; this vLLM computes in half precision."""


def test_vllm_follows_the_adapters_that_are_trained_beside_it() -> None:
    command = [sys.executable, "tests/integration/colocated.py", "--set", "trainer.learning_rate=1e-3"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True
    )
    told = json.loads(done.stdout[done.stdout.index(b"\n{\n") :])
    assert told["requests_at_a_time"] == 16  # 4 tasks of 4 rollouts
    first, *_, last = told["steps"]
    assert len(told["steps"]) == 3
    assert all(step["tokens"] > 0 and step["gap"] < CLOSE for step in told["steps"])
    assert first["gap_without_adapters"] == first["gap"]  # nothing was learnt yet
    assert last["gap_without_adapters"] > 5 * last["gap"]
    assert {step["drift"] for step in told["steps"]} == {0.0}
