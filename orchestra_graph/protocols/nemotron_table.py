"""The table in which the released checkpoint reads what an expert costs and how long it takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.protocols.table import UNKNOWN

TABLE_HEADER: Final = "Model | price per million input tokens | price per million output tokens | average latency"
"""Literal: the checkpoint was trained with it."""


def price_table(specs: Iterable[ToolSpec]) -> str:
    """The table of these experts, one row each, in their order."""
    return "\n".join([TABLE_HEADER, *map(price_row, specs)])


def price_row(spec: ToolSpec) -> str:
    """One row, for example `reasoner-1 | $1.25 | $10 | 31s`."""
    sent, written, waited = numbers(spec)
    return f"{spec.name} | ${sent} | ${written} | {waited}s"


def numbers(spec: ToolSpec) -> tuple[str, str, str]:
    """Dollars per million input and output tokens, and typical seconds to a hundredth, as the table shows them."""
    price, seconds = spec.price, round(spec.latency.p50, 2)
    known = price.source != "unknown"
    return (
        _number(price.input) if known else UNKNOWN,
        _number(price.output) if known else UNKNOWN,
        _number(seconds) if seconds else UNKNOWN,
    )


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
