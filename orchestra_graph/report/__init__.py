"""Figures over many runs."""

from orchestra_graph.report.summary import RunFigures, Summary, summarise

__all__ = ["RunFigures", "Summary", "summarise"]
