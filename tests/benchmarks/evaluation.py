"""How many runs a second an evaluation makes, in one process and in several, and what its bootstrap takes.

    python tests/benchmarks/evaluation.py [tasks] [processes]

Prints runs a second of the baselines, by condition and number of processes, the ratio to one process, and runs a second
of computing, in all processes together: what a core that has nothing else to do would reach. On a machine with fewer
free cores than processes the ratio only says how many were free; starting a process takes two seconds of computing.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from orchestra_training.evaluate.conditions import WorkbenchSet
from orchestra_training.evaluate.evaluation import Evaluation, Outcome, carry_out
from orchestra_training.evaluate.routers import BASELINES, parse_router


def computed() -> float:
    """Seconds of computing so far, in this process and in those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def played(name: str, tasks: int, workers: int) -> tuple[Outcome, float, float]:
    """An evaluation from an empty log, its seconds, and its seconds of computing."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Evaluation(
            routers=list(map(parse_router, BASELINES)),
            sets=[partial(WorkbenchSet, name, tasks=tasks)],
            log=Path(folder) / "runs.jsonl",
            workers=workers,
        )
        started, before = time.perf_counter(), computed()
        outcome = carry_out(wanted)
        return outcome, time.perf_counter() - started, computed() - before


def main() -> None:
    """Measure and print."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    most = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1
    played("in-distribution", 2, 1)  # imports
    print(f"{len(BASELINES)} baselines, {tasks} tasks, {os.cpu_count()} cores")
    for name in ("in-distribution", "unseen"):
        alone = 0.0
        for workers in sorted({1, 2, most}):
            outcome, seconds, used = played(name, tasks, workers)
            rate = len(outcome.runs) / seconds
            alone = alone or rate
            told = f"{rate / alone:5.2f}x of one  {len(outcome.runs) / used:5.1f} runs/CPU s"
            print(f"{name:16} {workers:2} processes {rate:7.1f} runs/s  {told}")
            started = time.perf_counter()
            outcome.tables(against="rules", draws=2000)
            print(f"{'':16} tables {time.perf_counter() - started:.2f} s for {len(outcome.runs):,} runs")


if __name__ == "__main__":
    main()
