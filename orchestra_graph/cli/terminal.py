"""What the commands write with: consoles, texts that are safe to print, JSON for scripts.

Output that is piped is neither cut nor wrapped to a width; what comes from tools and files can neither style the
terminal nor steer it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import TextIOWrapper
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.status import Status
from rich.text import Text

from orchestra_graph.runlog.encoding import dump

WIDE: Final = 10_000
"""Columns of an output that is no terminal: wide enough that nothing is cut."""
_WIDEST_RULE: Final = 100
_GAP: Final = 2
"""Between the columns of a table."""

_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of text
    "\ud800-\udfff]"  # lone surrogates, which no encoding holds
)


def accept_any_text() -> None:
    """Let stdout and stderr print what their encoding lacks as `?`, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr; colours and width follow the terminal, `NO_COLOR` and `FORCE_COLOR`."""
    # Without markup: tasks, names and paths hold square brackets, which would vanish or be read as a broken style.
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if made.is_terminal:
        return made
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=WIDE)


def progress_console(output: Console) -> Console:
    """Where progress is shown: on the output itself, or on stderr where the output is piped."""
    return output if output.is_terminal and not output.stderr else console(stderr=True)


def working(output: Console, text: str) -> AbstractContextManager[Status]:
    """A spinner while something takes its time; nothing where no terminal is there."""
    return progress_console(output).status(text)


def heading(output: Console, text: str) -> None:
    """A line with a title in it."""
    rule = Rule(Text(plain(text), style="bold"), align="left", style="dim")
    output.print(rule, width=min(output.width, _WIDEST_RULE))


def fitting(width: int, rows: Sequence[Mapping[str, str]], order: Sequence[str], *, most: int = WIDE) -> list[str]:
    """The columns of a table that fit into a terminal side by side, left to right.

    Args:
        width: Of the terminal.
        rows: Cells by the head of their column, at least one row.
        order: Heads, the most important one first: it is always there, any other one where there is room for it.
        most: What a column is counted at where its cells are wider: the table shortens them.
    """
    kept: list[str] = []
    for head in order:
        cells = max(cell_len(row[head]) for row in rows)
        needed = max(cell_len(head), min(most, cells)) + (_GAP if kept else 0)
        if needed <= width or not kept:
            kept.append(head)
            width -= needed
    return [head for head in rows[0] if head in kept]


def plain(text: str) -> str:
    """A text with each character that could steer a terminal replaced by U+FFFD."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str, length: int = 160) -> str:
    """A text in one line, safe to print, its end cut where it is longer than `length` characters."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= length else f"{line[: length - 1]}…"


def print_json(value: Mapping[str, Any]) -> None:
    """Write a value as one line of JSON on stdout, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(dump(value))
    sys.stdout.buffer.flush()


def print_error(text: str) -> None:
    """Write what went wrong, and the fix, on stderr."""
    console(stderr=True).print(Text.assemble(("error: ", "bold red"), plain(text)), soft_wrap=True)


def money(dollars: float) -> str:
    """Dollars with as many digits as a small sum needs."""
    if dollars >= 1:
        return f"${dollars:,.2f}"
    if 0 < dollars < 5e-7:
        return "<$0.000001"
    return f"${dollars:.6f}" if dollars else "$0"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 call`, `2 calls`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
