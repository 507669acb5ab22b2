"""What the hooks of one agent share: the engine, the experts' models, and what this process knows of runs under way."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage

from orchestra_graph.catalog import Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.engine import Engine
from orchestra_graph.kept import oldest
from orchestra_graph.meter import Meter
from orchestra_graph.middleware.view import conversation_of
from orchestra_graph.middleware.watch import Seen
from orchestra_graph.portal import Portal
from orchestra_graph.state import OrchestratorState, RunHeader
from orchestra_graph.tools.expert import model_identity
from orchestra_graph.turns import Charge, StoppedBy, Turn

Charges = dict[str, Charge]

_MOST_RUNS: Final = 1024
"""Runs under way that are remembered; a run that is waited for longer pays its router again when a step is repeated."""


@dataclass(slots=True)
class Step:
    """A model step that has been decided and may be entered again: retried by other middleware, or resumed."""

    model: BaseChatModel
    """The agent's model when it was first entered; another one has been chosen by other middleware."""
    after: str | None
    """Id of the newest message then; another one says that other middleware has ended the step."""
    turns: dict[str, Turn] = field(default_factory=dict)
    """Malformed replies, then the decision."""
    stopped_by: StoppedBy | None = None
    charges: Charges = field(default_factory=dict)
    """Of requests made by others before it, where no earlier turn can hold them."""
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the router is asked: other middleware may enter the step several times at once."""


@dataclass(slots=True)
class Made:
    """What was made of a call, by this process and those before it."""

    tries: Iterator[int]
    """Numbers of the next tries; other middleware may make several side by side."""
    charges: Charges


@dataclass(slots=True)
class Memory:
    """What is known of a run beside its state: what was paid by tasks whose writes may be lost."""

    steps: dict[str, Step] = field(default_factory=dict)
    """By the id of the step's first turn."""
    made: dict[str, Made] = field(default_factory=dict)
    """By call."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one agent."""

    engine: Engine
    portal: Portal
    models: Mapping[str, BaseChatModel]
    """By expert."""
    prices: Mapping[str, ToolSpec]
    """Lines of the catalog for the agent's own tools."""
    is_program: bool
    """The router is a program."""
    runs: dict[str, Memory] = field(default_factory=dict)

    def memory(self, run: RunHeader) -> Memory:
        """What is known of a run; the one that was begun first is forgotten when there are too many."""
        memory = self.runs.get(run["id"])
        if memory is None:
            while len(self.runs) >= _MOST_RUNS:
                self.runs.pop(oldest(self.runs), None)
            memory = self.runs.setdefault(run["id"], Memory())
        return memory

    def made(self, run: RunHeader, call_id: str) -> Made:
        """What was made of a call so far; remembered until the run has ended, to be added to."""
        calls = self.memory(run).made
        if call_id not in calls:
            first, charges = self.engine.earlier(run["id"], call_id)
            calls[call_id] = Made(count(first), charges)
        return calls[call_id]

    def line_of(self, model: BaseChatModel) -> tuple[str, ModelSpec]:
        """Name and price of a model that the router did not choose: that of its expert, where it is one."""
        for name, other in self.models.items():
            if other is model and name in self.engine.catalog.tools:
                return name, self.engine.catalog.tools[name]
        identity = model_identity(model)
        return self._line_named(identity.get("model"), model.get_name())

    def meter_for(self, name: str, line: ModelSpec, call_id: str, run: RunHeader, first: int) -> Meter:
        """A meter that charges each request whole, with its calls and seconds, to the model that was asked."""

        def price_of(spec: ModelSpec, model: str | None) -> Price:
            return line.price if model is None or model == line.model else self.engine.price_of(ModelSpec(), model)

        spec = ModelSpec(model=line.model, price=Price(), limits=line.limits)
        journal = self.engine.journal(run["id"])
        return Meter(call_id, name, spec, price_of=price_of, journal=journal, first=first)

    def named(self, charges: Charges, line: ModelSpec) -> Charges:
        """Charges of an attempt on one model, under the names of the models that were asked in it."""
        return {
            key: charge if charge.get("model", line.model) == line.model else {**charge, "tool": self._owner(charge)}
            for key, charge in charges.items()
        }

    def charges_of(self, requests: list[Seen], turn_id: str, run: RunHeader) -> Charges:
        """Charges of requests that other middleware made by itself."""
        charges: Charges = {}
        for seen in requests:
            # The run around this one has seen them as well and charges them itself, so nothing is handed up.
            charges |= contextvars.Context().run(self._charge, seen, turn_id)
        if charges and self.engine.run_log is not None:
            self.engine.run_log.journal(run["id"], {"kind": "turn", "turn": {"id": turn_id, "charges": charges}})
        return charges

    def _charge(self, seen: Seen, turn_id: str) -> Charges:
        name, line = self._line_named(seen.model, seen.node)
        # Keyed as what is nested in the turn, which a run log then finds by it.
        meter = Meter(f"{turn_id}/{seen.id.hex[-12:]}", name, line, price_of=lambda spec, model: spec.price)
        try:
            with meter.request(seen.tokens) as answered:
                meter.report(seen.seconds, 0.0)
                if not isinstance(seen.result, AIMessage):
                    raise seen.result
                answered(seen.result)
        except BaseException as error:
            if error is not seen.result:
                raise
        return meter.charges

    def _line_named(self, model: str | None, otherwise: str) -> tuple[str, ModelSpec]:
        for name, line in self.engine.catalog.tools.items():
            if model is not None and line.model == model:
                return name, line
        price = self.engine.price_of(ModelSpec(), model) if model else Price(source="unknown")
        return model or otherwise, ModelSpec(model=model, price=price, limits=Limits())

    def _owner(self, charge: Charge) -> str:
        return self._line_named(charge.get("model"), charge["tool"])[0]


def state_of(run: RunHeader, turns: Mapping[str, Turn], messages: list[AnyMessage]) -> OrchestratorState:
    """An agent's state as an orchestrator has it, in which the question is what the run began with."""
    state: dict[str, Any] = {
        "run": run,
        "turns": dict(turns),
        "messages": conversation_of(run, messages),
        "answer": None,
        "stopped_by": None,
        "ledger": None,
    }
    return state  # type: ignore[return-value]
