"""How a run starts, how it ends when its budget is used up, and what is written when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END
from langgraph.runtime import get_runtime
from langgraph.types import Command
from pydantic import BaseModel, ValidationError

from orchestra_graph import tracing
from orchestra_graph.budgeting import Purse
from orchestra_graph.catalog import ToolSpec
from orchestra_graph.engine import Engine
from orchestra_graph.errors import ConfigError
from orchestra_graph.events import AnswerEvent
from orchestra_graph.evidence import evidence_for, situation_of
from orchestra_graph.execution import Execution
from orchestra_graph.ledger import totals
from orchestra_graph.meter import current_meter
from orchestra_graph.nesting import hand_up, refuse_to_go_deeper
from orchestra_graph.node import Node
from orchestra_graph.portal import Portal
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.progress import tell_decision, tell_outcome
from orchestra_graph.runlog.encoding import storable
from orchestra_graph.state import (
    NO_ANSWER,
    About,
    CallTask,
    OrchestratorContext,
    OrchestratorState,
    RunHeader,
    answer_of,
    question_of,
)
from orchestra_graph.text import clean, cut, newest_that_fit
from orchestra_graph.turns import StoppedBy, Turn

M = TypeVar("M", bound=BaseModel)

_OURS: Final = ", ".join(OrchestratorContext.__annotations__)

_BELOW: Final = "|"
"""Between the namespaces of a graph and of one inside it."""

CLOSING: Final = "closing"

MOST_CLOSERS: Final = 2
"""Tools that are asked to close a run, the second one when the first brought no answer."""

_CONVERSATION_SHOWN: Final = 2000
"""Tokens of the conversation before the question that experts read."""

_EVIDENCE_SHOWN: Final = 1000
"""Tokens of the newest result that stand as the answer when no tool can be paid to write one."""


def begin(engine: Engine, messages: Sequence[BaseMessage], given: Mapping[str, Any] | None = None) -> RunHeader:
    """Start a run, before anything is paid: a fresh id, validated preferences and budget, the first record of the log.

    Args:
        engine: The parts of the run.
        messages: The newest message of a person is the question.
        given: What the caller wants of this run, an `OrchestratorContext`; the graph's context by default.

    Raises:
        ConfigError: What is given is wrong.
    """
    outer = current_meter()
    if given is None:
        given = _of_graph()
    if outer is not None:
        refuse_to_go_deeper(engine.max_depth)
        # LangGraph hands down what the run around it was given, which names another task and tools of another catalog.
        about = _given(About, given.get("task"), About())
        given = {"task": {"purpose": about.purpose}} if "purpose" in about.model_fields_set else {}
    unknown = [key for key in given if key not in OrchestratorContext.__annotations__]
    if unknown:
        raise ConfigError(f"the context has {', '.join(map(repr, unknown))}; expected {_OURS}")
    preferences = _given(Preferences, given.get("preferences"), engine.preferences)
    budget = _given(Budget, given.get("budget"), engine.budget)
    if outer is not None and outer.left is not None:
        budget = budget.at_most(Budget.model_validate(outer.left))
    history, question = question_of(messages)
    run: RunHeader = {
        "id": uuid4().hex,
        "question": clean(question.text),
        "message": question.id,
        "conversation": _conversation(history),
        "preferences": preferences.json_data,
        "budget": budget.json_data,
        "catalog_hash": engine.catalog.hash,
        "started": datetime.now(UTC).isoformat(),
        "policy": engine.policy,
        "protocol": engine.protocol.name,
    }
    if "task" in given:
        run["task"] = _row(_given(About, given["task"], About()))
    if outer is not None:
        run["parent"] = outer.call_id
    if tracing.is_on():
        run["traced"] = True
    run["catalog_hash"] = engine.setup(run).catalog.hash  # without what it must never call
    if engine.run_log is not None:
        engine.started.add(run["id"])
        engine.run_log.journal(run["id"], {"kind": "header", **engine.header(run)})
    return run


def _row(about: About) -> dict[str, Any]:
    """What is said of a task, as a checkpoint can hold it."""
    try:
        row = about.model_dump(mode="json", exclude_unset=True)
    except ValueError:  # of NumPy, or bytes that are no text
        row = about.model_dump(exclude_unset=True)
    kept: dict[str, Any] = storable(row)
    return kept


class ClosingNode(Node):
    """Ends a run whose budget is used up: a terminal tool answers from the evidence if one can still be paid."""

    owns_graph = True

    def __init__(self, engine: Engine, portal: Portal) -> None:
        super().__init__(CLOSING, portal)
        self._engine = engine

    async def step(self, state: OrchestratorState, config: RunnableConfig) -> Command[Any]:
        """Ask a closing tool; end with its answer, or with what there is when none is left to be asked."""
        engine, turns, run = self._engine, state["turns"], state["run"]
        setup = engine.setup(run)
        purse = Purse(setup, turns, run["question"], engine.closing)
        stopped_by = state["stopped_by"] or "router"
        asked: dict[str, Turn] = {}
        spec = next_closer(engine, purse, turns, stopped_by)
        if spec is not None:
            turn = await self._answered_by(spec, state, turns, purse, stopped_by)
            asked = {turn["id"]: turn}
            turns = {**turns, **asked}
            if not any("answer" in outcome for outcome in turn["outcomes"].values()):
                # What it cost is first written down, in a step of its own, before another one is paid.
                return Command(goto=CLOSING, update={"turns": asked})
        answer = best_answer(turns, setup.catalog.terminals, shows_results=not engine.protocol.answers)
        update = finish(engine, state, turns, answer, stopped_by)
        return Command(goto=END, update={**update, "turns": {**asked, **update["turns"]}})

    async def _answered_by(
        self, spec: ToolSpec, state: OrchestratorState, turns: dict[str, Turn], purse: Purse, stopped_by: StoppedBy
    ) -> Turn:
        """The turn in which one closing tool is called."""
        engine, run = self._engine, state["run"]
        turn = closing_turn(run, len(turns), spec.name, stopped_by)
        task: CallTask = {
            "run": run,
            "turn": turn["id"],
            "call": turn["decision"]["calls"][0],
            "left": purse.for_call(spec),
            **await evidence_for(engine, situation_of(engine.setup(run), state, turns), spec),
        }
        tell_decision(engine, run["id"], turn)
        started = time.perf_counter()
        execution = Execution(engine, task)
        with tracing.call(spec.name, task["call"]["args"]):
            outcome = await execution.carry_out()
            tracing.called(spec.name, task, outcome, execution.charges)
        turn["outcomes"] = {task["call"]["id"]: outcome}
        turn["charges"] = execution.charges
        turn["seconds"] = max(0.0, time.perf_counter() - started - execution.seconds)
        tell_outcome(engine, run["id"], turn["id"], task["call"], outcome, execution.charges)
        return turn


def next_closer(engine: Engine, purse: Purse, turns: Mapping[str, Turn], why: StoppedBy) -> ToolSpec | None:
    """The tool that is asked next to close a run, or None.

    Only one that can be paid without asking anybody: what is left would not survive being asked for twice.
    """
    closing = [turn for turn in turns.values() if turn["decision"]["by"] == "closing"]
    tried = {call["tool"] for turn in closing for call in turn["decision"]["calls"]}
    # A run that its router gave up is not closed at a price that nobody asked for.
    if why == "router" or len(tried) == MOST_CLOSERS:
        return None
    approval = engine.approval
    for spec in purse.closing_tools(engine.closing):
        is_asked_for = approval is not None and approval.is_needed(spec, purse.for_call(spec)["dollars"])
        if spec.name not in tried and not is_asked_for:
            return spec
    return None


def finish(
    engine: Engine, state: OrchestratorState, turns: dict[str, Turn], answer: str, stopped_by: StoppedBy
) -> dict[str, Any]:
    """Close the books of a run: what it has paid beside its turns, totals, the line in the run log, the event.

    Returns:
        The writes that end the run; of its turns the one that more was paid for than it says.
    """
    run = state["run"]
    completed = engine.complete(run["id"], turns)
    turns = {**turns, **completed}
    ledger = totals(turns)
    is_nested = current_meter() is not None
    if engine.run_log is not None or is_nested:
        ending = {
            "ended": "answered",
            "ended_at": datetime.now(UTC).isoformat(),
            "answer": answer,
            "stopped_by": stopped_by,
        }
        trajectory = {**engine.header(run), **ending, "turns": list(turns.values()), "totals": ledger}
        captures: Mapping[str, Any] = {}
        if engine.run_log is not None:
            captures = engine.run_log.finish(run["id"], trajectory)
            engine.started.discard(run["id"])
        if is_nested:
            hand_up({**trajectory, "captures": captures})
    tracing.finished(run, stopped_by, ledger, policy=engine.policy_name, protocol=engine.protocol.name)
    event: AnswerEvent = {
        "type": "answer",
        "run": run["id"],
        "answer": answer,
        "stopped_by": stopped_by,
        "ledger": ledger,
    }
    get_stream_writer()(event)
    messages = engine.protocol.transcript(situation_of(engine.setup(run), state, turns), answer)
    return {"messages": messages, "answer": answer, "stopped_by": stopped_by, "ledger": ledger, "turns": completed}


def ours_of(context: Any) -> dict[str, Any]:
    """What a context of the user's own, a mapping or an object, says of the run among other things."""
    keys = OrchestratorContext.__annotations__
    named = context if isinstance(context, Mapping) else {key: getattr(context, key, None) for key in keys}
    return {key: named[key] for key in keys if named.get(key) is not None}


def _of_graph() -> Mapping[str, Any]:
    """What the graph's context says of the run."""
    runtime = get_runtime()
    context, info = runtime.context, runtime.execution_info
    if info is not None and _BELOW in info.checkpoint_ns:
        # LangGraph hands down the context of the graph around, which may hold anything else as well.
        return ours_of(context)
    if not isinstance(context, Mapping | None):
        raise ConfigError(f"the context is {context!r}; expected a mapping of {_OURS}")
    return context or {}


def _given(model: type[M], value: Any, default: M) -> M:
    """A value from the context, validated; the default where there is none."""
    if value is None:
        return default
    try:
        return model.model_validate(value)
    except ValidationError as error:
        name = "task" if model is About else model.__name__.lower()
        problems = [f"{'.'.join(map(str, e['loc'])) or name} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        if any(e["type"] in ("model_type", "extra_forbidden") for e in error.errors()):
            # An agent's context is the user's own, and may mean something else by the name.
            problems.append(f"orchestra reads {_OURS} of the context: a field of your own needs another name")
        raise ConfigError(f"the context's {name}: {'; '.join(problems)}") from error


def _conversation(history: Sequence[BaseMessage]) -> str:
    """What people and assistants said before the question, for experts: the newest parts that fit, oldest first."""
    said = (m for m in reversed(history) if isinstance(m, HumanMessage | AIMessage) and m.text)
    shown = newest_that_fit((f"{m.type}: {clean(m.text)}" for m in said), _CONVERSATION_SHOWN)
    return "\n".join(reversed(shown))


def closing_turn(run: RunHeader, index: int, tool: str, why: StoppedBy) -> Turn:
    """The turn in which a tool is called because the budget is used up."""
    turn_id = f"{run['id'][:8]}-{index}"
    return {
        "id": turn_id,
        "index": index,
        "decision": {
            "calls": [{"id": f"{turn_id}-0", "tool": tool, "args": {}}],
            "reason": f"the budget's {why} are used up: {tool} answers from what is there",
            "by": "closing",
        },
        "charges": {},
        "outcomes": {},
        "seconds": 0.0,
    }


def best_answer(turns: dict[str, Turn], terminals: tuple[str, ...], *, shows_results: bool = True) -> str:
    """The closing tool's answer, else the newest answer or result of any tool.

    Args:
        turns: Of the run.
        terminals: Tools that end it.
        shows_results: Whether a result may stand for an answer; a customer, say, is no reader of records.
    """
    newest = ""
    for turn in reversed(turns.values()):
        answer = answer_of(turn, terminals)
        if answer is not None:
            return answer
        for call in reversed(turn["decision"]["calls"]):
            outcome = turn["outcomes"].get(call["id"])
            if outcome is None or outcome["error"]:
                continue
            if "answer" in outcome:
                return outcome["answer"]
            newest = newest or (outcome["content"] if shows_results else "")
    return cut(newest, _EVIDENCE_SHOWN) if newest else NO_ANSWER
