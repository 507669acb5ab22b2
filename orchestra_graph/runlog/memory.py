"""A run log that stays in the process: for runs that are read at once, as a trainer's rollouts are.

    log = MemoryLog()
    graph = create_orchestrator(router, tools, run_log=log).compile()
    await graph.ainvoke({"messages": [("user", "What is 6 x 7?")]})
    (run,) = log.take()

What it holds is lost with the process, and grows until it is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra_graph.errors import RunLogError
from orchestra_graph.runlog.log import RunLog, captures_named, captures_of, charges_of, has_nested, runs_of
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.runlog.repair import folded
from orchestra_graph.runlog.spool import Journal, Record
from orchestra_graph.turns import Charge


class MemoryLog(RunLog):
    """Keeps the runs of one graph until they are taken; not for several threads at a time."""

    def __init__(self) -> None:
        self._records: dict[str, list[Record]] = {}
        self._ended: list[Record] = []

    def journal(self, run_id: str, record: Mapping[str, Any], *, hold: bool = False) -> None:
        """Keep one record of a run that goes on."""
        self._records.setdefault(run_id, []).append(dict(record))

    def take_up(self, run_id: str) -> dict[str, Charge]:
        """What the attempts of a run that goes on have cost, by key."""
        return charges_of(self._journal(run_id))

    def finish(self, run_id: str, trajectory: Mapping[str, Any]) -> dict[str, Record]:
        """Keep the run as it ended.

        Returns:
            The captures that its turns name, by id.
        """
        journal = self._journal(run_id)
        found = captures_of(journal)
        captures = {id: found[id] for id in captures_named(trajectory["turns"]) if id in found}
        nested = {"runs": runs_of(journal)} if has_nested(trajectory["turns"]) else {}
        self._ended.append({**trajectory, **nested, "captures": captures})
        self._records.pop(run_id, None)
        return captures

    def judge(self, run_id: str, verdict: Verdict) -> None:
        """Say whether a run that has ended solved its task; a later verdict replaces it.

        Raises:
            RunLogError: No such run is held.
        """
        run = next((run for run in reversed(self._ended) if run["run_id"] == run_id), None)
        if run is None:
            raise RunLogError(f"run {run_id!r} is not held; expected one that has ended; fix: judge it before `take`")
        run["verdict"] = verdict.model_dump(mode="json")

    def take(self) -> list[Trajectory]:
        """The runs so far, in the order in which they ended; those that broke come last, as `failed` or `abandoned`."""
        runs, broken = self._ended, [self._journal(run_id) for run_id in self._records]
        self._ended, self._records = [], {}
        return [Trajectory.model_validate(run) for run in [*runs, *map(folded, broken)]]

    def _journal(self, run_id: str) -> Journal:
        return Journal(run_id, self._records.get(run_id, []))
