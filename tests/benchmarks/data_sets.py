"""What it takes to build data sets from a run log, in time against reading the same lines with orjson, and in memory.

    python tests/benchmarks/data_sets.py                # 5,000 runs
    python tests/benchmarks/data_sets.py --runs 20000

Runs of one to three turns with prompts of 1,500 tokens, eight of each task. Each kind is built in a process of its own;
memory is the peak of its resident set beyond what it held when the log was about to be opened.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
from orchestra_training.datasets.build import build
from orchestra_training.datasets.source import logs_of
from orchestra_training.datasets.write import COLUMNS, Kind

from orchestra_graph.runlog.encoding import dump
from tests.training.test_datasets import logged

PROMPT = 1_500


def main() -> None:
    """Measure each kind."""
    parser = argparse.ArgumentParser(description="Time and memory of building data sets.")
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--kind", choices=COLUMNS, help="only this one, of the log that is named")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    if arguments.kind is not None:
        return _one(arguments.kind, arguments.log)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "runs.jsonl"
        _write(log, arguments.runs)
        print(f"{arguments.runs} runs, {log.stat().st_size / 1e6:.0f} MB")
        for kind in COLUMNS:
            subprocess.run([sys.executable, __file__, "--kind", kind, "--log", log], check=True)
    return None


def _write(log: Path, runs: int) -> None:
    seed = random.Random(0)
    with log.open("wb") as file:
        for n in range(runs):
            tools, solved, cents = seed.choice(["sl", "sm", "m", "l", "sml"]), seed.random() < 0.6, seed.random() * 5
            run = logged(f"{n:08x}", tools, solved=solved, cents=cents, task=f"t{n // 8}")
            line = run.model_dump(mode="json", exclude_none=True)
            for capture in line["captures"].values():
                capture["prompt_token_ids"] = [7] * PROMPT + capture["prompt_token_ids"]
            file.write(dump(line))


def _one(kind: Kind, log: Path) -> None:
    started = time.perf_counter()
    with log.open("rb") as file:
        for line in file:
            orjson.loads(line)
    reading = time.perf_counter() - started
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        facts = build(kind, logs_of(log), Path(folder) / kind)
        took = time.perf_counter() - started
    print(
        f"{kind:6} {facts['examples']:6} examples in {took:5.1f} s, {took / reading:5.1f} times orjson alone;"
        f" {(_peak() - before) / 1024:4.0f} MB over the base"
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
