"""Orchestrators inside orchestrators: how deep they may go, and where a nested run leaves its turns.

The state of the run around a nested one holds its answer only: state is written again at every step. Its turns go to
the logs of the runs around it, into the same line: as a trajectory of its own in `runs`, which names by `parent` the
call that it ran in. Charges need no such way: the meter hands them up as they arise.

Left out: turns of a nested run that never ends. What it has paid is known all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langgraph.pregel import Pregel

from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.execution import CallNode
from orchestra_graph.journal import Journal
from orchestra_graph.meter import Meter, current_meter
from orchestra_graph.node import Node
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.subgraph import Subgraph


def refuse_too_deep(tools: Mapping[str, Tool], most: int) -> None:
    """Refuse to build an orchestrator whose tools are nested too deeply, or without end.

    Args:
        tools: Its tools.
        most: Orchestrators that may be inside each other, this one among them.

    Raises:
        ConfigError: There are more, or a graph contains itself.
    """
    depth, path = max((_deepest(tool, ()) for tool in tools.values()), default=(0, ()))
    if depth + 1 > most:
        inside = " > ".join(path)
        raise ConfigError(
            f"{depth + 1} orchestrators inside each other (this one > {inside}); expected at most {most}; "
            "fix: take a level out, or raise max_depth"
        )


def _deepest(tool: Tool, around: tuple[tuple[str, object], ...]) -> tuple[int, tuple[str, ...]]:
    """How many orchestrators are inside each other in a tool, and the names on the way down."""
    if not isinstance(tool, Subgraph) or not isinstance(tool.graph, Pregel):
        return 0, ()
    around = (*around, (tool.spec.name, tool.graph))
    if any(graph is tool.graph for _, graph in around[:-1]):
        cycle = " > ".join(name for name, _ in around)
        raise ConfigError(f"the graph of {tool.spec.name!r} contains itself: {cycle}; fix: take one of these tools out")
    return _in_graph(tool.graph, around)


def _in_graph(graph: Pregel[Any, Any, Any, Any], around: tuple[tuple[str, object], ...]) -> tuple[int, tuple[str, ...]]:
    nodes = [node.bound for node in graph.nodes.values()]
    inner = [_deepest(node.tool, around) for node in nodes if isinstance(node, CallNode)]
    inner += [_in_graph(below, around) for _, below in graph.get_subgraphs() if isinstance(below, Pregel)]
    depth, path = max(inner, default=(0, ()))
    if any(isinstance(node, Node) for node in nodes):
        return depth + 1, (around[-1][0], *path)
    return depth, path


def refuse_to_go_deeper(most: int) -> None:
    """Refuse to start a run inside too many others: what a graph that calls itself through a function comes to.

    Raises:
        ToolError: The router of the run around reads it.
    """
    depth = 1 + sum(1 for _ in _around())
    if depth > most:
        raise ToolError(
            f"not started: this would be orchestrator number {depth} inside each other; expected at most {most}; "
            "fix: answer without it, or raise max_depth"
        )


def hand_up(trajectory: Mapping[str, Any]) -> None:
    """Leave a nested run that has ended with the logs of the runs around it."""
    for meter in _around():
        if meter.journal is not None:
            meter.journal.ended(trajectory)


def keepers(own: Journal | None) -> list[Journal]:
    """What keeps the captures of a run: its own journal, else those of the runs around it, where its turns will go."""
    if own is not None:
        return [own]
    return [meter.journal for meter in _around() if meter.journal is not None]


def _around() -> Iterator[Meter]:
    """The meters of the calls around, the innermost first."""
    meter = current_meter()
    while meter is not None:
        yield meter
        meter = meter.outer
