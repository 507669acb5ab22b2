"""Small runs to write into logs, for the tests of the run log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.record import Trajectory

NAMES = ["runs.jsonl", "runs.jsonl.zst"]


def turn(run_id: str, index: int = 0, **parts: Any) -> dict[str, Any]:
    return {
        "id": f"{run_id[:8]}-{index}",
        "index": index,
        "decision": {"calls": [], "reason": "", "by": "router"},
        "charges": {},
        "outcomes": {},
        "seconds": 0.5,
        **parts,
    }


def trajectory(**parts: Any) -> dict[str, Any]:
    return {"task": {"question": "What is 1 + 1?"}, "turns": [], "ended": "answered", "answer": "2", **parts}


def read(path: Path) -> tuple[list[Trajectory], ReadReport]:
    report = ReadReport()
    return list(read_runs(path, report=report)), report


def spools(path: Path) -> list[str]:
    return sorted(file.name for file in Path(f"{path}.spool").glob("*.jsonl"))


def spares(path: Path) -> list[Path]:
    return sorted(Path(f"{path}.spool").glob("*.spare"))


def tear(path: Path, cut: int = 20) -> None:
    os.truncate(path, path.stat().st_size - cut)


def capture(id: str, turn_id: str) -> dict[str, Any]:
    return {
        "kind": "capture",
        "id": id,
        "turn": turn_id,
        "prompt_token_ids": [1],
        "token_ids": [2, 3],
        "logprobs": [-1, 0],
    }
