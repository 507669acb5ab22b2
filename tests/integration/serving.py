"""`orchestra serve` as a process: started on the CPU, watched while it runs, interrupted at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra_graph.vllm import ChatVLLM
from tests.test_serving_process import free_port

START = [sys.executable, "-c", "from orchestra_graph.cli import main; main()"]
FLAGS = ("--dtype", "float32")
VLLM_FLAGS = ("--enforce-eager", "--max-num-seqs", "64", "--block-size", "32")
VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
"""As the preset `random-weights` has them; the models here are others."""


def orchestra(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [*START, *map(str, arguments)]
    environment = {**os.environ, **VARIABLES}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@dataclass
class Served:
    """`orchestra serve` as it runs."""

    process: subprocess.Popen[str]
    model: Path
    base_url: str
    log: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    """What it has printed, but for figures."""

    def chat(self, **options: Any) -> ChatVLLM:
        """A model on this server."""
        options = {"temperature": 1.0, "max_tokens": 512, **options}
        return ChatVLLM(model="tiny", base_url=self.base_url, timeout=120, **options)

    def pid(self) -> int:
        """The id of vLLM's first process: the keeper's only child."""
        (keeper,) = children(self.process.pid)
        (server,) = children(keeper)
        return server

    def wait_for(self, event: str, number: int = 1, seconds: float = 300.0) -> dict[str, Any]:
        """The event of that name and number, once it is printed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [printed for printed in self.events if printed["event"] == event]
            if len(found) >= number:
                return found[number - 1]
            if self.process.poll() is not None:
                assert self.process.stderr is not None
                raise AssertionError(f"orchestra serve ended: {self.process.stderr.read()}")
            time.sleep(0.1)
        raise AssertionError(f"no {event} within {seconds:g} s; log: {self.log.read_text()[-2000:]}")

    def read(self) -> None:
        """Keep what it prints."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] != "load":
                self.events.append(event)


def children(pid: int) -> list[int]:
    """Ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@contextmanager
def serving(model: Path | str, python: Path, log: Path, *flags: str) -> Iterator[Served]:
    """A server that is ready, for as long as the block lasts.

    Args:
        model: A folder, or a preset.
        python: An interpreter that has vllm.
        log: For the output of vllm.
        *flags: Of `orchestra serve`.
    """
    port = free_port()
    arguments = ["serve", model, *FLAGS, *flags, "--port", port, "--python", python, "--log", log, "--json"]
    process = subprocess.Popen(
        [*START, *map(str, arguments), "--", *VLLM_FLAGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **VARIABLES},
    )
    with process:
        served = Served(process, Path(model), f"http://127.0.0.1:{port}/v1", log)
        reader = threading.Thread(target=served.read)
        reader.start()
        try:
            served.wait_for("ready")
            yield served
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            reader.join()
