"""The router node in a graph that somebody else wrote: it decides as in an orchestrator, and goes on with `Command`.

Deciding, its budget and its bill are those of `router.RouterNode`. Here stands what differs: a run begins when the
graph enters the node, and goes on when a destination comes back; a call is a `Command(goto=...)` to one node, which
reads the graph's own state; a run that is over leaves the graph to its own path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.channels import LastValue
from langgraph.types import Command, Overwrite

from orchestra_graph.budgeting import Purse
from orchestra_graph.engine import Engine
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph_state import (
    ANSWER,
    CALL,
    LEDGER,
    MESSAGES,
    REPORT,
    RUN,
    STOPPED_BY,
    TURNS,
    Report,
    as_orchestrator,
    users_state,
    value_of,
)
from orchestra_graph.lifecycle import CLOSING, begin, best_answer, closing_turn, finish, next_closer
from orchestra_graph.node import Node
from orchestra_graph.portal import Portal
from orchestra_graph.progress import tell_decision, tell_outcome
from orchestra_graph.router import NODE, RouterNode
from orchestra_graph.state import CallTask, RunHeader
from orchestra_graph.text import clean
from orchestra_graph.turns import Charge, Outcome, StoppedBy, Turn, merge_turns

Read = Callable[[Any], str]
"""From the graph's state to the question."""

CONFIGURABLE: Final = "orchestra"
"""Key of the config's `configurable` under which a run's preferences, budget and task are given."""

ONE_AT_A_TIME: Final = "not sent: one node runs at a time, since each reads what the one before wrote"


@dataclass(slots=True)
class _Run:
    """A run as the router finds it, and what this step writes to its turns."""

    header: RunHeader
    turns: dict[str, Turn]
    history: list[BaseMessage]
    """The conversation before the question."""
    written: dict[str, Any] = field(default_factory=dict)

    @property
    def newest(self) -> Turn:
        return next(reversed(self.turns.values()))

    def write(self, parts: Mapping[str, Any]) -> None:
        self.turns = merge_turns(self.turns, parts)
        self.written = merge_turns(self.written, parts)


class GraphRouter(Node):
    """Decides each time it is entered.

    Args:
        name: Name of the node.
        engine: The parts of its runs.
        portal: Where a sync graph runs it.
        schema: State of the graph, as `read` takes it.
        read: From that state to the question; by default the newest message of a person.
        messages: The state's channel of that name, if it has one.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        portal: Portal,
        *,
        schema: type[Any],
        read: Read | None,
        messages: object | None,
    ) -> None:
        super().__init__(name, portal)
        self._engine = engine
        self._router = RouterNode(engine, portal)
        self._schema = schema
        self._read = read
        self._has_messages = messages is not None
        self._appends = not isinstance(messages, LastValue)

    async def step(self, state: dict[str, Any], config: RunnableConfig) -> Command[Any]:
        """Begin a run, or take in what a destination brought and decide what comes next."""
        report: Report | None = state.get(REPORT)
        if report is None and CALL in state:
            # Another path of the graph leads here while a destination runs, which reports in the next step.
            return Command()
        if report is None:
            return self._begin(state, config)
        run = _Run(state[RUN], state[TURNS], self._history(state, state[RUN]))
        if report:
            run.write(self._taken_in(run, report))
            if "answer" in report["outcome"]:
                return self._end(run, report["outcome"]["answer"], state.get(STOPPED_BY) or "answer")
            if run.newest["decision"]["by"] == "closing":
                return self._close(run, state[STOPPED_BY])
        command = await self._router.step(as_orchestrator(run.header, run.turns, run.history), config)
        wanted: dict[str, Any] = command.update or {}
        run.write(wanted.get("turns", {}))
        if "answer" in wanted:
            # Only a router that answers by itself comes here, and its answer stands nowhere else.
            return Command(update={**self._said(state, wanted[MESSAGES]), **_private(wanted), TURNS: run.written})
        if command.goto == CLOSING:
            return self._close(run, wanted["stopped_by"])
        return self._go(run, cast("list[Any]", command.goto))

    def _begin(self, state: dict[str, Any], config: RunnableConfig) -> Command[Any]:
        """Write the run's header, in a step of its own: it can be resumed before anything is paid."""
        given = config.get("configurable", {}).get(CONFIGURABLE) or {}
        if not isinstance(given, Mapping):
            raise ConfigError(f"configurable {CONFIGURABLE!r} = {given!r}; expected preferences, budget, task by name")
        run = begin(self._engine, self._question(state), given)
        header = {RUN: run, TURNS: Overwrite({}), ANSWER: None, STOPPED_BY: None, LEDGER: None, REPORT: {}}
        return Command(goto=self.name, update=header)

    def _question(self, state: dict[str, Any]) -> Sequence[BaseMessage]:
        """Messages of which the newest one of a person is the question.

        Raises:
            ConfigError: The state holds no question that can be read.
        """
        if self._read is None:
            return self._messages(state)
        try:
            question = self._read(users_state(state, self._schema))
        except Exception as error:
            raise ConfigError(f"read(state) failed: {error!r}; expected it to return the question as text") from error
        if not isinstance(question, str) or not question:
            raise ConfigError(f"read(state) = {question!r}; expected the question as text")
        return [HumanMessage(question)]

    def _messages(self, state: dict[str, Any]) -> list[BaseMessage]:
        messages = value_of(state, MESSAGES) or []
        try:
            return convert_to_messages(messages)
        except (TypeError, ValueError, NotImplementedError) as error:
            value = repr(messages)[:200]
            raise ConfigError(f"{MESSAGES} = {value}; expected chat messages, or pass read=...") from error

    def _history(self, state: dict[str, Any], run: RunHeader) -> list[BaseMessage]:
        """The conversation before the question; none where the user's function reads the state."""
        messages = [] if self._read is not None else self._messages(state)
        for place in range(len(messages) - 1, -1, -1):
            asked = messages[place]
            if isinstance(asked, HumanMessage) and asked.id == run["message"] and clean(asked.text) == run["question"]:
                return messages[:place]
        return []

    def _taken_in(self, run: _Run, report: Report) -> dict[str, Any]:
        """What a destination reports, as a part of the newest turn.

        LangGraph's node cache replays a report with the call that it was first written for, and with what that cost.
        """
        turn = run.newest
        (call,) = [call for call in turn["decision"]["calls"] if call["id"] not in turn["outcomes"]]
        outcome, charges = report["outcome"], report["charges"]
        if report["call"]["id"] != call["id"]:
            outcome = {**outcome, "cached": True, "seconds": 0.0}
            cached: Charge = {"tool": call["tool"], "status": "cached", "dollars": 0.0, "seconds": 0.0}
            charges = {f"{call['id']}#0": cached}
            tell_outcome(self._engine, run.header["id"], turn["id"], call, outcome, charges)
        return {turn["id"]: {"id": turn["id"], "outcomes": {call["id"]: outcome}, "charges": charges}}

    def _go(self, run: _Run, tasks: list[Any]) -> Command[Any]:
        """Go where an orchestrator would send its calls: to the first one, or back to the router."""
        if tasks == [NODE]:
            return Command(goto=self.name, update={TURNS: run.written, REPORT: {}})
        first, *others = tasks
        task: CallTask = first.arg
        unsent = {other.arg["call"]["id"]: _unsent() for other in others}
        run.write({task["turn"]: {"id": task["turn"], "outcomes": unsent}})
        return Command(goto=first.node, update={TURNS: run.written, CALL: task})

    def _close(self, run: _Run, why: StoppedBy) -> Command[Any]:
        """End a run whose budget is used up: by a terminal destination that can still be paid, else here."""
        engine, setup = self._engine, self._engine.setup(run.header)
        purse = Purse(setup, run.turns, run.header["question"], engine.closing)
        spec = next_closer(engine, purse, run.turns, why)
        if spec is None:
            return self._end(
                run, best_answer(run.turns, setup.catalog.terminals, shows_results=not engine.protocol.answers), why
            )
        turn = closing_turn(run.header, len(run.turns), spec.name, why)
        tell_decision(engine, run.header["id"], turn)
        run.write({turn["id"]: turn})
        (call,) = turn["decision"]["calls"]
        task: CallTask = {"run": run.header, "turn": turn["id"], "call": call, "left": purse.for_call(spec)}
        return Command(goto=spec.name, update={TURNS: run.written, CALL: task, STOPPED_BY: why})

    def _end(self, run: _Run, answer: str, why: StoppedBy) -> Command[Any]:
        """Close the books; the graph goes its own way."""
        state = as_orchestrator(run.header, run.turns, run.history)
        ended = finish(self._engine, state, run.turns, answer, why)
        run.write(ended["turns"])
        return Command(update={**_private(ended), TURNS: run.written})

    def _said(self, state: dict[str, Any], messages: list[BaseMessage]) -> dict[str, Any]:
        """The router's own answer for the graph's messages, unless these are in a format of the graph's own."""
        held = value_of(state, MESSAGES) or []
        are_messages = isinstance(held, list) and all(isinstance(message, BaseMessage) for message in held)
        if not self._has_messages or (self._read is not None and not are_messages):
            return {}
        return {MESSAGES: messages if self._appends else [*held, *messages]}


def _private(ended: Mapping[str, Any]) -> dict[str, Any]:
    return {ANSWER: ended["answer"], STOPPED_BY: ended["stopped_by"], LEDGER: ended["ledger"]}


def _unsent() -> Outcome:
    return {"content": ONE_AT_A_TIME, "error": True, "unsent": True, "seconds": 0.0}
