"""A node of somebody else's graph as a destination of the router.

The node runs as it did: with its own state, config, runtime, store and writer, its own retry, cache and timeout. Around
it stands a meter, so that what it spends on models is charged to it, and what it returns goes out beside a report to
the router. When the graph enters the node by an edge of its own, nothing of this happens.

A `ToolError` that it raises is told to the router, unless the node is terminal and its edges lead on: the graph cannot
do without it. That one, and every other exception, goes the way it went before: to the node's retry policy, its error
handler, the caller; what the failed attempts cost is charged to the next one. What the node's own error handler returns
goes out beside a report as well. Where the budget does not pay for one more attempt, it is not made, and the router is
told, with the same exception.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.errors import GraphInterrupt, NodeError, ParentCommand
from langgraph.types import Command

from orchestra_graph import spans, tracing
from orchestra_graph.billing import describe
from orchestra_graph.budgeting import less, shortage
from orchestra_graph.catalog import ModelSpec
from orchestra_graph.deadlines import within
from orchestra_graph.engine import Engine
from orchestra_graph.errors import ToolError
from orchestra_graph.graph_state import CALL, REPORT, TURNS, Report, as_orchestrator, changes, users_state, writes_of
from orchestra_graph.journal import worked_seconds
from orchestra_graph.lifecycle import finish
from orchestra_graph.meter import Meter
from orchestra_graph.progress import tell_outcome
from orchestra_graph.state import CallTask
from orchestra_graph.text import clean
from orchestra_graph.turns import Charge, Outcome, merge_turns

Show = Callable[[dict[str, Any]], str]
"""From what a destination changed, by channel, to what the router reads."""


class DestinationNode(RunnableLambda[Any, Any]):
    """Stands in the graph in place of the user's node.

    A `RunnableLambda`, because LangGraph finds a graph that is a node, or that a node calls, by that class's `deps`.

    Args:
        name: Name of the node.
        runnable: The node as it was.
        schema: What it reads.
        engine: The parts of the router's runs; its catalog has a line for the node.
        router: Name of the router's node.
        show: Words what the node changed.
        leads_on: Whether edges lead from it to other nodes: it then cannot fail without the graph.
    """

    def __init__(
        self,
        name: str,
        runnable: Runnable[Any, Any],
        schema: type[Any],
        *,
        engine: Engine,
        router: str,
        show: Show,
        leads_on: bool,
    ) -> None:
        super().__init__(self.invoke, self.ainvoke, name=name)
        self.spec = engine.catalog.tools[name]
        self.billed: ModelSpec = self.spec
        self.engine = engine
        self.router = router
        self.show = show
        self.leads_on = leads_on
        self._runnable = runnable
        self._schema = schema

    @property
    def deps(self) -> list[Runnable[Any, Any]]:
        """Where LangGraph looks for graphs; a cached property in the base."""
        return [self._runnable]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the node."""
        state, task = self.unpacked(input)
        if task is None:
            return self._runnable.invoke(state, config, **kwargs)
        with spans.enter() or nullcontext():
            visit = _Visit(self, task, state, self._failure(config))
            with visit.kept():
                if visit.is_sent:
                    with visit.metered():
                        visit.result = self._runnable.invoke(state, config, **kwargs)
                visit.come_back()
            return visit.writes(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the node."""
        state, task = self.unpacked(input)
        if task is None:
            return await self._runnable.ainvoke(state, config, **kwargs)
        with spans.enter() or nullcontext():
            visit = _Visit(self, task, state, self._failure(config))
            with visit.kept():
                if visit.is_sent:
                    node = partial(self._runnable.ainvoke, state, config, **kwargs)
                    with visit.metered():
                        visit.result = await within(visit.seconds, node)
                visit.come_back()
            return visit.writes(input)

    def unpacked(self, input: Any) -> tuple[Any, CallTask | None]:
        """What the node reads, and the call, where the router sent it."""
        if not isinstance(input, dict) or TURNS not in input:
            return input, None  # sent by the graph itself, with an input of its own
        task: CallTask | None = input.get(CALL)
        called = task is not None and task["call"]["tool"] == self.spec.name
        return users_state(input, self._schema), task if called else None

    def _failure(self, config: RunnableConfig | None) -> str | None:
        """What the node failed with before this one took over."""
        return None


class HandlerNode(DestinationNode):
    """Stands in place of a destination's own error handler, which answers for it.

    Where it comes back to the router, that of a terminal one by naming it, the router is told the failure, and what the
    handler changed. What it spends on models is charged to the destination; the price of a call is not, since the
    attempts that failed bear it. An error of its own goes to the caller, as before.
    """

    def __init__(self, name: str, runnable: Runnable[Any, Any], schema: type[Any], **options: Any) -> None:
        super().__init__(name, runnable, schema, leads_on=True, **options)
        price = self.spec.price.model_copy(update={"per_call": 0.0})
        self.billed = ModelSpec(model=self.spec.model, price=price, limits=self.spec.limits)

    def _failure(self, config: RunnableConfig | None) -> str | None:
        # LangGraph hands the error down under a key of its own; of one from a checkpoint there is only the text.
        told = (config or {}).get("configurable", {}).values()
        error = next(value.error for value in told if isinstance(value, NodeError))
        return describe(error if isinstance(error, BaseException) else ToolError(error))


class _Visit:
    """One run of a destination that the router sent, or of its error handler, which is told the failure."""

    def __init__(self, node: DestinationNode, task: CallTask, state: Any, failure: str | None) -> None:
        self._node = node
        self._engine = node.engine
        self._task = task
        self._state = state
        self._failure = failure
        self._started = time.perf_counter()
        first, self._charges = self._engine.earlier(task["run"]["id"], task["call"]["id"])
        self._worked = worked_seconds(self._charges)
        self._meter = Meter(
            task["call"]["id"],
            node.spec.name,
            node.billed,
            price_of=self._engine.price_of,
            journal=self._engine.journal(task["run"]["id"]),
            first=first,
            left=less(task["left"], self._charges, self._worked),
        )
        self._error: str | None = None
        if self._charges and not node.leads_on:
            texts = [task["run"]["question"]]
            self._error = shortage(node.spec, texts, task["left"], self._charges, self._worked)
        self.is_sent = self._error is None
        """Whether the node runs: the budget pays for one more attempt, where there were some before."""
        self._handover: ParentCommand | None = None
        self._report: Report = {}
        self._leaves = False
        self.result: Any = None

    @property
    def seconds(self) -> float:
        """How long the node may take: what its catalog line states, and what is left of the run's time."""
        limits = self._node.spec.limits
        stated = limits.timeout if "timeout" in limits.model_fields_set else math.inf
        return min(stated, self._left)

    @property
    def _left(self) -> float:
        """Seconds of the run; a node that cannot fail without the graph takes what it needs."""
        left = self._task["left"]["seconds"]
        return math.inf if left is None or self._node.leads_on else max(0.0, left - self._worked)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Hold what was paid when an exception takes the writes of this visit with it."""
        run_id, log = self._task["run"]["id"], self._engine.run_log
        try:
            yield
        except BaseException as error:
            self._engine.keep(run_id, self._task["turn"], self._task["call"]["id"], self._paid)
            if log is not None and isinstance(error, GraphInterrupt):
                log.journal(run_id, {"kind": "waiting", "call": self._task["call"]["id"]})
            raise

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Charge what happens inside."""
        try:
            with self._meter.attempt():
                try:
                    yield
                except ParentCommand as handover:  # a graph inside the node hands over: no failure
                    self.result, self._handover = handover.args[0], handover
        except ToolError as error:
            if self._node.leads_on:
                raise
            self._error = describe(error)

    def come_back(self) -> None:
        """Word what the node brought, and tell it."""
        commands = [part for part in _parts(self.result) if isinstance(part, Command)]
        self._leaves = any(command.graph == Command.PARENT for command in commands)
        targets = [to for command in commands for to in _goto(command)]
        goes_on = self._leaves or any(to != self._node.router for to in targets)
        asks_again = self._failure is not None and self._node.router in targets
        call, charges = self._task["call"], self._paid
        outcome = self._outcome(ends=goes_on or (self._node.spec.terminal and not asks_again))
        tracing.called(call["tool"], self._task, outcome, charges)
        tell_outcome(self._engine, self._task["run"]["id"], self._task["turn"], call, outcome, charges)
        self._report = {"call": call, "outcome": outcome, "charges": charges}

    def writes(self, values: Mapping[str, Any]) -> Any:
        """What the node returned, and beside it the report to the router.

        Raises:
            ParentCommand: Where a graph inside the node handed over in this way, with the report added.
        """
        if self._leaves:
            self._finish(values)
            if self._handover is not None:
                raise self._handover
            return self.result
        if self._handover is not None:
            update = [*_pairs(self.result.update), (REPORT, self._report)]
            goto = [*_goto(self.result), self._node.router]
            raise ParentCommand(replace(self.result, update=update, goto=goto))
        return [*_parts(self.result), Command(update={REPORT: self._report}, goto=self._node.router)]

    @property
    def _paid(self) -> dict[str, Charge]:
        return self._charges | self._meter.charges

    def _outcome(self, *, ends: bool) -> Outcome:
        clock = time.perf_counter() - self._started
        # Modelled time cannot be cut off while it passes; what is beyond the deadline would not have been waited for.
        # What the clock says has been, also in a sync graph, where no deadline cuts a node off.
        seconds = self._worked + min(max(0.0, clock + self._meter.shift), max(clock, self._left))
        if self._error is not None:
            return {"content": clean(self._error), "error": True, "seconds": seconds}
        content = clean(self._node.show(changes(self.result, self._state)))
        if self._failure is not None and not ends:
            return {"content": f"{clean(self._failure)}\n{content}", "error": True, "seconds": seconds}
        outcome: Outcome = {"content": content, "error": False, "seconds": seconds}
        return {**outcome, "answer": content} if ends else outcome

    def _finish(self, values: Mapping[str, Any]) -> None:
        """End the run here: the node leaves the graph, which takes back all that this step writes."""
        run, turn_id, report = self._task["run"], self._task["turn"], self._report
        part = {
            "id": turn_id,
            "outcomes": {report["call"]["id"]: report["outcome"]},
            "charges": report["charges"],
        }
        turns = merge_turns(values[TURNS], {turn_id: part})
        finish(self._engine, as_orchestrator(run, turns), turns, report["outcome"]["answer"], "answer")


def without_report(output: Any) -> Any:
    """What a node returned, without what goes out beside it."""
    last = output[-1] if isinstance(output, list) and output else None
    if not (isinstance(last, Command) and isinstance(last.update, dict) and REPORT in last.update):
        return output
    return output[0] if len(output) == 2 else output[:-1]


def _parts(result: Any) -> list[Any]:
    return list(result) if isinstance(result, list | tuple) else [result]


def _goto(command: Command[Any]) -> list[Any]:
    return list(command.goto) if isinstance(command.goto, list | tuple) else [command.goto]


def _pairs(update: Any) -> list[Any]:
    """An update as pairs of channel and value, where a channel may come twice."""
    return list(update) if isinstance(update, list | tuple) else list(writes_of(update).items())
