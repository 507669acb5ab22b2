"""What a run has cost: the merge of its charges, summed for the router and for each tool.

A ledger is derived from turns and holds no state of its own. Charges are keyed by call and attempt, so a write that
is replayed (resume, cache, subgraph) is counted once, and every attempt that was paid is counted, the failed ones
too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import Final

from typing_extensions import TypedDict

from orchestra_graph.preferences import Budget
from orchestra_graph.turns import Charge, Turn, sent_calls

ROUTER: Final = "router"
"""Name under which the router's own attempts are charged."""
FALLBACK: Final = "fallback"
"""Name under which the attempts of the fallback router are charged."""


class Totals(TypedDict):
    """Sums over charges."""

    calls: int
    """Calls made: decisions for a router, outcomes for a tool. Those of a nested orchestrator are in its own ledger."""
    attempts: int
    """Tries of calls, the failed and cancelled ones among them; what a cache answered was none."""
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
            dollars += most_dollars(turn["charges"].values())
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


def most_dollars(charges: Iterable[Charge]) -> float:
    """What attempts cost at most, as they count against a budget."""
    return sum(charge.get("upper", charge["dollars"]) for charge in charges)


def wall_seconds(turn: Turn) -> float:
    """Wall seconds of one turn: the decision, then its calls side by side."""
    return turn["seconds"] + max((outcome.get("seconds", 0.0) for outcome in turn["outcomes"].values()), default=0.0)


@dataclass(slots=True)
class _Account:
    """What belongs to one name."""

    charges: dict[str, Charge] = field(default_factory=dict)
    calls: int = 0
    wall_seconds: float = 0.0


def totals(turns: Mapping[str, Turn]) -> LedgerTotals:
    """Sum the charges of a run, in all and by tool."""
    accounts: defaultdict[str, _Account] = defaultdict(_Account)
    for turn in turns.values():
        for key, charge in turn["charges"].items():
            accounts[charge["tool"]].charges[key] = charge
        for name, seconds in _spans(turn):
            accounts[name].calls += 1
            accounts[name].wall_seconds += seconds
    whole = _Account(
        charges={key: charge for turn in turns.values() for key, charge in turn["charges"].items()},
        calls=sum(account.calls for account in accounts.values()),
        wall_seconds=fsum(wall_seconds(turn) for turn in turns.values()),
    )
    return {**_sum(whole), "tools": {name: _sum(account) for name, account in accounts.items()}}


def _spans(turn: Turn) -> Iterator[tuple[str, float]]:
    """Who did something in a turn, and its wall seconds."""
    decision = turn["decision"]
    if decision["by"] in (ROUTER, FALLBACK):
        yield decision["by"], turn["seconds"]
    for call, outcome in sent_calls(turn):
        yield outcome.get("by", call["tool"]), outcome.get("seconds", 0.0)


def _sum(account: _Account) -> Totals:
    tries: set[str] = set()
    dollars, uncertain, seconds = [], [], []
    sent = cached = wrote = 0
    for key, charge in account.charges.items():
        if charge["status"] != "cached":
            tries.add(_try(key))
        sent += charge.get("input_tokens", 0)
        cached += charge.get("cached_tokens", 0)
        wrote += charge.get("output_tokens", 0)
        if "upper" in charge:
            uncertain.append(charge["upper"] - charge["dollars"])
        dollars.append(charge["dollars"])
        seconds.append(charge["seconds"])
    return {
        "calls": account.calls,
        "attempts": len(tries),
        "input_tokens": sent,
        "cached_tokens": cached,
        "output_tokens": wrote,
        "dollars": fsum(dollars),
        "uncertain_dollars": fsum(uncertain),
        "seconds": fsum(seconds),
        "wall_seconds": account.wall_seconds,
    }


def _try(key: str) -> str:
    """The try that a charge belongs to: a try's model requests carry its key and a number of their own."""
    return key.partition(".")[0]
