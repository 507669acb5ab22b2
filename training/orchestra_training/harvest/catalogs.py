"""Catalogs by their hashes: a trace and a checkpoint state only the hash of what the router chose from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestra_graph.catalog import Catalog
from orchestra_graph.runlog.read import read_runs


def catalogs_of(logs: Iterable[Path]) -> dict[str, Catalog]:
    """Every catalog that a run of these logs chose from.

    Args:
        logs: Run logs, or files that a harvest wrote.

    Raises:
        RunLogError: One cannot be opened.
    """
    runs = (run for log in logs for run in read_runs(log))
    return {run.catalog_hash or run.catalog.hash: run.catalog for run in runs if run.catalog is not None}
