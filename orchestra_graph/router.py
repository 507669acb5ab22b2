"""The router node: from what has happened so far to the next calls, or to the end of the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END
from langgraph.types import Command, Overwrite, Send

from orchestra_graph import tracing
from orchestra_graph.attempts import DeadlineError, ask, send
from orchestra_graph.billing import describe, is_bad_request, is_overflow, is_transient
from orchestra_graph.budgeting import Purse
from orchestra_graph.captures import CapturedMessage
from orchestra_graph.engine import Engine, Setup
from orchestra_graph.errors import RouterError
from orchestra_graph.evidence import evidence_for, situation_of, texts_of
from orchestra_graph.ledger import ROUTER
from orchestra_graph.lifecycle import CLOSING, begin, finish
from orchestra_graph.meter import Meter
from orchestra_graph.nesting import keepers
from orchestra_graph.node import Node
from orchestra_graph.portal import Portal
from orchestra_graph.progress import tell_decision
from orchestra_graph.protocols.base import Protocol, View
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.state import CallTask, OrchestratorState, answer_of, is_malformed, is_new
from orchestra_graph.turns import Charge, Decision, Outcome, StoppedBy, Turn, TurnBy

Asking = Generator[View, AIMessage, Decision]

NODE = "router"

MOST_UNREACHED: Final = 3
"""Decisions in a row for which the router's server is tried in vain, each with its retries."""

_UNAFFORDABLE: Final[Decision] = {
    "calls": [],
    "reason": "",
    "by": "router",
    "problem": {"kind": "router_error", "detail": "the budget does not pay for the rest of the decision"},
}


class RouterNode(Node):
    """Decides once each time it is entered."""

    owns_graph = True

    def __init__(self, engine: Engine, portal: Portal) -> None:
        super().__init__(NODE, portal)
        self._engine = engine

    async def step(self, state: OrchestratorState, config: RunnableConfig) -> Command[Any]:
        """One decision: calls to send, the end of the run, or the closing node where the budget is used up."""
        if not is_new(state):
            return await self._decide(state)
        run = begin(self._engine, state["messages"])
        # None, not unset: LangGraph finds out by an exception that a key is unset, at every step.
        header = {"run": run, "answer": None, "stopped_by": None, "ledger": None}
        if config.get("configurable", {}).get("thread_id"):
            # What can be resumed is first written down, in a step of its own, before anything is paid.
            return Command(goto=NODE, update={**header, "turns": Overwrite({})})
        command = await self._decide({**state, "run": run, "turns": {}})
        return replace(command, update={**header, **(command.update or {})})

    async def _decide(self, state: OrchestratorState) -> Command[Any]:
        turns = state["turns"]
        setup = self._engine.setup(state["run"])
        if turns:
            answer = answer_of(next(reversed(turns.values())), setup.catalog.terminals)
            if answer is not None:
                return Command(goto=END, update=finish(self._engine, state, turns, answer, "answer"))
        purse = Purse(setup, turns, state["run"]["question"], self._engine.closing)
        if purse.used_up is not None:
            return Command(goto=CLOSING, update={"stopped_by": purse.used_up})
        by = _who_decides(turns, self._engine.max_malformed, has_fallback=self._engine.fallback is not None)
        if by is None:
            return Command(goto=CLOSING, update={"stopped_by": "router"})
        return await _Deciding(self._engine, state, setup, purse, by).go()


def _who_decides(turns: dict[str, Turn], limit: int, *, has_fallback: bool) -> TurnBy | None:
    """The router; from `limit` malformed replies in a row on the fallback; nobody when that has failed as well.

    A server that cannot be reached is not asked as often as a model that may yet find the form.
    """
    row = unreached = 0
    for turn in reversed(turns.values()):
        by_fallback = turn["decision"]["by"] == "fallback"
        if is_malformed(turn) and by_fallback:
            return None
        if not (is_malformed(turn) or by_fallback):
            break
        row += not by_fallback
        unreached += turn["decision"].get("problem", {}).get("kind") == "router_error"
    if row < limit and unreached < MOST_UNREACHED:
        return "router"
    return "fallback" if has_fallback else None


class _Deciding:
    """One decision under way."""

    def __init__(self, engine: Engine, state: OrchestratorState, setup: Setup, purse: Purse, by: TurnBy) -> None:
        self._engine = engine
        self._state = state
        self._run = state["run"]
        self._turns = state["turns"]
        self._setup = setup
        self._purse = purse
        self._situation = situation_of(setup, state, self._turns)
        self._id = self._situation.turn_id
        self._captures: list[Any] = []
        self._by = by
        self._is_late = False
        first, self._earlier = engine.earlier(self._run["id"], self._id)
        self._meter = Meter(
            self._id,
            ROUTER if by == "router" else "fallback",
            engine.catalog.router if by == "router" else engine.fallback_spec,
            price_of=engine.price_of,
            journal=engine.journal(self._run["id"]),
            first=first,
        )

    @property
    def _charges(self) -> dict[str, Charge]:
        """What the decision has cost so far, its tries before the run was taken up again among it."""
        return self._earlier | self._meter.charges

    async def go(self) -> Command[Any]:
        """Ask, record the turn, send the calls."""
        try:
            return await self._go()
        except BaseException as error:
            self._engine.keep(self._run["id"], self._id, self._id, self._charges)
            if self._engine.run_log is not None and isinstance(error, RouterError):
                self._engine.run_log.journal(self._run["id"], {"kind": "error", "error": str(error)})
            raise

    async def _go(self) -> Command[Any]:
        started = time.perf_counter()
        decision = await self._decide()
        stopped_by: StoppedBy = "seconds" if self._is_late else "dollars"
        if decision is None and not self._charges:
            return Command(goto=CLOSING, update={"stopped_by": stopped_by})
        turn: Turn = {
            "id": self._id,
            "index": len(self._turns),
            "decision": {**(decision or _UNAFFORDABLE), "by": self._by},
            "charges": self._charges,
            "outcomes": {},
            "seconds": min(time.perf_counter() - started + self._meter.shift, self._purse.seconds_for_deciding),
        }
        if decision is None:
            tell_decision(self._engine, self._run["id"], turn)
            self._trace(turn)
            return Command(goto=CLOSING, update={"stopped_by": stopped_by, "turns": {self._id: turn}})
        return await self._record(turn)

    async def _decide(self) -> Decision | None:
        """The decision, or None when the budget does not pay for asking, in dollars or in time."""
        # A fallback was not trained to speak as the router does.
        protocol = self._engine.protocol if self._by == "router" else self._engine.fallback_protocol
        asking = protocol.decide(self._situation)
        view, decision = await self._advance(protocol, asking, None)
        if view is None and decision is not None:
            self._by = decision["by"]
        while view is not None:
            if not self._affords(view):
                return None
            try:
                reply = await self._ask(view)
            except DeadlineError:
                self._is_late = True
                return None
            except Exception as error:
                return self._failed(error)
            view, decision = await self._advance(protocol, asking, reply)
        return decision

    async def _advance(
        self, protocol: Protocol, asking: Asking, reply: AIMessage | None
    ) -> tuple[View, None] | tuple[None, Decision]:
        """Hand a reply to the protocol: the next view, or the decision."""
        try:
            return await asyncio.to_thread(_next, asking, reply) if protocol.blocks else _next(asking, reply)
        except RouterError as error:  # its tokenizer's server
            return None, self._failed(error)

    def _affords(self, view: View) -> bool:
        """Whether the budget pays for one more request beside those that this decision has made."""
        if not self._purse.is_bounded:
            return True
        made = sum(charge.get("upper", charge["dollars"]) for charge in self._charges.values())
        return self._purse.affords(made + self._meter.spec.least_dollars(view.tokens))

    async def _ask(self, view: View) -> AIMessage:
        meter = self._meter
        router = self._engine.asking(self._run, view, fallback=self._by == "fallback")

        async def attempt() -> AIMessage:
            with meter.request(view.tokens) as answered:
                reply = await ask(router, view.messages)
                answered(reply)
            return reply

        reply = await send(
            attempt,
            meter=meter,
            limits=meter.spec.limits,
            may_retry=lambda: self._affords(view),
            seconds=self._purse.seconds_for_deciding,
        )
        if isinstance(reply, CapturedMessage):
            self._captures.append(reply.capture)
        return reply

    def _failed(self, error: Exception) -> Decision:
        """A turn for a router that could not be reached; an error that retrying cannot mend stops the run."""
        if not is_transient(error):
            if isinstance(error, RouterError):
                raise error
            raise RouterError(f"the router's model failed: {describe(error)}{self._hint(error)}") from error
        detail = f"the router's model gave no reply: {describe(error)}"
        return {"calls": [], "reason": "", "by": self._by, "problem": {"kind": "router_error", "detail": detail}}

    def _hint(self, error: Exception) -> str:
        """What may mend a request that the server refused, where the request is not the plainest one."""
        constraint = self._engine.constraint_of(self._run) if self._by == "router" else None
        if constraint is None or not is_bad_request(error) or is_overflow(error):
            return ""
        return f'; if the server cannot take tool_choice="{constraint}", pass constraint=None'

    async def _record(self, turn: Turn) -> Command[Any]:
        engine, run_id = self._engine, self._run["id"]
        tasks = await self._tasks(turn)
        self._trace(turn)
        journals = keepers(engine.journal(run_id)) if self._captures else []
        for capture in self._captures if journals else ():
            name = f"{turn['id']}:{len(turn.get('captures', ()))}"
            turn.setdefault("captures", []).append(name)
            for journal in journals:
                journal.captured({"id": name, "turn": turn["id"], **capture})
        tell_decision(engine, run_id, turn)
        turns = {**self._turns, turn["id"]: turn}
        answer = answer_of(turn, self._setup.catalog.terminals)
        if answer is not None:
            update = finish(engine, self._state, turns, answer, "answer")
            return Command(goto=END, update={**update, "turns": {turn["id"]: turn, **update["turns"]}})
        return Command(goto=tasks or [NODE], update={"turns": {turn["id"]: turn}})

    def _trace(self, turn: Turn) -> None:
        if not tracing.is_on():
            return
        engine, purse = self._engine, self._purse
        left = {"dollars": purse.dollars, "seconds": purse.seconds, "turns": purse.turns - 1}
        tracing.decided(self._run, turn, left, policy=engine.policy_name, protocol=engine.protocol.name)

    async def _tasks(self, turn: Turn) -> list[Send]:
        """A task for each call that the budget allows; the others get their outcome at once."""
        purse = self._purse
        purse.spend(turn)
        tasks: list[Send] = []
        for call in turn["decision"]["calls"]:
            if call["tool"] == FINAL_ANSWER:
                answer = str(call["args"]["answer"])
                turn["outcomes"][call["id"]] = {"content": answer, "answer": answer, "error": False, "seconds": 0.0}
                continue
            spec = self._setup.catalog.tools[call["tool"]]
            evidence = await evidence_for(self._engine, self._situation, spec)
            read = texts_of(evidence) if self._engine.tools[spec.name].reads_evidence else ()
            refusal = purse.reserve(spec, [self._run["question"], *read])
            if refusal is not None:
                turn["outcomes"][call["id"]] = _unsent(refusal)
                continue
            left = purse.for_call(spec)
            task: CallTask = {"run": self._run, "turn": turn["id"], "call": call, "left": left, **evidence}
            tasks.append(Send(call["tool"], task))
        return tasks


def _next(asking: Asking, reply: AIMessage | None) -> tuple[View, None] | tuple[None, Decision]:
    try:
        return (next(asking) if reply is None else asking.send(reply)), None
    except StopIteration as done:  # which cannot cross a thread
        return None, done.value


def _unsent(why: str) -> Outcome:
    return {"content": why, "error": True, "unsent": True, "seconds": 0.0}
