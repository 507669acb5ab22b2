"""A compiled graph as a tool; one that is itself an orchestrator joins the ledger and the budget of the run around it.

Not here yet: nesting limits, a stated share of the budget, turns nested in the trajectory.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from orchestra_graph.catalog import NO_PARAMETERS, ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.tools.base import Request, Result, Tool

REQUEST_PARAMETERS = {
    "type": "object",
    "properties": {"request": {"type": "string", "description": "The task, complete in itself."}},
    "required": ["request"],
    "additionalProperties": False,
}


class Subgraph(Tool):
    """Runs a graph whose state has `messages` on a request of its own.

    Args:
        graph: A compiled graph, or any runnable from `{"messages": [...]}` to a state with `messages` or `answer`.
        name: Name of the tool; the graph's own by default.
        description: What it is good at.
        takes_request: Whether the router words the request; otherwise the graph gets the user's question.
        spec: Further fields of the catalog's line, for example `terminal=True`.
    """

    def __init__(
        self,
        graph: Runnable[Any, Any],
        *,
        name: str | None = None,
        description: str = "",
        takes_request: bool = True,
        **spec: Any,
    ) -> None:
        self._graph = graph
        self.spec = ToolSpec(
            name=name or graph.get_name(),
            kind="graph",
            description=description or f"Runs the graph {name or graph.get_name()}.",
            parameters=dict(REQUEST_PARAMETERS if takes_request else NO_PARAMETERS),
            **spec,
        )

    async def run(self, request: Request) -> Result:
        """Run the graph; its `answer`, or else its last message, is the result."""
        question = request.args.get("request", request.question)
        state = await self._graph.ainvoke({"messages": [("user", question)]}, request.config)
        if not isinstance(state, dict):
            raise ToolError(f"the graph returned {type(state).__name__}; expected a state with messages or answer")
        answer = state.get("answer")
        messages = state.get("messages")
        if answer is None and messages:
            last = messages[-1]
            answer = last.text if isinstance(last, BaseMessage) else str(last)
        if answer is None:
            raise ToolError(f"the graph's state has {', '.join(state)}; expected messages or answer")
        return Result(str(answer), answer=str(answer))
