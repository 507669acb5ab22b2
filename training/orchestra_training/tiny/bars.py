"""What the tiny router has to reach, held against evaluations; a bar is passed where the bootstrap's bound passes it.

    orchestra eval -c in-distribution -c prices -c unseen -c preferences ROUTERS --reference reference.jsonl --json \
        > evaluation.json
    orchestra eval -c budget ROUTERS --json > budget.json
    python -m orchestra_training.tiny.bars evaluation.json budget.json

The routers are `tiny`, `lessons` (the same before it learnt from its own runs) and the baselines. A bar whose routers
or condition an evaluation lacks is not told, nor one on utility where it has no reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

TINY: Final = "tiny"
ORACLE: Final = "oracle"
STRONGEST: Final = "strongest"
LADDER: Final = ("in-distribution", "prices", "unseen")
MOST_DOLLARS: Final = 0.3
"""Of those of the strongest expert."""
LEAST_UTILITY: Final = 0.85
"""Of the oracle's."""
MOST_AVOIDED: Final = 0.02
"""Share of runs that call a tool to be avoided."""
INFERIOR: Final = -0.02
"""Success that a baseline may be ahead at a budget."""

Figures = Mapping[str, Any]
Wanted = Literal["at least", "above", "at most", "below"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of one condition."""

    condition: str
    name: str
    figure: str
    """What was measured, with its bounds."""
    wanted: str
    passed: bool


def bars_of(condition: str, figures: Figures) -> Iterator[Bar]:
    """The bars of a condition, as `orchestra eval --json` gives its figures."""
    against = figures["pairs"].get(TINY, {})
    if condition in LADDER and STRONGEST in against:
        yield _bar(
            condition,
            "success, less the strongest expert's",
            against[STRONGEST]["success"]["difference"],
            "at least",
            0,
        )
        yield _bar(
            condition,
            "dollars, of the strongest expert's",
            against[STRONGEST]["dollars"]["ratio"],
            "at most",
            MOST_DOLLARS,
        )
    if condition == "budget":
        yield from _budgets(condition, against)
        yield from _priciest(condition, figures["routers"].get(TINY, {}).get("kinds", {}))
        return
    for other, pair in against.items():
        if "utility" not in pair:
            continue
        if other not in (ORACLE, STRONGEST) or (other == STRONGEST and condition == "preferences"):
            yield _bar(condition, f"utility, less that of {other}", pair["utility"]["difference"], "above", 0)
    if condition in LADDER and "utility" in against.get(ORACLE, {}):
        yield _bar(
            condition, "utility, of the oracle's", against[ORACLE]["utility"]["ratio"], "at least", LEAST_UTILITY
        )
    if condition == "preferences" and TINY in figures["routers"]:
        yield from _wishes(condition, figures)


def _wishes(condition: str, figures: Figures) -> Iterator[Bar]:
    avoided = figures["routers"][TINY]["kinds"]["avoid"]["wished_share"]
    yield _bar(condition, "share of runs that call a tool to be avoided", avoided, "below", MOST_AVOIDED)
    wishes = figures["wishes"][TINY]
    for wish, other, amount in (("cheap", "fast", "dollars"), ("fast", "cheap", "seconds")):
        yield _bar(
            condition,
            f"{amount} with {wish!r}, of those with {other!r}",
            wishes[wish][other][amount]["ratio"],
            "below",
            1,
        )


def _budgets(condition: str, against: Figures) -> Iterator[Bar]:
    """At each budget the baseline that comes closest."""
    budgets: dict[str, list[tuple[Figures, str]]] = {}
    for other, pair in against.items():
        if other != ORACLE:
            for budget, measured in pair["kinds"].items():
                budgets.setdefault(budget, []).append((measured["success"]["difference"], other))
    for budget, measured in budgets.items():
        difference, other = min(measured, key=lambda one: one[0]["low"])
        yield _bar(condition, f"{budget}: success, less that of {other}", difference, "at least", INFERIOR)


def _priciest(condition: str, budgets: Figures) -> Iterator[Bar]:
    """From each limit to the next one of its kind, where calls were made; a rise is one whose bounds do not meet."""
    for dollars in (False, True):
        named = [(name, at) for name, at in budgets.items() if name.startswith("$") is dollars]
        curve = [(name, at) for name, at in named if at["priciest_share"]["value"] is not None]
        for (less, before), (more, after) in pairwise(curve):
            rises = {metric: after[metric]["low"] > before[metric]["high"] for metric in ("priciest_share", "success")}
            yield Bar(
                condition,
                f"{less} to {more}: share of the priciest tool",
                f"{_told(before['priciest_share'])} to {_told(after['priciest_share'])}",
                "no rise without success",
                passed=not rises["priciest_share"] or rises["success"],
            )


def _bar(condition: str, name: str, bounds: Figures, wanted: Wanted, limit: float) -> Bar:
    low, high = bounds["low"], bounds["high"]
    if low is None or high is None:
        return Bar(condition, name, _told(bounds), f"{wanted} {limit:g}", passed=False)
    passed = {"at least": low >= limit, "above": low > limit, "at most": high <= limit, "below": high < limit}
    return Bar(condition, name, _told(bounds), f"{wanted} {limit:g}", passed[wanted])


def _told(bounds: Figures) -> str:
    value, low, high = ("unknown" if (one := bounds[of]) is None else f"{one:.4g}" for of in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(bars: Sequence[Bar]) -> str:
    """The bars in Markdown."""
    lines = ["| condition | measured | figure | bar | |", "|---|---|---|---|---|"]
    for bar in bars:
        told = "passed" if bar.passed else "**missed**"
        lines.append(f"| {bar.condition} | {bar.name} | {bar.figure} | {bar.wanted} | {told} |")
    return "\n".join(lines)


def main(evaluations: Annotated[list[Path], typer.Argument(help="What orchestra eval --json printed.")]) -> None:
    """Tell which bars are passed; exit code 1 where one is missed."""
    conditions = [json.loads(path.read_text(encoding="utf-8"))["conditions"] for path in evaluations]
    bars = [bar for each in conditions for name, figures in each.items() for bar in bars_of(name, figures)]
    print(table(bars))
    print(f"\n{sum(bar.passed for bar in bars)} of {len(bars)} passed")
    raise typer.Exit(int(not all(bar.passed for bar in bars)))


if __name__ == "__main__":
    typer.run(main)
