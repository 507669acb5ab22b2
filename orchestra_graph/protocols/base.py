"""What a protocol is: it says what the router reads, and reads what the router replies.

A protocol is a generator that yields views and is sent replies, and returns the decision. Most need one view a
decision; one that asks about the tools line by line yields several. It does no input or output: the router node
sends the views.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final

from langchain_core.messages import AIMessage, BaseMessage

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.turns import Decision, Turn

AGENT_STEP: Final = "step"
"""Name of the protocol by which a router decides a step of a `create_agent` agent, around its own."""


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

    @property
    def left(self) -> Spent:
        """What is left of each element of the budget, 0 where one is used up."""
        spent = Spent.of(self.turns.values())
        return Spent(
            max(0.0, self.budget.dollars - spent.dollars),
            max(0.0, self.budget.seconds - spent.seconds),
            max(0, self.budget.turns - spent.turns),
        )


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
    sampling: Mapping[str, Any] = MappingProxyType({})
    """Request parameters that the protocol fixes, by OpenAI's names: `temperature`, `max_tokens`, ..."""
    constrains: bool = False
    """Whether a server that can should be made to reply with a valid call (`tool_choice="required"`)."""
    answers: bool = False
    """Whether the router may answer by itself even where tools of the catalog end runs."""
    blocks: bool = False
    """Whether writing a view may wait for a disk or a server; it is then done in a thread."""

    @abstractmethod
    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        """Yield what the router reads, receive its reply, return the decision. Never raises on a reply.

        A reply comes as the chat model gave it, with its capture where there is one (`orchestra_graph.captures`); what
        a decision keeps of it is plain JSON.

        A protocol that knows the decision already returns it without a view: no model is asked then, and the
        decision's `by` stands.
        """

    def replies(self, situation: Situation, decision: Decision) -> Iterator[tuple[View, AIMessage]]:
        """What `decide` yields, each view with the reply to it, where it comes to this decision's calls.

        So a decision of any router can be shown to one that speaks this protocol, as an example to learn from.

        Args:
            situation: In which it was decided.
            decision: With the calls to come to. Nothing is yielded where no reply leads to them.

        Raises:
            ConfigError: The protocol does not say.
        """
        raise ConfigError(
            f"protocol = {self.name!r}: expected one that says which replies lead to a decision; "
            "fix: name another protocol, for example conversation"
        )

    def check(self, catalog: Catalog) -> None:  # noqa: B027  (most protocols can speak of any catalog)
        """Check that the protocol can speak of a catalog: when the graph is built, and of what `never` leaves of it.

        Raises:
            ConfigError: Names the line that does not fit.
        """

    def brief(self, situation: Situation, spec: ToolSpec) -> list[dict[str, Any]] | None:
        """What a tool that reads evidence is shown, as messages in OpenAI's format; None for the graph's own findings.

        Args:
            situation: As the decision saw it that calls the tool.
            spec: The tool's line of the catalog.
        """
        return None

    def transcript(self, situation: Situation, answer: str) -> list[BaseMessage]:
        """What a run leaves in the conversation when it ends: its answer, unless the protocol needs more of it later.

        Args:
            situation: After the last turn.
            answer: The run's answer.
        """
        return [AIMessage(answer)]
