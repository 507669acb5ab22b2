"""What a run has cost: the merge of its charges, summed for the router and for each tool.

A ledger is derived from turns and holds no state of its own. Charges are keyed by call and attempt, so a write that
is replayed (resume, cache, subgraph) is counted once, and every attempt that was paid is counted, the failed ones
too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

from typing_extensions import TypedDict

from orchestra_graph.preferences import Budget
from orchestra_graph.turns import Charge, Turn

ROUTER = "router"
"""Name under which the router's own attempts are charged."""


class Totals(TypedDict):
    """Sums over charges."""

    calls: int
    """Calls made: decisions for the router, outcomes for a tool."""
    attempts: int
    """Physical attempts, the failed and cancelled ones among them."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    dollars: float
    """What is known to be owed."""
    uncertain_dollars: float
    """What attempts that never came back can cost on top of that, at most."""
    seconds: float
    """Seconds of work; pauses between attempts are not in it."""
    wall_seconds: float
    """Seconds from call to outcome, pauses among them; calls of one turn overlap."""


class LedgerTotals(Totals):
    """The `ledger` of a finished run."""

    tools: dict[str, Totals]
    """By tool name; the router under `router`, tools of a nested orchestrator as `outer/inner`."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What counts against a budget."""

    dollars: float
    """Known dollars plus the upper bounds of uncertain attempts: a budget holds in the worst case."""
    seconds: float
    """Seconds of the run: each turn's decision and its slowest call. Waiting for a person is not in it."""
    turns: int

    @classmethod
    def of(cls, turns: Iterable[Turn]) -> Spent:
        """Sum up turns."""
        dollars = seconds = 0.0
        count = 0
        for turn in turns:
            count += 1
            seconds += wall_seconds(turn)
            for charge in turn["charges"].values():
                dollars += charge.get("upper", charge["dollars"])
        return cls(dollars, seconds, count)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.dollars + other.dollars, self.seconds + other.seconds, self.turns + other.turns)

    def left(self, budget: Budget) -> Budget | None:
        """What remains of a budget, or None when one of its elements is used up."""
        dollars, seconds, turns = (
            budget.dollars - self.dollars,
            budget.seconds - self.seconds,
            budget.turns - self.turns,
        )
        if dollars < 0 or seconds <= 0 or turns < 1:
            return None
        return Budget(dollars=dollars, seconds=seconds, turns=turns)


def wall_seconds(turn: Turn) -> float:
    """Wall seconds of one turn: the decision, then its calls side by side."""
    return turn["seconds"] + max((outcome.get("seconds", 0.0) for outcome in turn["outcomes"].values()), default=0.0)


def totals(turns: Mapping[str, Turn]) -> LedgerTotals:
    """Sum the charges of a run, in all and by tool."""
    charges = [charge for turn in turns.values() for charge in turn["charges"].values()]
    walls, calls = _walls(turns)
    names = dict.fromkeys([*(charge["tool"] for charge in charges), *walls])
    tools = {
        name: _sum((c for c in charges if c["tool"] == name), calls=calls.get(name, 0), wall=walls.get(name, 0.0))
        for name in names
    }
    whole = _sum(charges, calls=sum(calls.values()), wall=fsum(wall_seconds(turn) for turn in turns.values()))
    return {**whole, "tools": tools}


def _walls(turns: Mapping[str, Turn]) -> tuple[dict[str, float], dict[str, int]]:
    """Wall seconds and calls by name."""
    walls: dict[str, float] = {}
    calls: dict[str, int] = {}
    for turn in turns.values():
        tools = {call["id"]: call["tool"] for call in turn["decision"]["calls"]}
        spans = [(ROUTER, turn["seconds"])] if turn["decision"]["by"] == "router" else []
        spans += [
            (tools[i], outcome.get("seconds", 0.0))
            for i, outcome in turn["outcomes"].items()
            if not outcome.get("unsent")
        ]
        for name, seconds in spans:
            walls[name] = walls.get(name, 0.0) + seconds
            calls[name] = calls.get(name, 0) + 1
    return walls, calls


def _sum(charges: Iterable[Charge], *, calls: int, wall: float) -> Totals:
    charges = list(charges)
    return {
        "calls": calls,
        "attempts": len(charges),
        "input_tokens": sum(charge.get("input_tokens", 0) for charge in charges),
        "cached_tokens": sum(charge.get("cached_tokens", 0) for charge in charges),
        "output_tokens": sum(charge.get("output_tokens", 0) for charge in charges),
        "dollars": fsum(charge["dollars"] for charge in charges),
        "uncertain_dollars": fsum(charge.get("upper", charge["dollars"]) - charge["dollars"] for charge in charges),
        "seconds": fsum(charge["seconds"] for charge in charges),
        "wall_seconds": wall,
    }
