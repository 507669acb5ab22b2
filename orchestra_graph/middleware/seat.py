"""One expert's try at a step of the agent: metered, timed, and remembered until its turn is written."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any, Protocol

from langchain.agents.middleware import ModelRequest, ModelResponse

from orchestra_graph.catalog import ModelSpec
from orchestra_graph.deadlines import TimeLimitError
from orchestra_graph.middleware.parts import Charges, Parts
from orchestra_graph.state import RunHeader
from orchestra_graph.turns import Call, Turn


class Judge(Protocol):
    """Who is told how a try has gone."""

    def answered(self, seat: Seat, response: ModelResponse[Any]) -> None:
        """There is a reply."""

    def failed(self, seat: Seat, error: BaseException) -> bool:
        """There is none; returns whether the step goes on all the same."""


class Seat:
    """The context in which the agent's handler is called with one expert's model.

    Args:
        judge: Told how it has gone.
        parts: The agent's.
        run: The run's header.
        turn: The turn that the try belongs to; its charges are added to it.
        name: Name to charge.
        line: Price of the model.
        request: What the handler is called with.

    Attributes:
        seconds: Time that it may take; a synchronous call cannot be ended at it.
        response: To be set to what the handler returns.
    """

    def __init__(
        self,
        judge: Judge,
        parts: Parts,
        run: RunHeader,
        turn: Turn,
        name: str,
        line: ModelSpec,
        request: ModelRequest[Any],
    ) -> None:
        self.turn = turn
        self.name = name
        self.line = line
        self.request = request
        self.seconds = math.inf
        self.response: ModelResponse[Any] | None = None
        self.taken = 0.0
        """Seconds of the run that it took."""
        self.charges: Charges = {}
        """Of all tries of the call so far."""
        self._judge = judge
        self._parts = parts
        self._run = run

    @property
    def call(self) -> Call:
        """The router's call of the expert."""
        return self.turn["decision"]["calls"][0]

    def __enter__(self) -> Seat:
        self._made = self._parts.made(self._run, self.call["id"])
        self._meter = self._parts.meter_for(self.name, self.line, self.call["id"], self._run, next(self._made.tries))
        self._started = time.perf_counter()
        self._attempt = self._meter.attempt()
        self._attempt.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._attempt.__exit__(kind, error, trace)
        # What is beyond the deadline is the time that a cancelled call took to end.
        self.taken = min(
            time.perf_counter() - self._started + self._meter.shift,
            self.seconds if isinstance(error, TimeLimitError) else math.inf,
        )
        self._made.charges |= self._parts.named(self._meter.charges, self.line)
        self.charges = dict(self._made.charges)
        self.turn["charges"] = {**self.turn["charges"], **self.charges}
        if error is not None:
            self._parts.engine.keep(self._run["id"], self.turn["id"], self.call["id"], self.charges)
            return self._judge.failed(self, error)
        if self.response is not None:
            self._judge.answered(self, self.response)
        return False
