"""What a tool is to the graph: one async method from a request to a result.

Every tool of the graph, whatever it wraps, is a `Tool`. `orchestra_graph.tools.adapt.as_tool` makes one from a
LangChain tool, a function or a compiled graph; `Expert`, `CodeInterpreter`, `LocalSearch` and `WebSearch` are tools.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestra_graph.catalog import ToolSpec


@dataclass(frozen=True, slots=True)
class Finding:
    """One earlier outcome of the run, as an expert may read it."""

    tool: str
    """Name of the tool that brought it."""
    kind: str
    """Kind of that tool: `expert`, `search`, `code`, ..."""
    args: dict[str, Any]
    """Arguments of the call."""
    content: str
    """What came back."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call, with what a tool may know of the run.

    Callbacks and tracing need not be passed on: LangChain objects called in `Tool.run` find them in the context.
    """

    args: dict[str, Any]
    """Arguments, valid under the tool's schema."""
    question: str
    """The user's question."""
    evidence: Sequence[Finding] = ()
    """What earlier calls of this run brought, oldest first; errors are left out."""
    call_id: str = ""
    """Unique within all runs."""
    conversation: str = ""
    """What people and assistants said before the question, one line a message."""
    brief: Sequence[dict[str, Any]] = ()
    """Messages in OpenAI's format that the router's protocol has for this tool, in place of question and evidence."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a call brought back."""

    content: str
    """Text for the router."""
    answer: str | None = None
    """The final answer, if the tool states one; a terminal tool's answer ends the run."""
    artifacts: list[Any] = field(default_factory=list)
    """JSON-able extras that the router does not read, for example documents with scores."""


class Tool(ABC):
    """A tool of the graph.

    Attributes:
        spec: Name, description, parameters, price and limits. A catalog given to the graph overrides it by name.
        reads_evidence: Whether `Request.evidence`, or `Request.brief`, is filled; it travels with every call, so only
            where it is read.
    """

    spec: ToolSpec
    reads_evidence: bool = False

    @abstractmethod
    async def run(self, request: Request) -> Result:
        """Carry out one call.

        Raises:
            ToolError: The call failed in a way that the router should read.
        """
