"""The tables of `orchestra eval` in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from orchestra_graph.cli.terminal import counted, fitting, heading, plain

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
_BY_IMPORTANCE: Final = ("success", "dollars", "utility")
"""What a narrow terminal shows; then the difference from the router that is compared with, then the others."""
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
    against = figures.get("against")
    gain = "utility" if "utility" in known else "success"
    over = f"{gain} over {plain(against or '')}"
    by_gain = sorted(routers, key=lambda router: -(routers[router][gain]["value"] or 0))
    rows = []
    for router in by_gain:
        cells = {_COLUMNS[column]: _cell(column, routers[router][column]) for column in known}
        if against:
            found = figures["differences"].get(router)
            cells[over] = "" if found is None else _signed(found[gain]["difference"])
        rows.append({"router": plain(router), **cells})
    order = ["router", *(_COLUMNS[column] for column in _BY_IMPORTANCE), over, *_COLUMNS.values()]
    wanted = [head for head in dict.fromkeys(order) if head in rows[0]]
    _print_table(output, rows, fitting(output.width, rows, wanted))
    _print_kinds(output, figures, by_gain, gain)
    output.print()


def _print_table(
    output: Console, rows: Sequence[Mapping[str, str]], heads: Sequence[str], *, quiet: bool = False
) -> None:
    """Some columns of the rows, the first one with the names; where even they have no room, nothing is cut."""
    table = Table(box=None, pad_edge=False, header_style="dim" if quiet else "bold", padding=(0, 1))
    for head in heads:
        width = max(cell_len(text) for text in (head, *(row[head] for row in rows)))
        names = head == heads[0]
        style = "dim" if names and quiet else ""
        table.add_column(head, justify="left" if names else "right", style=style, no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(row[head] for head in heads))
    output.print(table, crop=False)


def _print_kinds(output: Console, figures: Mapping[str, Any], routers: Sequence[str], metric: str) -> None:
    """The same figure, kind by kind."""
    kinds = [kind for kind in figures["routers"][routers[0]]["kinds"] if " instead of " not in kind]
    if len(kinds) < 2:
        return
    name = f"{_COLUMNS[metric]} by kind"
    rows = []
    for router in routers:
        found = figures["routers"][router]["kinds"]
        cells = {plain(kind): _value(metric, found[kind].get(metric, {}).get("value")) for kind in kinds}
        rows.append({name: plain(router), **cells})
    left = list(map(plain, kinds))
    while left:  # kinds that have no room beside the others come below them
        fit = [name, left[0]] if len(heads := fitting(output.width, rows, [name, *left])) == 1 else heads
        output.print()
        _print_table(output, rows, fit, quiet=True)
        left = [kind for kind in left if kind not in fit]


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
