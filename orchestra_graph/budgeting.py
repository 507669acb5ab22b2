"""What a run may still spend, and what of it is spoken for.

Every call is checked before it is sent, with what it will at least cost. The price of closing the run is kept back, so that
a run whose budget is used up can still be answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.engine import Setup
from orchestra_graph.ledger import Spent
from orchestra_graph.state import BudgetLeft
from orchestra_graph.text import estimate_tokens
from orchestra_graph.turns import StoppedBy, Turn


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
            self._keep_back(closing)

    @property
    def used_up(self) -> StoppedBy | None:
        """The element of the budget that lets nothing more be done, or None."""
        if self.turns < 1:
            return "turns"
        if self.seconds - self._kept_seconds <= 0:
            return "seconds"
        if self.is_bounded and not self._any_call_fits():
            return "dollars"
        return None

    @property
    def seconds_for_deciding(self) -> float:
        """Time that the router may take."""
        return self.seconds - self._kept_seconds

    def affords(self, dollars: float) -> bool:
        """Whether so much can be spent without touching the reserve for closing."""
        return dollars <= self.dollars - self._kept_dollars - self._reserved

    def spend(self, turn: Turn) -> None:
        """Take off what a decision cost that has just been made."""
        if self.is_bounded:
            spent = Spent.of([turn])
            self.dollars -= spent.dollars
            self.seconds -= spent.seconds

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
        least = spec.least_dollars(estimate_tokens(texts) if spec.kind == "expert" else 0)
        kept = 0.0 if spec.terminal else self._kept_dollars
        free = self.dollars - kept - self._reserved
        if least > free:
            return f"not sent: {spec.name} costs at least ${least:.6f}, and ${max(0.0, free):.6f} is left for it"
        if self.seconds - (0.0 if spec.terminal else self._kept_seconds) <= 0:
            return f"not sent: no time is left for {spec.name}"
        self._reserved += least
        return None

    def for_call(self, spec: ToolSpec) -> BudgetLeft:
        """What a call may spend: all that is left for a terminal tool, else less the reserve for closing."""
        if not self.is_bounded:
            return {"dollars": None, "seconds": None, "turns": self.turns}
        kept = (0.0, 0.0) if spec.terminal else (self._kept_dollars, self._kept_seconds)
        dollars, seconds = self.dollars - kept[0], self.seconds - kept[1]
        return {
            "dollars": None if math.isinf(dollars) else max(0.0, dollars),
            "seconds": None if math.isinf(seconds) else seconds,
            "turns": self.turns,
        }

    def closing_tools(self, closing: str | None) -> list[ToolSpec]:
        """Terminal tools that can answer with what is left, cheapest first; the named one before all others."""
        fit = [
            spec
            for spec in closers(self._setup.catalog, closing)
            if spec.least_dollars(self._tokens) <= self.dollars and spec.latency.p50 <= self.seconds
        ]
        return fit if self.seconds > 0 else []

    def _keep_back(self, closing: str | None) -> None:
        budget = self._setup.budget
        for spec in closers(self._setup.catalog, closing):
            least = spec.least_dollars(self._tokens)
            # A reserve of more than half the budget would leave nothing to find the answer with.
            if least <= budget.dollars / 2:
                self._kept_dollars = least
                self._kept_seconds = spec.latency.p50 if spec.latency.p50 <= budget.seconds / 2 else 0.0
                return

    def _any_call_fits(self) -> bool:
        specs = self._setup.catalog.tools.values()
        return any(
            spec.least_dollars(self._tokens if spec.kind == "expert" else 0)
            <= self.dollars - (0.0 if spec.terminal else self._kept_dollars)
            for spec in specs
        )


def closers(catalog: Catalog, closing: str | None) -> list[ToolSpec]:
    """Terminal tools that can be called without arguments of their own, in the order in which closing tries them."""
    specs = [catalog.tools[n] for n in catalog.terminals if not catalog.tools[n].required]
    return sorted(specs, key=lambda spec: (spec.name != closing, spec.least_dollars(1000)))
