"""The task of one call: cache, tries, fallback tools, and the outcome with its charges."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.cache.base import BaseCache
from langgraph.errors import GraphBubbleUp

from orchestra_graph import tracing
from orchestra_graph.attempts import DeadlineError, send
from orchestra_graph.billing import describe, is_refusal, is_transient
from orchestra_graph.budgeting import less, shortage
from orchestra_graph.catalog import ToolSpec
from orchestra_graph.engine import Engine
from orchestra_graph.errors import ToolError
from orchestra_graph.evidence import Evidence, shown_to, texts_of
from orchestra_graph.journal import worked_seconds
from orchestra_graph.meter import Meter
from orchestra_graph.node import Node
from orchestra_graph.portal import Portal
from orchestra_graph.progress import tell_outcome
from orchestra_graph.runlog.encoding import storable
from orchestra_graph.state import BudgetLeft, CallTask, RunHeader
from orchestra_graph.text import clean
from orchestra_graph.tools.base import Finding, Request, Result
from orchestra_graph.turns import Call, Charge, Outcome

_log = logging.getLogger("orchestra_graph")

REJECTED: Final = "a person rejected the call: {why}"

_CACHE_NAMESPACE = ("orchestra_graph", "calls")


class CallNode(Node):
    """Node of one tool; each call of it is a task of its own."""

    owns_graph = True

    def __init__(self, tool: str, engine: Engine, portal: Portal) -> None:
        super().__init__(tool, portal)
        self._engine = engine
        self.tool = engine.tools[tool]

    async def step(self, state: CallTask, config: RunnableConfig) -> dict[str, Any]:
        """Carry out one call and write its outcome and charges into its turn."""
        run_id, turn_id, call = state["run"]["id"], state["turn"], state["call"]
        execution = Execution(self._engine, state)
        outcome = await execution.carry_out()
        tracing.called(call["tool"], state, outcome, execution.charges)
        tell_outcome(self._engine, run_id, turn_id, call, outcome, execution.charges)
        update = {"id": turn_id, "outcomes": {call["id"]: outcome}, "charges": execution.charges}
        return {"turns": {turn_id: update}}


class Execution:
    """One call on its way to an outcome: from the cache, by its tool, or by that tool's fallbacks.

    Attributes:
        charges: One for every attempt made so far.
    """

    def __init__(self, engine: Engine, task: CallTask) -> None:
        self._engine = engine
        self._task = task
        self._call = task["call"]
        self._catalog = engine.setup(task["run"]).catalog
        self._seconds = _or_infinity(task["left"]["seconds"])
        self._started = time.perf_counter()
        self.seconds = 0.0
        """Seconds of the run that the call took, once it has been carried out."""
        self._first, self.charges = engine.earlier(task["run"]["id"], self._call["id"])
        self._shift = worked_seconds(self.charges)

    async def carry_out(self) -> Outcome:
        """Carry out the call; every failure ends in an outcome that the router reads."""
        run_id, log = self._task["run"]["id"], self._engine.run_log
        try:
            return await self._carry_out()
        except BaseException as error:  # an interrupt, a cancelled run, the end of the process: not the tool's failure
            self._engine.keep(run_id, self._task["turn"], self._call["id"], self.charges)
            if log is not None and isinstance(error, GraphBubbleUp):
                log.journal(run_id, {"kind": "waiting", "call": self._call["id"]})
            raise

    async def _carry_out(self) -> Outcome:
        spec = self._catalog.tools[self._call["tool"]]
        cache = self._engine.cache if spec.cache else None
        key = self._cache_key(spec) if cache is not None else None
        if cache is not None and key is not None:
            hit = await self._cached(cache, key)
            if hit is not None:
                self.charges[f"{self._call['id']}#{self._first}"] = {
                    "tool": spec.name,
                    "status": "cached",
                    "dollars": 0.0,
                    "seconds": 0.0,
                }
                return {**hit, "cached": True, "seconds": 0.0}
        approval, left, edited = self._engine.approval, self._task["left"]["dollars"], None
        if approval is not None and approval.is_needed(spec, left, self._texts(spec)):
            reviewed = approval.review(spec, self._call, left, self._texts(spec))
            if isinstance(reviewed, str):
                return {"content": REJECTED.format(why=reviewed), "error": True, "rejected": True, "seconds": 0.0}
            if reviewed != self._call["args"]:
                edited, key = reviewed, None
                self._call = {**self._call, "args": reviewed}
        outcome = await self._by_tools([spec.name, *(n for n in spec.fallback if n in self._catalog.tools)])
        # A fallback's answer stands in for one call only: it was made by another tool than the key says.
        if cache is not None and key is not None and not outcome["error"] and "by" not in outcome:
            try:
                await cache.aset({key: (outcome, None)})
            except Exception:  # the call was paid and its result is here
                _log.warning("the cache could not keep a result of %s", spec.name, exc_info=True)
        # Modelled time cannot be cut off while it passes; what is beyond the deadline would not have been waited for.
        self.seconds = min(max(0.0, self._elapsed()), self._seconds)
        if edited is not None:
            outcome["args"] = edited
        return {**outcome, "seconds": self.seconds}

    async def _cached(self, cache: BaseCache[Any], key: tuple[tuple[str, ...], str]) -> Outcome | None:
        """What the cache holds; a cache that fails holds nothing."""
        try:
            hit: Outcome | None = (await cache.aget([key])).get(key)
        except Exception:
            _log.warning("the cache could not be read", exc_info=True)
            return None
        return hit

    async def _by_tools(self, names: list[str]) -> Outcome:
        """The outcome of the first tool that does not fail."""
        errors: list[str] = []
        for name in names:
            prefix = "" if name == names[0] else f"{name}: "
            spec = self._catalog.tools[name]
            refusal = self._refusal(spec) if prefix else self._shortage(spec, {}) if self.charges else None
            if refusal is not None:
                errors.append(f"{prefix}{refusal}")
                continue
            try:
                outcome = _outcome(await self._by_tool(name), spec)
            except GraphBubbleUp:  # an interrupt of the graph, not a failure
                raise
            except Exception as error:
                errors.append(f"{prefix}{describe(error)}")
                if not (isinstance(error, ToolError) or is_refusal(error) or is_transient(error)):
                    # Not a provider's failure: most likely a mistake in the tool itself, whose place is worth knowing.
                    _log.warning("tool %s failed", name, exc_info=error)
                if isinstance(error, DeadlineError):
                    break
            else:
                return {**outcome, "by": name} if prefix else outcome
        return {"content": clean("; then ".join(errors)), "error": True}

    async def _by_tool(self, name: str) -> Result:
        spec, tool, run_id = self._catalog.tools[name], self._engine.tools[name], self._task["run"]["id"]
        meter = Meter(
            self._call["id"],
            name,
            spec,
            price_of=self._engine.price_of,
            journal=self._engine.journal(run_id),
            first=self._first,
        )
        request = _request(self._task["run"], self._call, self._shown(spec))

        async def attempt() -> Result:
            meter.left = self._left(meter.charges, meter.shift)
            with meter.attempt():
                return await tool.run(request)

        try:
            seconds = self._seconds - self._elapsed()
            return await send(
                attempt,
                meter=meter,
                limits=spec.limits,
                may_retry=lambda: self._shortage(spec, meter.charges) is None,
                seconds=seconds,
            )
        finally:
            self.charges |= meter.charges
            self._shift += meter.shift
            self._first = meter.next_try

    def _left(self, charges: Mapping[str, Charge], shift: float = 0.0) -> BudgetLeft:
        """What the next try may spend: what the call was given, less what its tries so far may have cost and took.

        Args:
            charges: Of the tool under way.
            shift: Seconds by which its reported time exceeds the clock's.
        """
        return less(self._task["left"], {**self.charges, **charges}, self._elapsed() + shift)

    def _refusal(self, spec: ToolSpec) -> str | None:
        """Why a fallback tool cannot take the call over, or None."""
        if not spec.validator.is_valid(self._call["args"]):
            return "cannot take these arguments"
        dollars = self._task["left"]["dollars"]
        if self._engine.approval is not None and self._engine.approval.is_needed(spec, dollars, self._texts(spec)):
            return "not sent: a person would have to be asked for it"
        return self._shortage(spec, {})

    def _shortage(self, spec: ToolSpec, charges: Mapping[str, Charge]) -> str | None:
        """Why the budget does not pay for one more try, or None; the charges are those of the tool under way."""
        made = {**self.charges, **charges}
        return shortage(spec, self._texts(spec), self._task["left"], made, self._elapsed())

    def _shown(self, spec: ToolSpec) -> Evidence:
        return shown_to(spec, self._task, self._engine, self._catalog)

    def _texts(self, spec: ToolSpec) -> list[str]:
        """What an expert reads at least."""
        return [self._task["run"]["question"], *texts_of(self._shown(spec))]

    def _cache_key(self, spec: ToolSpec) -> tuple[tuple[str, ...], str]:
        """Tool, version, arguments; question and evidence too, where the arguments are not all that the tool reads."""
        task, call = self._task, self._task["call"]
        shown, run = self._shown(spec), task["run"]
        reads_run = self._engine.tools[spec.name].reads_evidence or not call["args"]
        read = (run["conversation"], run["question"], shown.get("evidence"), shown.get("brief"))
        context = read if reads_run else None
        content = orjson.dumps((spec.name, spec.version, call["args"], context), option=orjson.OPT_SORT_KEYS)
        return _CACHE_NAMESPACE, hashlib.sha256(content).hexdigest()

    def _elapsed(self) -> float:
        """Seconds of the run since the call was sent, modelled time among them."""
        return time.perf_counter() - self._started + self._shift


def _request(run: RunHeader, call: Call, shown: Evidence) -> Request:
    return Request(
        args=call["args"],
        question=run["question"],
        conversation=run["conversation"],
        evidence=tuple(Finding(**f) for f in shown.get("evidence", ())),
        brief=shown.get("brief", ()),
        call_id=call["id"],
    )


def _outcome(result: Result, spec: ToolSpec) -> Outcome:
    outcome: Outcome = {"content": clean(result.content), "error": False}
    answer = result.answer
    if answer is None and spec.terminal and not (spec.kind == "expert" and spec.role == "answer"):
        # An expert that answers says whether it does; what others bring is their answer, where the catalog has them
        # end runs.
        answer = result.content
    if answer is not None:
        outcome["answer"] = clean(answer)
    if result.artifacts:
        outcome["artifacts"] = storable(result.artifacts)
    return outcome


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
