"""How runs look in a terminal: one block a turn from the stream's events, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestra_graph.events import AnswerEvent, DecisionEvent, OutcomeEvent
from orchestra_graph.ledger import ROUTER, LedgerTotals
from orchestra_graph.report.summary import Summary
from orchestra_graph.turns import Call, Charge

_SHOWN = 160


def show_event(console: Console, event: dict[str, Any]) -> None:
    """Print one custom event of a run."""
    match event["type"]:
        case "decision":
            _show_decision(console, event)  # type: ignore[arg-type]
        case "outcome":
            _show_outcome(console, event)  # type: ignore[arg-type]
        case "answer":
            _show_answer(console, event)  # type: ignore[arg-type]


def _show_decision(console: Console, event: DecisionEvent) -> None:
    decision = event["decision"]
    who = "" if decision["by"] == "router" else f" [yellow]({decision['by']} decides)[/]"
    names = ", ".join(_call(call) for call in decision["calls"]) or "no call"
    paid = sum(charge["dollars"] for charge in event["charges"].values())
    price = f"  [dim]{money(paid)} {event['seconds']:.1f} s[/]" if paid else ""
    console.print(f"[bold]turn {event['index'] + 1}[/]{who}  [cyan]{escape(names)}[/]{price}")
    if decision["reason"]:
        console.print(f"  [dim]because[/] {escape(one_line(decision['reason']))}", highlight=False)
    for note in decision.get("repaired", ()):
        console.print(f"  [yellow]mended:[/] {escape(one_line(note))}", highlight=False)
    if "problem" in decision:
        console.print(f"  [yellow]not executed:[/] {escape(one_line(decision['problem']['detail']))}", highlight=False)
    for outcome in event["outcomes"].values():
        if outcome.get("unsent"):
            console.print(f"  [yellow]{escape(outcome['content'])}[/]", highlight=False)


def _show_outcome(console: Console, event: OutcomeEvent) -> None:
    outcome, charges = event["outcome"], event["charges"].values()
    mark = "[red]✗[/]" if outcome["error"] else "[green]→[/]"
    name = outcome.get("by", event["call"]["tool"])
    console.print(f"  {mark} {name}: {escape(one_line(outcome['content']))}", highlight=False)
    console.print(f"    [dim]{_bill(list(charges))} {outcome.get('seconds', 0.0):.1f} s[/]", highlight=False)


def _show_answer(console: Console, event: AnswerEvent) -> None:
    ledger = event["ledger"]
    stop = "" if event["stopped_by"] == "answer" else f" [yellow](stopped by: {event['stopped_by']})[/]"
    console.print(f"[bold green]answer[/]{stop}  {escape(event['answer'])}", highlight=False)
    calls = sum(totals["calls"] for name, totals in ledger["tools"].items() if name != ROUTER)
    console.print(
        f"  [dim]{calls} calls, {money(ledger['dollars'])}, {ledger['wall_seconds']:.1f} s[/]", highlight=False
    )


def ledger_table(ledger: LedgerTotals) -> Table:
    """Totals of a run by tool."""
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in ("who", "calls", "attempts", "tokens in", "cached", "out", "dollars", "seconds"):
        table.add_column(name, justify="left" if name == "who" else "right")
    rows = [*ledger["tools"].items(), ("total", ledger)]
    for name, row in rows:
        uncertain = f" (+{money(row['uncertain_dollars'])}?)" if row["uncertain_dollars"] else ""
        cells = [str(row[key]) for key in ("calls", "attempts", "input_tokens", "cached_tokens", "output_tokens")]  # type: ignore[literal-required]
        table.add_row(name, *cells, f"{money(row['dollars'])}{uncertain}", f"{row['seconds']:.2f}")
    return table


def summary_table(summaries: Sequence[Summary]) -> Table:
    """Routers side by side, the most successful first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("router", "solved", "dollars/task", "seconds/task", "calls to the priciest tool"):
        table.add_column(name, justify="left" if name == "router" else "right")
    for row in sorted(summaries, key=lambda summary: -summary.success):
        share = f"{row.priciest_share:.0%} ({row.priciest})"
        table.add_row(row.router, f"{row.success:.0%}", f"{row.dollars:.5f}", f"{row.seconds:.1f}", share)
    return table


def money(dollars: float) -> str:
    """Dollars with as many digits as a small sum needs."""
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.6f}".rstrip("0").rstrip(".") if dollars else "$0"


def one_line(text: str) -> str:
    """A text in one line, its end cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _call(call: Call) -> str:
    arguments = ", ".join(f"{key}={one_line(str(value))!r}" for key, value in call["args"].items())
    return f"{call['tool']}({arguments})"


def _bill(charges: list[Charge]) -> str:
    paid = sum(charge["dollars"] for charge in charges)
    failed = sum(charge["status"] in ("failed", "uncertain") for charge in charges)
    upper = sum(charge.get("upper", charge["dollars"]) for charge in charges) - paid
    parts = [money(paid)]
    if failed:
        parts.append(f"({failed} failed)")
    if upper:
        parts.append(f"(at most {money(upper)} more: an attempt never came back)")
    return " ".join(parts)
