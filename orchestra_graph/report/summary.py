"""What a router achieved over many runs: success, dollars, seconds, and how its calls are spread over the tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from orchestra_graph.catalog import Catalog
from orchestra_graph.ledger import FALLBACK, ROUTER, LedgerTotals
from orchestra_graph.protocols.reply import FINAL_ANSWER


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What one run comes to."""

    solved: bool
    ledger: LedgerTotals
    turns: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over the runs of one router."""

    router: str
    runs: int
    success: float
    """Share of the runs that solved their task."""
    dollars: float
    """Mean dollars a run, the router's own among them."""
    seconds: float
    """Mean seconds a run: decisions, and each turn's slowest call."""
    turns: float
    priciest: str
    """Name of the tool with the dearest call."""
    priciest_share: float
    """Share of all calls that went to it; near 1 the router has collapsed onto it."""
    shares: dict[str, float]
    """Share of the calls by tool."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def summarise(router: str, runs: Sequence[RunFigures], catalog: Catalog) -> Summary:
    """Average runs.

    Args:
        router: Name for the table.
        runs: At least one.
        catalog: Says which tool is the priciest: the one whose call costs most at 1,000 tokens in and 300 out.
    """
    calls: Counter[str] = Counter()
    for run in runs:
        for name, totals in run.ledger["tools"].items():
            if name not in (ROUTER, FALLBACK, FINAL_ANSWER):
                calls[name] += totals["calls"]
    count, whole = len(runs), calls.total() or 1
    priciest = priciest_tool(catalog)
    return Summary(
        router=router,
        runs=count,
        success=sum(run.solved for run in runs) / count,
        dollars=fsum(run.ledger["dollars"] for run in runs) / count,
        seconds=fsum(run.ledger["wall_seconds"] for run in runs) / count,
        turns=sum(run.turns for run in runs) / count,
        priciest=priciest,
        priciest_share=calls[priciest] / whole,
        shares={name: n / whole for name, n in calls.most_common()},
    )


def priciest_tool(catalog: Catalog) -> str:
    """Name of the tool whose typical call costs most."""

    def typical(name: str) -> float:
        price, seconds = catalog.tools[name].price, catalog.tools[name].latency.p50
        return price.dollars(input_tokens=1000, output_tokens=300, calls=1, seconds=seconds)

    return max(catalog.tools, key=typical)
