"""What a run may still spend, and what of it is spoken for.

Every call is checked before it is sent, with what it will at least cost. The price of closing the run is kept back, so
that a run whose budget is used up can still be answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.engine import Setup
from orchestra_graph.journal import own_charges
from orchestra_graph.ledger import Spent, most_dollars
from orchestra_graph.state import BudgetLeft
from orchestra_graph.text import estimate_tokens
from orchestra_graph.turns import Charge, StoppedBy, Turn

_ROUNDING: Final = 1e-9
"""Dollars or seconds that a sum may be off."""
_STUCK: Final = 3
"""Replies in a row of which no call fitted the budget, after which the run is closed."""


SHORTEST: Final = 1e-3
"""Seconds in which nothing more can be done."""

UNKNOWN_LATENCY: Final = 10.0
"""Seconds kept back for a closing tool whose latency nobody stated; at most a tenth of the budget."""


class Purse:
    """The budget of one run at one moment.

    Args:
        setup: Budget and catalog.
        turns: Turns so far.
        question: The user's question; every expert reads it, so it bounds what a call costs at least.
        closing: Name of the closing tool, or None for the cheapest terminal one.
    """

    def __init__(self, setup: Setup, turns: Mapping[str, Turn], question: str, closing: str | None) -> None:
        self._setup = setup
        self._reserved = 0.0
        self._graphs = 1
        self._is_stuck = False
        self.is_bounded = setup.is_bounded
        """Whether dollars or seconds are limited at all."""
        self.dollars = setup.budget.dollars
        """Left, the reserve for closing among it."""
        self.seconds = setup.budget.seconds
        self.turns = setup.budget.turns - len(turns)
        self._tokens = 0
        self._kept_dollars = self._kept_seconds = 0.0
        if self.is_bounded:
            spent = Spent.of(turns.values())
            self.dollars -= spent.dollars
            self.seconds -= spent.seconds
            self._tokens = estimate_tokens(question)
            self._is_stuck = len(turns) >= _STUCK and all(map(_unsent, list(turns.values())[-_STUCK:]))
            self._keep_back(closing)

    @property
    def used_up(self) -> StoppedBy | None:
        """The element of the budget that lets nothing more be done, or None."""
        if self.turns < 1:
            return "turns"
        if self.seconds - self._kept_seconds <= SHORTEST:
            return "seconds"
        if self._is_stuck or (self.is_bounded and not self._any_call_fits()):
            return "dollars"
        return None

    @property
    def seconds_for_deciding(self) -> float:
        """Time that the router may take."""
        return self.seconds - self._kept_seconds

    def affords(self, dollars: float) -> bool:
        """Whether so much can be spent without touching the reserve for closing."""
        return dollars <= self.dollars - self._kept_dollars - self._reserved + _ROUNDING

    def spend(self, turn: Turn) -> None:
        """Take off what a decision cost that has just been made, before its calls are sent."""
        if self.is_bounded:
            self.share_among(self._setup.catalog.tools[call["tool"]] for call in turn["decision"]["calls"])
            spent = Spent.of([turn])
            self.dollars -= spent.dollars
            self.seconds -= spent.seconds

    def share_among(self, specs: Iterable[ToolSpec]) -> None:
        """Take down the tools that one reply calls: the graphs among them share what is left."""
        self._graphs = max(1, sum(spec.is_open_ended for spec in specs))

    def reserve(self, spec: ToolSpec, texts: list[str]) -> str | None:
        """Set aside what a call will at least cost.

        Args:
            spec: The tool to be called.
            texts: What an expert will at least read.

        Returns:
            None, or why the call cannot be sent.
        """
        if not self.is_bounded:
            return None
        least = _least_dollars(spec, texts)
        kept = 0.0 if spec.terminal else self._kept_dollars
        free = self.dollars - kept - self._reserved
        if least > free + _ROUNDING:
            return f"not sent: {spec.name} costs at least ${least:.6f}, and ${max(0.0, free):.6f} is left for it"
        if self.seconds - (0.0 if spec.terminal else self._kept_seconds) <= 0:
            return f"not sent: no time is left for {spec.name}"
        self._reserved += least
        return None

    def for_call(self, spec: ToolSpec) -> BudgetLeft:
        """What a call may spend: its share of all that is left for a terminal tool, else less the reserve for closing.

        Graphs called in the same reply share the dollars, since each may spend all that it is given.
        """
        kept_dollars, kept_seconds = (0.0, 0.0) if spec.terminal else (self._kept_dollars, self._kept_seconds)
        share = spec.share or 1.0
        dollars = max(0.0, self.dollars - kept_dollars) * share / (self._graphs if spec.is_open_ended else 1)
        seconds = (self.seconds - kept_seconds) * share
        return {
            "dollars": None if math.isinf(dollars) else dollars,
            "seconds": None if math.isinf(seconds) else seconds,
            # A graph that closes a run whose turns are used up needs one of its own.
            "turns": max(1, self.turns),
        }

    def closing_tools(self, closing: str | None) -> list[ToolSpec]:
        """Terminal tools that can answer with what is left, cheapest first; the named one before all others."""
        fit = [
            spec
            for spec in closers(self._setup.catalog, closing)
            if spec.least_dollars(self._tokens) <= self.dollars + _ROUNDING
            and spec.latency.p50 <= self.seconds + _ROUNDING
        ]
        return fit if self.seconds > 0 else []

    def _keep_back(self, closing: str | None) -> None:
        budget = self._setup.budget
        for spec in closers(self._setup.catalog, closing):
            least = spec.least_dollars(self._tokens)
            # A reserve of more than half the budget would leave nothing to find the answer with.
            if least <= budget.dollars / 2:
                self._kept_dollars = least
                seconds = spec.latency.p50 or min(UNKNOWN_LATENCY, budget.seconds / 10)
                self._kept_seconds = seconds if seconds <= budget.seconds / 2 else 0.0
                return

    def _any_call_fits(self) -> bool:
        specs = self._setup.catalog.tools.values()
        return any(
            spec.least_dollars(self._tokens if spec.kind == "expert" else 0)
            <= self.dollars - (0.0 if spec.terminal else self._kept_dollars) + _ROUNDING
            for spec in specs
        )


def less(left: BudgetLeft, made: Mapping[str, Charge], seconds: float) -> BudgetLeft:
    """What the next attempt may spend: what the call was given, less what its attempts so far may have used."""
    return {
        "dollars": None if left["dollars"] is None else max(0.0, left["dollars"] - most_dollars(made.values())),
        "seconds": None if left["seconds"] is None else max(SHORTEST, left["seconds"] - seconds),
        "turns": left["turns"],
    }


def shortage(
    spec: ToolSpec, texts: list[str], left: BudgetLeft, made: Mapping[str, Charge], seconds: float
) -> str | None:
    """Why what a call was given does not pay for one more attempt, or None.

    Args:
        spec: The tool to be called.
        texts: What an expert will at least read.
        left: What the call was given.
        made: Charges of its attempts so far.
        seconds: What these took.
    """
    if left["seconds"] is not None and seconds >= left["seconds"]:
        return "not sent: no time is left"
    given = left["dollars"]
    if given is None:
        return None
    # What an orchestrator inside has spent it has checked itself: it may go on, and end with what it has found.
    is_overspent = most_dollars(own_charges(made)) > given + _ROUNDING
    least, rest = _least_dollars(spec, texts), max(0.0, given - most_dollars(made.values()))
    if least <= rest + _ROUNDING and not is_overspent:
        return None
    return f"not sent: costs at least ${least:.6f}, and {'nothing' if is_overspent else f'${rest:.6f}'} is left"


def _least_dollars(spec: ToolSpec, texts: list[str]) -> float:
    """What a call costs at least; `texts` are what an expert will at least read."""
    return spec.least_dollars(estimate_tokens(texts) if spec.kind == "expert" else 0)


def _unsent(turn: Turn) -> bool:
    """Whether there were calls and none of them fitted the budget."""
    outcomes = turn["outcomes"].values()
    return bool(outcomes) and all(outcome.get("unsent", False) for outcome in outcomes)


def closers(catalog: Catalog, closing: str | None) -> list[ToolSpec]:
    """Terminal tools that can be called without arguments of their own, in the order in which closing tries them."""
    specs = [catalog.tools[n] for n in catalog.terminals if not catalog.tools[n].required]
    return sorted(specs, key=lambda spec: (spec.name != closing, spec.least_dollars(1000)))
