"""The tables of `orchestra eval` in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.terminal import counted, heading, plain

UNKNOWN: Final = "-"
_COLUMNS: Final[Mapping[str, str]] = {
    "success": "solved",
    "utility": "utility",
    "score": "score",
    "dollars": "$/task",
    "seconds": "s/task",
    "turns": "turns",
    "priciest_share": "to priciest",
    "malformed_share": "malformed",
}
_PERCENT: Final = ("success", "priciest_share", "malformed_share")
_BOUNDED: Final = ("success", "utility")


def print_condition(output: Console, name: str, figures: Mapping[str, Any]) -> None:
    """Routers side by side on one set, and kind by kind.

    Args:
        output: Where to.
        name: Of the set.
        figures: As `orchestra_training.evaluate.tables.condition` makes them.
    """
    routers = figures["routers"]
    heading(output, f"{name}: {counted(figures['units'], 'task')}")
    known = [column for column in _COLUMNS if all(column in row for row in routers.values())]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("router", no_wrap=True)
    against = figures.get("against")
    gain = "utility" if "utility" in known else "success"
    for column in [*(_COLUMNS[c] for c in known), *([f"{gain} over {plain(against)}"] if against else [])]:
        table.add_column(column, justify="right", no_wrap=True)
    by_gain = sorted(routers, key=lambda router: -(routers[router][gain]["value"] or 0))
    for router in by_gain:
        cells = [_cell(column, routers[router][column]) for column in known]
        if against:
            found = figures["differences"].get(router)
            cells.append("" if found is None else _signed(found[gain]["difference"]))
        table.add_row(Text(plain(router)), *cells)
    output.print(table)
    _print_kinds(output, figures, by_gain, gain)
    output.print()


def _print_kinds(output: Console, figures: Mapping[str, Any], routers: Sequence[str], metric: str) -> None:
    """The same figure, kind by kind."""
    kinds = [kind for kind in figures["routers"][routers[0]]["kinds"] if " instead of " not in kind]
    if len(kinds) < 2:
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column(f"{_COLUMNS[metric]} by kind", no_wrap=True, style="dim")
    for kind in kinds:
        table.add_column(plain(kind), justify="right", no_wrap=True)
    for router in routers:
        found = figures["routers"][router]["kinds"]
        table.add_row(
            Text(plain(router)), *(_value(metric, found[kind].get(metric, {}).get("value")) for kind in kinds)
        )
    output.print()
    output.print(table)


def _cell(column: str, found: Mapping[str, float | None]) -> str:
    value = _value(column, found["value"])
    if column not in _BOUNDED or found["low"] is None:
        return value
    return f"{value} [{_value(column, found['low'])}, {_value(column, found['high'])}]"


def _value(column: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if column in _PERCENT:
        return f"{value:.1%}"
    if column == "dollars":
        return f"${value:.5f}"
    return f"{value:.3f}" if column in ("utility", "score") else f"{value:.1f}"


def _signed(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return UNKNOWN
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
