"""A compiled graph as a tool; one that is itself an orchestrator joins the ledger and the budget of the run around it.

Its run gets a budget of its own: what the call may spend, all that is left or `share` of it, and no more than its own.
Its turns are in the trajectory of the run around it, under `runs`. How deep orchestrators may be nested is said by
`max_depth` of `create_orchestrator`.
"""

from __future__ import annotations

import time
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from orchestra_graph.catalog import NO_PARAMETERS, Limits, ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.meter import current_meter
from orchestra_graph.tools.base import Request, Result, Tool

REQUEST_PARAMETERS = {
    "type": "object",
    "properties": {"request": {"type": "string", "description": "The task, complete in itself."}},
    "required": ["request"],
    "additionalProperties": False,
}


LIMITS: Final = Limits(timeout=600.0, retries=0)
"""A graph makes many calls, each with limits of its own; to begin anew would pay for all of them again."""


class Subgraph(Tool):
    """Runs a graph whose state has `messages` on a request of its own.

    Args:
        graph: A compiled graph, or any runnable from `{"messages": [...]}` to a state with `messages` or `answer`.
        name: Name of the tool; the graph's own by default.
        description: What it is good at.
        takes_request: Whether the router words the request; otherwise the graph gets the user's question.
        spec: Further fields of the catalog's line, for example `terminal=True`; with `share=0.5` a call may spend half
            of what is left; without `limits` it has those of `LIMITS`.

    Attributes:
        graph: What it runs.
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
        self.graph = graph
        self.spec = ToolSpec(
            name=name or graph.get_name(),
            kind="graph",
            description=description or f"Runs the graph {name or graph.get_name()}.",
            parameters=dict(REQUEST_PARAMETERS if takes_request else NO_PARAMETERS),
            **{"limits": LIMITS, **spec},
        )

    async def run(self, request: Request) -> Result:
        """Run the graph; its `answer`, or else its last message, is the result."""
        question = request.args.get("request", request.question)
        started = time.perf_counter()
        state = await self.graph.ainvoke({"messages": [("user", question)]})
        if not isinstance(state, dict):
            raise ToolError(f"the graph returned {type(state).__name__}; expected a state with messages or answer")
        if _is_orchestrator(state):
            _join(state, time.perf_counter() - started)
        answer = _answer(state)
        return Result(answer, answer=answer)


def _is_orchestrator(state: dict[str, Any]) -> bool:
    """Whether a state is that of a run of ours; other graphs have ledgers too."""
    ledger = state.get("ledger")
    return isinstance(ledger, dict) and "wall_seconds" in ledger and {"turns", "stopped_by"} <= state.keys()


def _answer(state: dict[str, Any]) -> str:
    if state.get("answer") is not None:
        return str(state["answer"])
    if not state.get("messages"):
        raise ToolError(f"the graph's state has {', '.join(state) or 'nothing'}; expected messages or answer")
    last = state["messages"][-1]
    return last.text if isinstance(last, BaseMessage) else str(last)


def _join(state: dict[str, Any], clock: float) -> None:
    """Let the run around an orchestrator count its seconds, of which modelled ones do not pass on the clock.

    Raises:
        ToolError: It was stopped before any of its tools brought a result.
    """
    meter = current_meter()
    if meter is not None:
        meter.shift += max(0.0, state["ledger"]["wall_seconds"] - clock)
    outcomes = (outcome for turn in state["turns"].values() for outcome in turn["outcomes"].values())
    if state["stopped_by"] != "answer" and all(outcome["error"] for outcome in outcomes):
        raise ToolError(_answer(state))
