"""How runs look in a terminal: one block a turn from the stream's events, and tables of totals.

A block holds the decision, its reason, what came back, and what it cost in dollars and seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.terminal import counted, money, one_line, plain
from orchestra_graph.events import AnswerEvent, DecisionEvent, Event, OutcomeEvent
from orchestra_graph.ledger import LedgerTotals, Totals
from orchestra_graph.report.summary import Summary
from orchestra_graph.turns import Call, Charge

STOPPED: Final = {
    "dollars": "its dollars were used up",
    "seconds": "its time was used up",
    "turns": "its turns were used up",
    "router": "the router gave up",
}
"""Why a run ended without an answer of its own, by `stopped_by`."""

_ARGUMENT: Final = 60
_INDENT: Final = 8
_LABEL: Final = 10
_NARROWEST: Final = 20
"""Columns that a text gets at least."""
_SHOWN_SECONDS: Final = 0.05
"""A decision that took less and cost nothing is not worth a line."""


def show_event(console: Console, event: Event) -> None:
    """Print one custom event of a run; charges are told with decisions and outcomes."""
    if event["type"] == "decision":
        _show_decision(console, event)
    elif event["type"] == "outcome":
        _show_outcome(console, event)
    elif event["type"] == "answer":
        _show_answer(console, event)


def _show_decision(console: Console, event: DecisionEvent) -> None:
    decision = event["decision"]
    title = Text.assemble((f"turn {event['index'] + 1}", "bold"), "  ")
    if decision["by"] != "router":
        title.append(f"({decision['by']}) ", "yellow")
    title.append(", ".join(map(_call, decision["calls"])) or "no call", "bold cyan")
    rows: list[tuple[str, Text]] = []
    if decision["reason"]:
        rows.append(("because", Text(one_line(decision["reason"]))))
    rows += [("mended", Text(one_line(note), "yellow")) for note in decision.get("repaired", ())]
    if "problem" in decision:
        rows.append(("refused", Text(one_line(decision["problem"]["detail"]), "yellow")))
    unsent = [outcome["content"] for outcome in event["outcomes"].values() if outcome.get("unsent")]
    rows += [("unsent", Text(one_line(content), "yellow")) for content in unsent]
    paid = any(charge["dollars"] for charge in event["charges"].values())
    # A log counts the work around a closing tool's call as its turn's; nobody decided for that long.
    if paid or (event["seconds"] >= _SHOWN_SECONDS and decision["by"] != "closing"):
        rows.append(("decided", Text(_bill(event["charges"], event["seconds"]), "dim")))
    console.print(title)
    for label, text in rows:
        _print_row(console, Text(label, "dim"), text)


def _show_outcome(console: Console, event: OutcomeEvent) -> None:
    outcome = event["outcome"]
    mark, style = ("✗", "red") if outcome["error"] else ("→", "green")
    name = Text(f"{mark} {outcome.get('by', event['call']['tool'])}", style)
    cached = ", from the cache" if outcome.get("cached") else ""
    bill = f"{_bill(event['charges'], outcome.get('seconds', 0.0))}{cached}"
    _print_row(console, name, Text(one_line(outcome["content"])))
    _print_row(console, Text(), Text(bill, "dim"))


def _show_answer(console: Console, event: AnswerEvent) -> None:
    label = Text("answer", "bold green")
    if event["stopped_by"] != "answer":
        label.append(f" ({STOPPED[event['stopped_by']]})", "yellow")
    answer = plain(event["answer"]).strip("\n")
    if "\n" in answer:
        console.print(label)
        # Not through the renderer: it would wrap long lines and turn tabs into spaces, and an answer may be code.
        print(answer, file=console.file)
    else:
        console.print(Text.assemble(label, "  ", answer), soft_wrap=True)
    ledger = event["ledger"]
    calls = sum(totals["calls"] for totals in _tools(ledger))
    console.print(
        f"{'':{_INDENT}}{counted(calls, 'call')}, {money(ledger['dollars'])}, {ledger['wall_seconds']:.1f} s",
        style="dim",
    )


def _print_row(console: Console, label: Text, text: Text) -> None:
    """A label and a text in two columns, under the turn's title; where the text wraps it stays in its column."""
    start = Text.assemble(" " * _INDENT, label)
    start.pad_right(max(0, _LABEL - len(label)) + 2)
    blank = Text(" " * len(start))
    for line in text.wrap(console, max(_NARROWEST, console.width - len(start))):
        console.print(Text.assemble(start, line), soft_wrap=True)
        start = blank


def ledger_table(ledger: LedgerTotals) -> Table:
    """Totals of a run by tool."""
    uncertain = bool(ledger["uncertain_dollars"])
    names = ["", "calls", "attempts", "tokens in", "cached", "out", "dollars", "seconds"]
    table = _table(*names, *(["perhaps more"] if uncertain else []))
    rows: list[tuple[str, Totals]] = [*ledger["tools"].items(), ("total", ledger)]
    for name, row in rows:
        counts = (row["calls"], row["attempts"], row["input_tokens"], row["cached_tokens"], row["output_tokens"])
        cells = [*(f"{count:,}" for count in counts), money(row["dollars"]), f"{row['seconds']:.2f}"]
        if uncertain:
            cells.append(money(row["uncertain_dollars"]))
        table.add_row(Text(plain(name)), *cells, style="bold" if row is ledger else "")
    return table


def summary_table(summaries: Sequence[Summary]) -> Table:
    """Routers side by side, the most successful first."""
    table = _table("router", "solved", "dollars/task", "seconds/task", f"calls to {summaries[0].priciest} (priciest)")
    for row in sorted(summaries, key=lambda summary: (-summary.success, summary.dollars)):
        figures = (f"{row.success:.0%}", f"${row.dollars:.5f}", f"{row.seconds:.1f}", f"{row.priciest_share:.0%}")
        table.add_row(Text(row.router), *figures)
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _tools(ledger: LedgerTotals) -> Iterable[Totals]:
    return (totals for name, totals in ledger["tools"].items() if name not in ("router", "fallback"))


def _call(call: Call) -> str:
    arguments = ", ".join(f"{key}={one_line(_value(value), _ARGUMENT)}" for key, value in call["args"].items())
    return f"{call['tool']}({arguments})" if arguments else call["tool"]


def _value(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _bill(charges: Mapping[str, Charge], seconds: float) -> str:
    paid = sum(charge["dollars"] for charge in charges.values())
    upper = sum(charge.get("upper", charge["dollars"]) for charge in charges.values()) - paid
    # A try's model requests carry its key and a number of their own.
    failed = {key.partition(".")[0] for key, charge in charges.items() if charge["status"] in ("failed", "uncertain")}
    parts = [money(paid), f"{seconds:.1f} s"]
    if failed:
        parts.append(counted(len(failed), "failed attempt"))
    if upper:
        parts.append(f"at most {money(upper)} more: an attempt never came back")
    return ", ".join(parts)
