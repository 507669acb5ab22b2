"""Runs to measure, for the tests of the training package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.served import Served
from orchestra_graph.testing import ScriptedRouter

CATALOG = Catalog.of([ToolSpec(name=name) for name in ("search", "large", "small")])


class VersionedRouter(ScriptedRouter):
    """A router whose weights have a version."""

    def __init__(self, script: Sequence[Any]) -> None:
        super().__init__(script)

    @property
    def served(self) -> Served:
        return Served(weights_hash="5eed", step=7)


def decided(index: int, tools: Sequence[str] = (), **parts: Any) -> dict[str, Any]:
    """A turn in which each tool was called and answered: 1 cent and 2 seconds a call, half of that for deciding."""
    calls: list[dict[str, Any]] = [{"id": f"r-{index}-{n}", "tool": tool, "args": {}} for n, tool in enumerate(tools)]
    charges = {f"r-{index}#0": charge("router", 0.005, 1.0)}
    charges |= {f"{call['id']}#0": charge(call["tool"], 0.01, 2.0) for call in calls}
    decision = {"calls": calls, "reason": "", "by": "router", **parts.pop("decision", {})}
    outcomes = {call["id"]: {"content": "found", "error": False, "seconds": 2.5} for call in calls}
    outcomes = {id: {**outcome, **parts.get("outcome", {})} for id, outcome in outcomes.items()}
    parts.pop("outcome", None)
    return {
        "id": f"r-{index}",
        "index": index,
        "decision": decision,
        "charges": charges,
        "outcomes": outcomes,
        "seconds": 1.5,
        **parts,
    }


def charge(tool: str, dollars: float, seconds: float, **parts: Any) -> dict[str, Any]:
    return {"tool": tool, "status": "paid", "dollars": dollars, "seconds": seconds, **parts}


def run(id: str = "r", **parts: Any) -> Trajectory:
    """A judged run that searched once and had its question answered by the large tool."""
    return Trajectory.model_validate(
        {
            "run_id": id,
            "task": {"id": "t1", "question": "What is 1 + 1?"},
            "turns": [decided(0, ["search"]), decided(1, ["large"])],
            "ended": "answered",
            "stopped_by": "answer",
            "answer": "2",
            "policy": {"name": "tiny", "weights_hash": "w", "step": 3},
            "catalog_hash": CATALOG.hash,
            "verdict": {"outcome": 1.0, "by": "exact"},
            **parts,
        }
    )
