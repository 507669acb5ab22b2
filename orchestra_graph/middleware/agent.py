"""The middleware: at each model step the router chooses the expert that answers, and which tools it sees.

agent = create_agent(model, tools, middleware=[OrchestraMiddleware(router, {"small": small, "large": large})])
state = agent.invoke({"messages": [("user", "What is 6 x 7?")]})
print(state["messages"][-1].text, state["ledger"]["dollars"], state["stopped_by"])
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any, Literal, NotRequired

from langchain.agents import AgentState
from langchain.agents.middleware import (
    AgentMiddleware,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
)
from langchain.agents.middleware.types import OmitFromInput, PrivateStateAttr
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite

from orchestra_graph import spans
from orchestra_graph.catalog import Catalog
from orchestra_graph.deadlines import within
from orchestra_graph.engine import Constraint
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import make_engine, spoken_by
from orchestra_graph.ledger import LedgerTotals
from orchestra_graph.lifecycle import begin, finish, ours_of
from orchestra_graph.middleware.experts import checked, seated_experts, split_catalog
from orchestra_graph.middleware.model_step import ModelStep
from orchestra_graph.middleware.parts import Parts, state_of
from orchestra_graph.middleware.settle import bare_turn, settled, with_charges
from orchestra_graph.middleware.tool_step import ToolStep
from orchestra_graph.middleware.view import SYSTEM
from orchestra_graph.middleware.watch import watch_here
from orchestra_graph.portal import Portal
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.routers import ProgramRouter
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.state import RunHeader, agent_answer
from orchestra_graph.tools.expert import Expert
from orchestra_graph.turns import StoppedBy, Turn, merge_turns


def _newest(before: Any, after: Any) -> Any:
    """Reducer: other middleware may take a model step several times at once, and each then writes."""
    return after


class OrchestraState(AgentState[Any]):
    """What the middleware adds to the agent's state: nothing to its input, the books to its output."""

    run: NotRequired[Annotated[RunHeader | None, PrivateStateAttr]]
    turns: NotRequired[Annotated[dict[str, Turn], OmitFromInput, merge_turns]]
    ledger: NotRequired[Annotated[LedgerTotals | None, OmitFromInput, _newest]]
    stopped_by: NotRequired[Annotated[StoppedBy | None, OmitFromInput, _newest]]


class OrchestraMiddleware(AgentMiddleware[OrchestraState, Any, Any]):
    """Lets a router choose, at each model step of `create_agent`, the expert that takes it and the tools that it sees.

    Every request to a model is charged to the model that was asked, also those that other middleware makes: fallbacks,
    summaries, failed tries. It works in any place among them; only what a middleware before it asks for after the
    agent has ended comes too late for the ledger. The agent's own model is never asked by it: other middleware may put
    a model in the place of an expert that failed.

    The agent's output has `ledger`, `stopped_by` and `turns` beside its messages. A turn is one decision of the router,
    or the calls of tools that an expert made; the budget's `turns` count both. Preferences and budget can be given with
    each run, as `preferences`, `budget` and `task` of the agent's context, whose other fields need other names.

    When the budget is used up, the cheapest expert that can be paid answers without tools; when none can, the agent
    ends with what there is, and says why. A budget in seconds ends an expert's call only where the agent runs async.

    Args:
        router: Any chat model that calls tools; the programs of `orchestra_graph.routers` are chat models too.
        experts: Models by name, as `create_agent` takes them, or `Expert`s with prices of their own, of which the agent
            uses model and catalog line, not the prompt. Retries and timeouts are the models' own, or middleware's.
        catalog: Descriptions, prices and fallbacks of experts, by name; what it leaves out comes from the experts, and
            prices of known models from `genai-prices`. Its other lines are the prices of the agent's tools.
        preferences: What matters, unless a run's context says otherwise.
        budget: What a run may spend, unless its context says otherwise.
        protocol: What the router reads and how its reply is parsed; by default the one that a `LocalRouter` was trained
            for, else a conversation.
        constraint: See `create_orchestrator`.
        run_log: Where each run is written as one line.
        closing: Expert that answers when the budget is used up; the cheapest one by default.
        fallback: Router that takes over after `max_malformed` malformed replies in a row; None ends the run there.
        max_malformed: See `fallback`.

    Raises:
        ConfigError: Something does not fit together; the text names it and the fix.
    """

    state_schema = OrchestraState

    def __init__(
        self,
        router: BaseChatModel,
        experts: Mapping[str, BaseChatModel | str] | Sequence[Expert],
        *,
        catalog: Catalog | None = None,
        preferences: Preferences | None = None,
        budget: Budget | None = None,
        protocol: Protocol | None = None,
        constraint: Constraint | Literal["auto"] | None = "auto",
        run_log: RunLog | None = None,
        closing: str | None = None,
        fallback: BaseChatModel | Literal["rules"] | None = "rules",
        max_malformed: int = 3,
    ) -> None:
        super().__init__()
        self.tools = []
        seated = seated_experts(experts)
        lines, prices = split_catalog(catalog, seated)
        engine = make_engine(
            router,
            seated,
            catalog=lines,
            preferences=preferences,
            budget=budget,
            protocol=checked(protocol or spoken_by(router, SYSTEM)),
            constraint=constraint,
            run_log=run_log,
            closing=closing,
            fallback=fallback,
            max_malformed=max_malformed,
            is_heard=False,
        )
        models = {name: expert.model for name, expert in seated.items()}
        self._books = threading.Lock()
        self._parts = Parts(engine, Portal(), models, prices, is_program=isinstance(router, ProgramRouter))

    # A run.

    def before_agent(self, state: OrchestraState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Begin a run, in a step of its own: what can be resumed is written down before anything is paid."""
        run = begin(self._parts.engine, state["messages"], ours_of(runtime.context))
        return {"run": run, "turns": Overwrite({}), "ledger": None, "stopped_by": None}

    async def abefore_agent(self, state: OrchestraState, runtime: Runtime[Any]) -> dict[str, Any]:
        """See `before_agent`."""
        return self.before_agent(state, runtime)

    def after_agent(self, state: OrchestraState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Close the books of the run, if one began: a middleware before this one may have ended the agent at once."""
        if state.get("run") is None or state.get("ledger") is not None:
            return {"run": None, "turns": Overwrite({}), "ledger": None, "stopped_by": None}
        ended = self._closed(state, state["messages"])
        self._parts.runs.pop(ended["run"]["id"], None)
        return ended

    async def aafter_agent(self, state: OrchestraState, runtime: Runtime[Any]) -> dict[str, Any]:
        """See `after_agent`."""
        return self.after_agent(state, runtime)

    def _closed(self, state: OrchestraState, messages: list[AnyMessage]) -> dict[str, Any]:
        """Close the books of a run that ends with these messages; returns the writes that say so."""
        parts, run = self._parts, _run_of(state)
        completed = settled(parts, run, state["turns"], messages)
        turns = {**state["turns"], **completed}
        watch, graph = watch_here()
        last = next(reversed(turns.values()), None) or bare_turn(run, 0, {})
        charges = parts.charges_of(watch.claim(graph), last["id"], run)
        if charges:
            turns[last["id"]] = completed[last["id"]] = with_charges(last, charges)
        answer = agent_answer(messages)
        ended = finish(parts.engine, state_of(run, turns, messages), turns, answer, state.get("stopped_by") or "answer")
        header = {**run, "answer": answer}
        completed = {**completed, **ended["turns"]}
        return {"run": header, "turns": completed, "ledger": ended["ledger"], "stopped_by": ended["stopped_by"]}

    # Its steps.

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Let the router choose an expert, and ask it."""
        with spans.enter() or nullcontext():
            step = ModelStep(self._parts, _run_of(request.state), request)
            while step.is_undecided:
                step.take(step.router.invoke(step.state))
            for seat in step.seats():
                with seat:
                    seat.response = handler(seat.request)
            return step.result()

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """See `wrap_model_call`."""
        with spans.enter() or nullcontext():
            step = ModelStep(self._parts, _run_of(request.state), request)
            async with step.deciding:
                while step.is_undecided:
                    step.take(await step.router.ainvoke(step.state))
            for seat in step.seats():
                with seat:
                    seat.response = await within(seat.seconds, partial(handler, seat.request))
            return step.result()

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Charge a tool, and what it calls."""
        with spans.enter() or nullcontext():
            step = ToolStep(self._parts, _run_of(request.state), request)
            if step.refusal is not None:
                return step.refused()
            with step:
                step.returned = handler(step.request)
            return self._after_tool(step, request.state)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """See `wrap_tool_call`."""
        with spans.enter() or nullcontext():
            step = ToolStep(self._parts, _run_of(request.state), request)
            if step.refusal is not None:
                return step.refused()
            with step:
                step.returned = await handler(step.request)
            return self._after_tool(step, request.state)

    def _after_tool(self, step: ToolStep, state: Any) -> ToolMessage | Command[Any]:
        """What the tool returned; where it hands over to another agent, this one never comes to its end."""
        result = step.result()
        if step.hands_over and step.message is not None:
            # What the run has paid stays known: another tool of the same message may hand over as well, in a thread of
            # its own, and whoever counted last has to write last.
            with self._books:
                self._closed(state, [*state["messages"], step.message])
        return result


def _run_of(state: Any) -> RunHeader:
    run: RunHeader | None = state.get("run")
    if run is None:
        raise ConfigError("the thread holds a run that began without OrchestraMiddleware; start it anew")
    return run
