"""What a protocol is: it says what the router reads, and reads what the router replies.

A protocol is a generator that yields views and is sent replies, and returns the decision. Most need one view a
decision; one that asks about the tools line by line yields several. It does no input or output: the router node
sends the views.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from langchain_core.messages import AIMessage, BaseMessage

from orchestra_graph.catalog import Catalog
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.turns import Decision, Turn


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision may rest on."""

    question: str
    catalog: Catalog
    preferences: Preferences
    budget: Budget
    """The whole budget of the run; what is left follows from it and the turns."""
    turns: Mapping[str, Turn] = field(default_factory=dict)
    history: Sequence[BaseMessage] = ()
    """The conversation before the question."""
    turn_id: str = "0-0"
    """Id of the turn that is being decided."""


@dataclass(frozen=True, slots=True)
class View:
    """What the router reads for one reply."""

    messages: list[BaseMessage]
    tools: list[dict[str, Any]]
    """Functions in OpenAI's format; the same list object for the same catalog."""
    tokens: int
    """About how many tokens messages and functions are."""


class Protocol(ABC):
    """How a router is spoken to."""

    name: ClassVar[str]

    @abstractmethod
    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        """Yield what the router reads, receive its reply, return the decision. Never raises on a reply."""
