"""A node of the graph that works in sync and in async graphs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from langchain_core.runnables import Runnable, RunnableConfig

from orchestra_graph import spans
from orchestra_graph.portal import Portal


class Node(Runnable[Any, Any]):
    """An async step; a sync graph runs it on the portal's loop.

    A plain `Runnable` rather than a function, because LangGraph takes a function as sync or as async and not as both.
    """

    owns_graph: ClassVar[bool] = False
    """Whether the graph around it holds nothing but the nodes of an orchestrator."""

    def __init__(self, name: str, portal: Portal) -> None:
        self.name = name
        self._portal = portal

    @abstractmethod
    async def step(self, state: Any, config: RunnableConfig) -> Any:
        """From the node's input to its writes."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the step for a synchronous caller."""
        return self._portal.run(self.ainvoke(input, config))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the step."""
        span = spans.enter()
        if span is None:
            return await self.step(input, config or {})
        with span:
            if self.owns_graph:
                span.owns_graph()
            return await self.step(input, config or {})
