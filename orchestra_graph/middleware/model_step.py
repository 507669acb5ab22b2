"""One step of the agent's model: the router chooses an expert, the expert answers, both are charged.

The hooks drive it, in their own colour: while it is undecided they run the router's node on its state, then they call
the agent's handler within each seat, until one of them has the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from langchain.agents.middleware import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command, Send

from orchestra_graph.billing import describe
from orchestra_graph.budgeting import Purse
from orchestra_graph.catalog import ModelSpec
from orchestra_graph.lifecycle import CLOSING, best_answer, closing_turn, next_closer
from orchestra_graph.middleware.parts import Parts, Step, state_of
from orchestra_graph.middleware.seat import Seat
from orchestra_graph.middleware.settle import CALLS, content_of, settled, tool_turn, with_charges
from orchestra_graph.middleware.view import StepProtocol, described, name_of
from orchestra_graph.middleware.watch import watch_here
from orchestra_graph.progress import tell_decision, tell_outcome
from orchestra_graph.router import RouterNode
from orchestra_graph.state import OrchestratorState, RunHeader
from orchestra_graph.text import estimate_tokens
from orchestra_graph.turns import Outcome, StoppedBy, Turn

STOPPED: Final = "The run was stopped: the budget's {why} are used up, and no expert can be paid to answer.\n\n"
GIVEN_UP: Final = "The run was stopped: its router chose no expert.\n\n"
EMPTY: Final = "the expert's reply holds no text, and it was shown no tools"
CHOSEN: Final = "other middleware chose the model"


class ModelStep:
    """A model step of one run.

    Args:
        parts: The agent's.
        run: The run's header.
        request: What the agent would ask its model.
    """

    def __init__(self, parts: Parts, run: RunHeader, request: ModelRequest[Any]) -> None:
        self._parts = parts
        self._run = run
        self._request = request
        state: Mapping[str, Any] = request.state
        before: dict[str, Turn] = state.get("turns") or {}
        self._completed = settled(parts, run, before, state["messages"])
        self._turns = {**before, **self._completed}
        self._id = f"{run['id'][:8]}-{len(self._turns)}"
        entered = Step(request.model, state["messages"][-1].id)
        self._step = parts.memory(run).steps.setdefault(self._id, entered)
        self._bill_others()
        self._setup = parts.engine.setup(run)
        self._text = self._prompt() if self._setup.is_bounded else ""
        self._queue: list[Seat] = []
        self._errors: list[str] = []
        self._taken = 0.0
        self._response: ModelResponse[Any] | None = None
        self._is_chosen = request.model is not self._step.model
        """Other middleware has chosen a model, after this step had failed."""
        if self._step.stopped_by is None and (self._is_chosen or self._decision is None):
            self._step.stopped_by = self._used_up()

    # Deciding.

    @property
    def is_undecided(self) -> bool:
        """Whether the router must be asked."""
        return not (self._is_chosen or self._step.stopped_by or self._decision)

    @property
    def deciding(self) -> asyncio.Lock:
        """To be held while the router is asked."""
        return self._step.deciding

    @property
    def router(self) -> RouterNode:
        """The node that decides this step."""
        engine, first = self._parts.engine, len(self._turns)
        tools, prices = described(self._request.tools), self._parts.prices
        protocol = StepProtocol(engine.protocol, tools, prices, since=first if self._parts.is_program else 0)
        fallback = StepProtocol(engine.fallback_protocol, tools, prices, since=first)
        return RouterNode(replace(engine, protocol=protocol, fallback_protocol=fallback), self._parts.portal)

    @property
    def state(self) -> OrchestratorState:
        """What the router's node is run on."""
        return state_of(self._run, self._all_turns, self._request.messages)

    def take(self, command: Command[Any]) -> None:
        """Read what the router's node has decided."""
        update: Mapping[str, Any] = command.update if isinstance(command.update, dict) else {}
        self._step.turns |= update.get("turns", {})
        if command.goto == CLOSING:
            self._step.stopped_by = update["stopped_by"]
        elif isinstance(command.goto, list) and isinstance(command.goto[0], Send) and self._setup.is_bounded:
            self._refuse_what_is_too_dear()

    def _refuse_what_is_too_dear(self) -> None:
        """The router's node counts the question alone, and keeps nothing back, since each expert might end the run."""
        turn = next(reversed(self._step.turns.values()))
        call = turn["decision"]["calls"][0]
        line = self._setup.catalog.tools[call["tool"]]
        if not self._affords(line):
            why = f"not sent: {line.name} costs at least ${self._least(line):.6f} here, and less is left for it"
            outcome: Outcome = {"content": why, "error": True, "unsent": True, "seconds": 0.0}
            turn["outcomes"] = {call["id"]: outcome}
            tell_outcome(self._parts.engine, self._run["id"], turn["id"], call, outcome, {})
            self._step.stopped_by = self._used_up()

    @property
    def _decision(self) -> Turn | None:
        """The turn that names an expert who may be asked."""
        turn = next(reversed(self._step.turns.values()), None)
        if turn is None or any(outcome.get("unsent") for outcome in turn["outcomes"].values()):
            return None
        return turn if turn["decision"]["calls"] else None

    @property
    def _all_turns(self) -> dict[str, Turn]:
        return {**self._turns, **self._step.turns}

    # Answering.

    def seats(self) -> Iterator[Seat]:
        """Those that are asked, one after the other, until one has answered."""
        self._queue = self._closing_seats() if self._step.stopped_by else self._expert_seats()
        while self._queue and self._response is None:
            seat = self._queue.pop(0)
            purse = self._purse()
            # What is kept back is for closing the run.
            seat.seconds = (purse.seconds if _is_closing(seat.turn) else purse.seconds_for_deciding) - self._taken
            yield seat

    def answered(self, seat: Seat, response: ModelResponse[Any]) -> None:
        """Take an expert's reply."""
        said, seconds = _said(response), self._taken + seat.taken
        if said is not None and _is_closing(seat.turn) and self._request.response_format is None:
            if not said.text:
                self._close(seat, {"content": EMPTY, "error": True, "seconds": seconds})
                self._queue = self._closing_seats()
                return
            said = said.model_copy(update={"tool_calls": []})  # it was shown no tools
            response = replace(response, result=[said])
        self._response = response
        outcome: Outcome = {"content": "" if said is None else content_of(said), "error": False, "seconds": seconds}
        if seat.name != seat.call["tool"]:
            outcome["by"] = seat.name
        self._close(seat, outcome)

    def failed(self, seat: Seat, error: BaseException) -> bool:
        """Whether the step goes on without the expert: by one that stands in for it, or because the run must end."""
        if isinstance(error, GraphBubbleUp) or not isinstance(error, Exception):
            return False
        self._taken += seat.taken
        self._errors.append(f"{seat.name}: {describe(error)}")
        self._queue = [other for other in self._queue if self._affords(other.line)]
        if self._queue:
            return True
        outcome: Outcome = {"content": "; then ".join(self._errors), "error": True, "seconds": self._taken}
        seat.turn["outcomes"] = {seat.call["id"]: outcome}
        self._step.stopped_by = self._step.stopped_by or self._used_up()
        if self._step.stopped_by is None:
            seat.turn["outcomes"] = {}  # other middleware may still mend it
            return False
        self._close(seat, outcome)
        self._queue = self._closing_seats()
        return True

    def result(self) -> ExtendedModelResponse[Any]:
        """The answer, and what is to be written beside it."""
        response = self._response or ModelResponse(result=[AIMessage(self._last_words())])
        turns = {**self._completed, **self._step.turns}
        if not self._turns and turns:  # what was paid before the first turn
            turns[self._id] = with_charges(turns[self._id], self._step.charges)
        said = _said(response)
        done = {message.tool_call_id for message in response.result if isinstance(message, ToolMessage)}
        if said is not None and any(call["id"] not in done for call in said.tool_calls):
            turn = tool_turn(self._run, self._all_turns, said)
            tell_decision(self._parts.engine, self._run["id"], turn)
            turns[turn["id"]] = turn
        # Where a middleware has the agent go on after its end, its books are open again.
        update: dict[str, Any] = {"turns": turns, "ledger": None}
        if self._step.stopped_by is not None:
            update["stopped_by"] = self._step.stopped_by
        return ExtendedModelResponse(model_response=response, command=Command(update=update))

    def _expert_seats(self) -> list[Seat]:
        turn, lines = self._decision, self._setup.catalog.tools
        if self._is_chosen:
            name, line = self._parts.line_of(self._request.model)
            turn = turn or self._add(_chosen_turn(self._run, len(self._all_turns), name))
            return [self._seat(turn, name, line, self._shown(turn))]
        if turn is None:
            return []
        first = lines[turn["decision"]["calls"][0]["tool"]]
        names = [first.name, *(name for name in first.fallback if name in lines)]
        request = self._shown(turn)
        models = self._parts.models
        return [self._seat(turn, name, lines[name], request.override(model=models[name])) for name in names]

    def _closing_seats(self) -> list[Seat]:
        """The cheapest expert that can be paid, without tools; the next one only when it has failed."""
        why = self._step.stopped_by
        line = None if why is None else next_closer(self._parts.engine, self._purse(), self._all_turns, why)
        if why is None or line is None:
            return []
        turn = self._add(closing_turn(self._run, len(self._all_turns), line.name, why))
        request = self._request.override(model=self._parts.models[line.name], tools=[])
        return [self._seat(turn, line.name, line, request)]

    def _seat(self, turn: Turn, name: str, line: ModelSpec, request: ModelRequest[Any]) -> Seat:
        return Seat(self, self._parts, self._run, turn, name, line, request)

    def _shown(self, turn: Turn) -> ModelRequest[Any]:
        """The request, with the tools that the router shows."""
        names = turn["decision"]["calls"][0]["args"].get("tools")
        if names is None:
            return self._request
        tools = [tool for tool in self._request.tools if name_of(tool) in (None, *names)]
        return self._request.override(tools=tools)

    def _add(self, turn: Turn) -> Turn:
        self._step.turns[turn["id"]] = turn
        tell_decision(self._parts.engine, self._run["id"], turn)
        return turn

    def _close(self, seat: Seat, outcome: Outcome) -> None:
        """Write what a turn's expert has brought."""
        self._taken = 0.0
        self._errors.clear()
        seat.turn["outcomes"] = {seat.call["id"]: outcome}
        tell_outcome(self._parts.engine, self._run["id"], seat.turn["id"], seat.call, outcome, seat.charges)

    def _last_words(self) -> str:
        why = self._step.stopped_by
        brought = {id: turn for id, turn in self._all_turns.items() if not _only_calls(turn)}
        return (GIVEN_UP if why == "router" else STOPPED.format(why=why)) + best_answer(brought, ())

    # The budget.

    def _purse(self) -> Purse:
        return Purse(self._setup, self._all_turns, self._text, self._parts.engine.closing)

    def _used_up(self) -> StoppedBy | None:
        """The element of the budget that lets no expert take the step, or None."""
        purse = self._purse()
        if purse.used_up is None and not any(map(self._affords, self._setup.catalog.tools.values())):
            return "dollars"
        return purse.used_up

    def _affords(self, line: ModelSpec) -> bool:
        return not self._setup.is_bounded or self._purse().affords(self._least(line))

    def _least(self, line: ModelSpec) -> float:
        return line.least_dollars(estimate_tokens(self._text))

    def _prompt(self) -> str:
        """What the expert reads, whose length bounds from below what asking it costs."""
        system = self._request.system_message
        return "\n".join(message.text for message in ([system] if system else []) + list(self._request.messages))

    def _bill_others(self) -> None:
        """Charge what others have asked models for since the last turn to that turn."""
        watch, graph = watch_here()
        last = next(reversed(self._turns.values()), None)
        turn_id = self._id if last is None else last["id"]
        self._step.charges |= self._parts.charges_of(watch.claim(graph), turn_id, self._run)
        if last is not None and self._step.charges:
            self._completed[turn_id] = self._turns[turn_id] = with_charges(last, self._step.charges)


def _said(response: ModelResponse[Any]) -> AIMessage | None:
    return next((message for message in response.result if isinstance(message, AIMessage)), None)


def _is_closing(turn: Turn) -> bool:
    return turn["decision"]["by"] == "closing"


def _only_calls(turn: Turn) -> bool:
    """Whether all that a turn brought is that tools were called."""
    return any(outcome["content"].startswith(CALLS) for outcome in turn["outcomes"].values())


def _chosen_turn(run: RunHeader, index: int, name: str) -> Turn:
    """A turn of a model that neither the router nor the budget has chosen."""
    turn = closing_turn(run, index, name, "router")
    return {**turn, "decision": {**turn["decision"], "reason": CHOSEN, "by": "fallback"}}
