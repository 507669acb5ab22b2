"""How long calls of each tool really took, out of a run log: for `Catalog.with_measured_latency`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.turns import Turn

NEWEST = 1000
"""Calls of a tool that count, from the end of the log: what was measured long ago may no longer hold."""


def seconds_by_tool(path: str | Path) -> dict[str, list[float]]:
    """Seconds of work of past calls that were answered, by tool, oldest first.

    Args:
        path: A run log; lines that cannot be read are passed over.

    Raises:
        RunLogError: The file cannot be opened.
    """
    seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=NEWEST))
    for run in read_runs(path, report=ReadReport()):
        for tool, spent in seconds_of_calls(run.turns):
            seconds[tool].append(spent)
    return {name: list(values) for name, values in seconds.items()}


def seconds_of_calls(turns: Iterable[Turn]) -> Iterator[tuple[str, float]]:
    """Tool and seconds of work of each call that was sent and answered by the tool itself."""
    for turn in turns:
        for call in turn["decision"]["calls"]:
            outcome = turn["outcomes"].get(call["id"])
            if outcome is None or outcome["error"] or outcome.get("cached") or "by" in outcome:
                continue
            paid = [c for k, c in turn["charges"].items() if k.startswith(f"{call['id']}#") and c["status"] == "paid"]
            if any(key.startswith(f"{call['id']}/") for key in turn["charges"]):
                yield call["tool"], outcome.get("seconds", 0.0)  # an orchestrator's own calls are charged to it
            elif paid:
                yield call["tool"], sum(charge["seconds"] for charge in paid)
