"""Service conversations as the released checkpoint saw them: a policy, a domain's tools, experts behind one function.

The router reads the conversation from the user's first message on, append-only. Where it calls an expert, the expert's
reply takes the place of its own: a text goes to the user, calls are the next turn's, which no model decides. Thoughts
and calls of experts leave no trace in what is shown.

What is kept of the release to the byte: the frame of the system text, the order of the tools, the sampling, and the
room of the input. Not kept: results without their call, gaps without a mark, and a crash where an argument is missing.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Generator, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    convert_to_openai_messages,
)

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.kept import oldest
from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.protocols.nemotron_table import price_table
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.protocols.service_messages import Counter, Unit, fit, shown, turn_messages
from orchestra_graph.protocols.service_policy import (
    FORMAT,
    HAND_OVER,
    INSTRUCTIONS,
    NOBODY,
    replace_transfers,
    system_text,
)
from orchestra_graph.protocols.service_reply import CALL_EXPERT, read_expert, read_router
from orchestra_graph.text import clean
from orchestra_graph.tokens import Tokenizer
from orchestra_graph.turns import Decision, Turn

INPUT_TOKENS: Final = 23_000
"""What the router reads at most, tools among it."""

TRANSFER_TOOL: Final = "transfer_to_human_agents"
"""A domain may have it: experts are given it, the router never sees it."""

HAND_OVER_TOOL: Final = "Lets an expert reply in your place where it is likely to serve the user better."
EXPERTS: Final = "Name of the expert, one of {names}. {sentences} What each costs, and how long it takes:\n{table}"

_KEPT_RUNS: Final = 256
"""Runs whose messages are kept for their next turn."""


class NemotronService(Protocol):
    """A customer's conversation under a policy.

    The catalog holds the domain's tools and, as kind `expert`, `ServiceExpert`s. Give `create_orchestrator`
    `fallback=None`: the router of rules knows nothing of customers.

    Args:
        tokenizer: The served model's.
        policy: What the agent may do, usually Markdown.
        instructions: What stands before the policy; tau2's own where that package is measured.
        hand_over: Replaces each clause of the policy about transferring to a human agent; the release's can be given.
        clauses: These clauses as they stand in the policy; found by what they name where None.
    """

    name: ClassVar[str] = "nemotron_service"
    sampling = MappingProxyType({"temperature": 1.0, "max_tokens": 8000})
    answers = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        policy: str,
        *,
        instructions: str = INSTRUCTIONS,
        hand_over: str = HAND_OVER,
        clauses: Sequence[str] | None = None,
    ) -> None:
        self.blocks = tokenizer.blocks
        self._counter = Counter(tokenizer)
        self._system = SystemMessage(
            clean(system_text(replace_transfers(policy, hand_over, clauses), instructions)) + FORMAT
        )
        self._whole_policy = clean(policy)
        self._policy = clean(replace_transfers(policy, NOBODY, clauses))
        self._kept: dict[str, _Shown] = {}

    def check(self, catalog: Catalog) -> None:
        """Check the catalog.

        Raises:
            ConfigError: A tool has the name of the function for experts, or an expert takes arguments.
        """
        if CALL_EXPERT in catalog.tools:
            raise ConfigError(f"a tool is named {CALL_EXPERT!r}, the function that the protocol adds; rename it")
        for spec in _experts(catalog):
            if spec.required:
                raise ConfigError(f"expert {spec.name!r} requires {', '.join(spec.required)}; expected no arguments")

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        """The reply of the expert that the last turn called, if it gave one; else one view, one reply."""
        said = _expert_reply(situation)
        if said is not None:
            return read_expert(*said, situation.catalog, situation.turn_id)
        reply = yield self.view(situation)
        return read_router(reply, situation.catalog, situation.turn_id)

    def view(self, situation: Situation) -> View:
        """What the router reads in this situation."""
        kept = self._shown(situation)
        tools = functions(situation.catalog)
        tools_tokens = self._counter.count(json.dumps(tools, ensure_ascii=False))
        # A catalog that takes all the room leaves a quarter of it, rather than nothing to reply to.
        room = max(INPUT_TOKENS - tools_tokens, INPUT_TOKENS // 4)
        system = self._counter.unit([self._system])
        return View(
            fit(system, kept.units, room, self._counter),
            tools,
            tools_tokens + min(room, system.tokens + kept.tokens),
        )

    def brief(self, situation: Situation, spec: ToolSpec) -> list[dict[str, Any]]:
        """The policy and the conversation so far, cut to what the expert may read."""
        transfers = TRANSFER_TOOL in situation.catalog.tools
        policy = SystemMessage(f"<policy>\n{self._whole_policy if transfers else self._policy}\n</policy>")
        units = self._shown(situation).units
        messages = fit(self._counter.unit([policy]), units, spec.limits.context_tokens, self._counter)
        brief: list[dict[str, Any]] = convert_to_openai_messages(messages)
        return brief

    def transcript(self, situation: Situation, answer: str) -> list[BaseMessage]:
        """The domain's calls with their results, and the message to the user."""
        experts = {spec.name for spec in _experts(situation.catalog)}
        messages = [message for turn in situation.turns.values() for message in turn_messages(turn, experts)]
        return [*messages, AIMessage(answer)]

    def _shown(self, situation: Situation) -> _Shown:
        """The run's messages as far as they were written, with those of the turns since."""
        run, turns = situation.turn_id.rpartition("-")[0], list(situation.turns.values())
        kept = self._kept.pop(run, None)
        if kept is None or not kept.begins(situation, turns):
            kept = _Shown(situation, self._counter)
        kept.append(turns[len(kept.turns) :], self._counter)
        self._kept[run] = kept
        # Nobody tells when a run ends, so those not looked at for longest go.
        while len(self._kept) > _KEPT_RUNS:
            self._kept.pop(oldest(self._kept), None)
        return kept


class _Shown:
    """What a run's router has been shown so far, before any cut."""

    def __init__(self, situation: Situation, counter: Counter) -> None:
        self.turns: list[Turn] = []
        self.units: list[Unit] = []
        self.tokens = 0
        self._start = _start(situation)
        self._experts = {spec.name for spec in _experts(situation.catalog)}
        messages = [*situation.history, HumanMessage(situation.question)]
        first = next(n for n, message in enumerate(messages) if isinstance(message, HumanMessage))
        self._add(messages[first:], counter)  # an agent's greeting goes before it

    def begins(self, situation: Situation, turns: list[Turn]) -> bool:
        """Whether it is the beginning of this situation; a fork of the run has other turns under the same ids."""
        return (
            len(self.turns) <= len(turns)
            and all(map(operator.is_, self.turns, turns))
            and self._start == _start(situation)
        )

    def append(self, turns: list[Turn], counter: Counter) -> None:
        """Show more turns."""
        self.turns += turns
        for turn in turns:
            self._add(turn_messages(turn, self._experts), counter)

    def _add(self, messages: list[BaseMessage], counter: Counter) -> None:
        units = [counter.unit(unit) for unit in shown(messages)]
        self.units += units
        self.tokens += sum(unit.tokens for unit in units)


def _start(situation: Situation) -> tuple[Any, ...]:
    return situation.question, situation.catalog, list(situation.history)


@lru_cache(maxsize=128)
def functions(catalog: Catalog) -> list[dict[str, Any]]:
    """The domain's tools as functions in OpenAI's format, and the one that calls an expert last."""
    listed = [
        {
            "type": "function",
            "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
        }
        for spec in catalog.tools.values()
        if spec.kind != "expert" and spec.name not in (FINAL_ANSWER, TRANSFER_TOOL)
    ]
    experts = _experts(catalog)
    return [*listed, _call_expert(experts)] if experts else listed


def _call_expert(experts: Sequence[ToolSpec]) -> dict[str, Any]:
    description = EXPERTS.format(
        names=", ".join(spec.name for spec in experts),
        sentences=" ".join(f"{spec.name}: {spec.description}" for spec in experts),
        table=price_table(experts),
    )
    expert = {"description": description, "type": "string"}
    # The order of the keys is the release's too: a chat template writes them as they come.
    parameters = {"properties": {"expert": expert}, "required": ["expert"], "title": "parameters", "type": "object"}
    return {
        "type": "function",
        "function": {"name": CALL_EXPERT, "description": HAND_OVER_TOOL, "parameters": parameters},
    }


def _experts(catalog: Catalog) -> list[ToolSpec]:
    return [spec for spec in catalog.tools.values() if spec.kind == "expert"]


def _expert_reply(situation: Situation) -> tuple[str, list[dict[str, Any]]] | None:
    """Text and calls of the expert that the last turn called; None where it called none, or none that replied."""
    if not situation.turns:
        return None
    last = list(situation.turns.values())[-1]
    for call in last["decision"]["calls"]:
        outcome = last["outcomes"].get(call["id"])
        spec = situation.catalog.tools.get(call["tool"])
        if outcome is not None and not outcome["error"] and spec is not None and spec.kind == "expert":
            made = (part for part in outcome.get("artifacts", ()) if "calls" in part)
            reply: dict[str, Any] = next(made, {"text": outcome.get("answer", outcome["content"]), "calls": []})
            return reply["text"], reply["calls"]
    return None
