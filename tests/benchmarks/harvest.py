"""What it takes to turn a long run log into training data, against reading its lines as plain dictionaries.

    python tests/benchmarks/harvest.py                # 100,000 runs, about 1.1 GB in a temporary folder
    python tests/benchmarks/harvest.py --runs 10000

The log holds real runs of the workbench, each repeated under other ids as groups of eight rollouts of tasks of their
own; every group has a catalog of its own (another price), as in training, and every run a verdict in a later line.
Each stage is a process of its own. A figure is CPU time, and peak memory over what the process had before it began;
the ratio is the speed of `orjson.loads` on each line, divided. The bars: a ratio of at least 0.25 for reading,
validating, scoring and splitting, and less than 300 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from orchestra_training.filters import FilterReport
from orchestra_training.groups import collect
from orchestra_training.harvest.gather import harvest
from orchestra_training.harvest.logs import LogSource
from orchestra_training.harvest.split import is_test, task_hash
from orchestra_training.reward.guarded import guarded

from orchestra_graph import Rules, RunLog
from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.workbench import Workbench
from orchestra_graph.workbench.trial import try_router

ROLLOUTS = 8
REAL = 200
"""Runs of the workbench that are repeated."""
MEGABYTE = 1024 * 1024


def write_log(path: Path, runs: int) -> None:
    """A log of that many runs."""
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder, "runs.jsonl"))
        bench = Workbench()
        asyncio.run(try_router(bench, Rules(), bench.tasks("train", REAL), run_log=log))
        made = [run.model_dump(mode="json", exclude_unset=True) for run in read_runs(log.path)]
    with path.open("wb") as file:
        for number in range(runs):
            group, rollout = divmod(number, ROLLOUTS)
            record = made[group % len(made)]
            verdict = record.pop("verdict")
            catalog = {**record["catalog"], "tools": {**record["catalog"]["tools"]}}
            name = next(iter(catalog["tools"]))
            price = {**catalog["tools"][name]["price"], "per_call": group / 1e6}
            catalog["tools"][name] = {**catalog["tools"][name], "price": price}
            task = {"id": f"task-{group}", "question": f"{record['task']['question']} ({group})"}
            run_id = f"{number:032x}"
            own = {"task": task, "group_id": f"g{group}", "rollout": rollout, "catalog_hash": f"{group:064x}"}
            line = {"version": 1, **record, **own, "run_id": run_id, "purpose": "train"}
            line = {"version": 1, "run_id": run_id, **{k: v for k, v in line.items() if k not in ("version", "run_id")}}
            line["catalog"] = catalog
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            judged = {"version": 1, "run_id": run_id, "verdict": verdict}
            file.write(orjson.dumps(judged, option=orjson.OPT_APPEND_NEWLINE))
            record["verdict"] = verdict


def plain(path: Path) -> dict[str, Any]:
    """Every line as a dictionary."""
    with path.open("rb") as file:
        return {"lines": sum(1 for _ in map(orjson.loads, file))}


def scored(path: Path) -> dict[str, Any]:
    """Runs validated, split by task, measured, grouped, and rewarded."""
    tests: dict[bool, int] = {False: 0, True: 0}
    read, report = ReadReport(), FilterReport()

    def split(run: Trajectory) -> Trajectory:
        tests[is_test(task_hash(run.task) or "0", 0.1)] += 1
        return run

    groups = collect(map(split, read_runs(path, report=read)), report)
    rewards = [reward for group in groups for reward in group.rewards(guarded)]
    return {
        "runs": read.runs,
        "groups": len(groups),
        "rewards": len(rewards),
        "train": tests[False],
        "test": tests[True],
    }


def harvested(path: Path) -> dict[str, Any]:
    """The whole harvest: read, validated, fidelity stated, merged, split, written and hashed."""
    report = harvest([LogSource(path)], path.parent / "data")
    sizes = [file.stat().st_size for file in (path.parent / "data").glob("*.zst")]
    counts = {"runs": report.runs, "train": report.splits["train"].runs, "test": report.splits["test"].runs}
    return {**counts, "tasks": sum(s.tasks for s in report.splits.values()), "megabytes": sum(sizes) // MEGABYTE}


def memory(field: str) -> float:
    """Megabytes of this process, as Linux counts them: `VmRSS` now, `VmHWM` at most since it started."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


STAGES = {"orjson into dicts": plain, "read, validated, scored, split": scored, "harvested into files": harvested}


def stage(name: str, path: Path) -> None:
    """Run one stage in this process and print what it took."""
    base = memory("VmRSS")
    started, cpu = time.perf_counter(), time.process_time()
    counts = STAGES[name](path)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    print(json.dumps({"cpu": cpu, "wall": wall, "memory": memory("VmHWM") - base, "counts": counts}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Speed and memory of a harvest.")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        stage(arguments.stage[0], Path(arguments.stage[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runs.jsonl")
        write_log(path, arguments.runs)
        print(f"{arguments.runs:,} runs, {path.stat().st_size / MEGABYTE:,.0f} MB of lines")
        print(f"{'stage':32} {'CPU s':>7} {'wall s':>7} {'ratio':>6} {'MB':>6}  counts")
        base = 0.0
        for name in STAGES:
            command = [sys.executable, __file__, "--stage", name, str(path)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            base = base or done["cpu"]
            counts = ", ".join(f"{key} {value:,}" for key, value in done["counts"].items())
            ratio = base / done["cpu"]
            print(f"{name:32} {done['cpu']:7.1f} {done['wall']:7.1f} {ratio:6.2f} {done['memory']:6.0f}  {counts}")


if __name__ == "__main__":
    main()
