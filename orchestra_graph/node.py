"""A node of the graph that works in sync and in async graphs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from orchestra_graph.portal import Portal


class Node(Runnable[Any, Any]):
    """An async step; a sync graph runs it on the portal's loop.

    A plain `Runnable` rather than a function, because LangGraph takes a function as sync or as async and not as both.
    """

    def __init__(self, name: str, portal: Portal) -> None:
        self.name = name
        self._portal = portal

    @abstractmethod
    async def step(self, state: Any, config: RunnableConfig) -> Any:
        """From the node's input to its writes."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the step for a synchronous caller."""
        return self._portal.run(self.step(input, config or {}))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the step."""
        return await self.step(input, config or {})
