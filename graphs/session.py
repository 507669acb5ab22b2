"""Drives the service graph where somebody else carries out its tools: a simulation, an environment with its own books.

A call interrupts the graph; the calls of one reply are handed out together, and their results resume it. The graph's
ledger, budget and turns know no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from orchestra_graph import ConfigError, Request, Result, Tool, ToolError, ToolSpec
from orchestra_graph.ledger import Spent


class EnvironmentTool(Tool):
    """A tool of the environment: it says what it is called with and waits for what the environment answers.

    Args:
        function: The tool as a function in OpenAI's format.
    """

    def __init__(self, function: Mapping[str, Any]) -> None:
        parameters = {"type": "object", "properties": {}, **function.get("parameters", {})}
        self.spec = ToolSpec(name=function["name"], description=function.get("description", ""), parameters=parameters)

    async def run(self, request: Request) -> Result:
        """Interrupt the graph; resumed with the result, return it."""
        result = interrupt({"id": request.call_id, "name": self.spec.name, "arguments": request.args})
        if result["error"]:
            raise ToolError(result["content"])
        return Result(result["content"])


@dataclass
class SessionState:
    """Where one conversation stands."""

    history: list[BaseMessage]
    """What was said before the graph has seen anything."""
    thread: str = field(default_factory=lambda: uuid4().hex)
    waiting: dict[str, str] = field(default_factory=dict)
    """Interrupts that wait for a result, by call id."""
    dollars: float = 0.0
    """Spent in the run under way, as far as it was told."""


@dataclass(frozen=True)
class Step:
    """What the agent does next: calls, or a text to the user."""

    calls: list[dict[str, Any]]
    """`id`, `name` and `arguments` of each."""
    text: str | None
    dollars: float


class Session:
    """One or more conversations with a graph, a message at a time.

    Args:
        graph: The graph, not compiled.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph.compile(checkpointer=InMemorySaver())

    def say(self, text: str, state: SessionState) -> Step:
        """The user says something."""
        messages, state.history, state.dollars = [*state.history, HumanMessage(text)], [], 0.0
        return self._go({"messages": messages}, state)

    def results(self, results: Iterable[tuple[str, str, bool]], state: SessionState) -> Step:
        """The environment has carried out the calls.

        Args:
            results: Call id, content and whether it is an error, of every call that waits.
            state: The conversation's.

        Raises:
            ConfigError: No such call waits.
        """
        found = {call_id: {"content": content, "error": error} for call_id, content, error in results}
        if found.keys() != state.waiting.keys():
            raise ConfigError(f"results of {sorted(found)}; expected those of the calls {sorted(state.waiting)}")
        return self._go(Command(resume={state.waiting[call_id]: found[call_id] for call_id in found}), state)

    def _go(self, given: Any, state: SessionState) -> Step:
        result = self._graph.invoke(given, {"configurable": {"thread_id": state.thread}})
        spent = Spent.of(result["turns"].values()).dollars
        dollars, state.dollars = max(0.0, spent - state.dollars), spent
        asked = {stop.value["id"]: stop for stop in result.get("__interrupt__", ())}
        state.waiting = {call_id: stop.id for call_id, stop in asked.items()}
        if not asked:
            return Step([], result["answer"], dollars)
        order = [call["id"] for turn in result["turns"].values() for call in turn["decision"]["calls"]]
        return Step([asked[call_id].value for call_id in order if call_id in asked], None, dollars)
