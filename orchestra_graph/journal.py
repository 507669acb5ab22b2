"""Keys of charges, and what is known of attempts that an earlier process, or an earlier try of a task, has sent.

A charge's key is `{owner}#{try}` or `{owner}#{try}.{request}`; its owner is a turn or a call. Charges of a nested run
stand under `{call id}/{key}`, once for each run around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from orchestra_graph.kept import oldest
from orchestra_graph.turns import Charge

NO_RETURN: Final = "the process ended before the attempt came back"

_MOST_STARTED: Final = 4096
"""Runs that `Started` knows; the calls of others take a look at their journal."""


class Journal(Protocol):
    """What a run remembers of its attempts outside of the process."""

    def sent(self, key: str, tool: str, upper: float) -> None:
        """Told of every attempt before it is sent, with the most that it can cost in dollars."""

    def came_back(self, charges: Mapping[str, Charge]) -> None:
        """Told of the charges of nested runs; those of the run's own calls come with their outcomes."""

    def captured(self, capture: Mapping[str, Any]) -> None:
        """Told of the tokens of a reply, `record.Capture`, of this run or of a nested one without a log of its own."""

    def ended(self, trajectory: Mapping[str, Any]) -> None:
        """Told of a nested run that has ended, as a line of the run log would hold it."""

    def earlier(self, call_id: str) -> Mapping[str, Charge]:
        """Charges of a call that has been taken up again: those of the tries before."""


class Started:
    """Runs that began in this process, with those of their tasks that have begun: nothing of any other was sent before.

    Runs that are left without an end (a consumer that leaves the stream) are forgotten, the oldest first.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._tasks

    def add(self, run_id: str) -> None:
        """A run begins."""
        while len(self._tasks) >= _MOST_STARTED:
            self._tasks.pop(oldest(self._tasks), None)
        self._tasks[run_id] = set()

    def discard(self, run_id: str) -> None:
        """A run has ended."""
        self._tasks.pop(run_id, None)

    def is_first(self, run_id: str, owner: str) -> bool:
        """Whether this is surely the first time that a task begins; from now on it no longer is."""
        tasks = self._tasks.get(run_id)
        if tasks is None or owner in tasks:
            return False
        tasks.add(owner)
        return True


def owner_of(key: str) -> str:
    """The call or turn that an attempt belongs to."""
    return key.partition("#")[0].partition("/")[0]


def of_owner(owner: str, charges: Mapping[str, Charge]) -> dict[str, Charge]:
    """The charges of a call; of a turn those of its calls as well, which may be other ones when it is decided again."""
    return {
        key: charge
        for key, charge in charges.items()
        if owner_of(key) == owner or owner_of(key).startswith(f"{owner}-")
    }


def own_charges(charges: Mapping[str, Charge]) -> list[Charge]:
    """Of the charges of a call, those that no nested run has made."""
    return [charge for key, charge in charges.items() if "/" not in key]


def worked_seconds(charges: Mapping[str, Charge]) -> float:
    """Seconds of a call's attempts, one after the other; a nested run counts its own, of which some overlap."""
    return sum(charge["seconds"] for charge in own_charges(charges))


def next_try(owner: str, charges: Mapping[str, Charge]) -> int:
    """The number of an owner's next try: after those that the keys name."""
    mark = f"{owner}#"
    return 1 + max(
        (int(key.removeprefix(mark).partition(".")[0]) for key in charges if key.startswith(mark)), default=-1
    )


def lost(tool: str, upper: float) -> Charge:
    """Charge of an attempt that was sent and never came back."""
    return {"tool": tool, "status": "uncertain", "dollars": 0.0, "upper": upper, "seconds": 0.0, "error": NO_RETURN}


def best_known(*sources: Mapping[str, Charge]) -> dict[str, Charge]:
    """All charges of several sources; what came back counts more than that it seemed lost."""
    found: dict[str, Charge] = {}
    for source in sources:
        for key, charge in source.items():
            if key not in found or found[key].get("error") == NO_RETURN:
                found[key] = charge
    return found
