"""One call of the agent's own tools: checked against the budget, each try charged, the cost written with the result."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

from langchain.agents.middleware import ToolCallRequest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from orchestra_graph.budgeting import Purse, less, shortage
from orchestra_graph.catalog import Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.journal import worked_seconds
from orchestra_graph.meter import Meter
from orchestra_graph.middleware.parts import Charges, Parts
from orchestra_graph.middleware.settle import arguments, lost, newest, tool_turn
from orchestra_graph.progress import tell_outcome
from orchestra_graph.state import STAMP, RunHeader
from orchestra_graph.text import clean
from orchestra_graph.turns import Call, Outcome, Turn


class ToolStep:
    """One call; the agent's handler is called within it.

    Args:
        parts: The agent's.
        run: The run's header.
        request: The agent's.

    Attributes:
        request: What the handler is called with.
        returned: To be set to what it returns: a tool message, a command with one in it, or a list of these.
        message: The call's result with its cost, once `result` was asked for.
    """

    def __init__(self, parts: Parts, run: RunHeader, request: ToolCallRequest) -> None:
        self._parts = parts
        self._run = run
        self._asked = request.tool_call
        turns: dict[str, Turn] = request.state.get("turns") or {}
        turns = {**turns, **lost(parts, run, turns, request.state["messages"])}
        self._turn, self._call = self._place(turns, request)
        self._spec = self._line(self._asked["name"])
        self._made = parts.made(run, self._call["id"])
        self._meters: list[Meter] = []
        self._started = time.perf_counter()
        self._worked = worked_seconds(self._made.charges)
        purse = Purse(parts.engine.setup(run), turns, run["question"], parts.engine.closing)
        purse.share_among(self._line(call["tool"]) for call in self._turn["decision"]["calls"])
        self._left = purse.for_call(self._spec)
        self.refusal = self._shortage() if self._made.charges else self._refusal(purse)
        self.returned: Any = None
        self.message: ToolMessage | None = None
        tool = request.tool
        self.request = request if tool is None else request.override(tool=MeteredTool.around(tool, self))

    def __enter__(self) -> ToolStep:
        self._started = time.perf_counter()
        return self

    def attempt(self) -> AbstractContextManager[None]:
        """One try of the tool, to be entered; on a meter of its own, since others may make several side by side."""
        engine, run_id = self._parts.engine, self._run["id"]
        meter = Meter(
            self._call["id"],
            self._spec.name,
            self._spec,
            price_of=engine.price_of,
            journal=engine.journal(run_id),
            first=next(self._made.tries),
            left=less(self._left, self._charges, self._taken),
        )
        self._meters.append(meter)
        return meter.attempt()

    def refused_attempt(self) -> ToolMessage | None:
        """The result of a further try that the budget does not pay for; the first was checked with the call."""
        refusal = self._shortage() if self._meters else None
        return None if refusal is None else self._as_result(refusal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds = self._taken
        self._made.charges |= self._charges
        engine, run_id = self._parts.engine, self._run["id"]
        if error is not None:
            engine.keep(run_id, self._turn["id"], self._call["id"], self._charges)
        if engine.run_log is not None and isinstance(error, GraphBubbleUp):
            engine.run_log.journal(run_id, {"kind": "waiting", "call": self._call["id"]})

    def refused(self) -> ToolMessage:
        """The result of a call that the budget does not pay for."""
        about: dict[str, Any] = {"seconds": self._worked} if self._made.charges else {"unsent": True, "seconds": 0.0}
        stamped: ToolMessage = self._stamped(self._as_result(self.refusal or ""), about)
        return stamped

    def result(self) -> ToolMessage | Command[Any]:
        """What the handler returned, with the cost on its message."""
        about: dict[str, Any] = {"seconds": self._seconds}
        args = arguments(self._asked["args"])
        if args != self._call["args"]:  # a person has changed them
            about["args"] = args
        if self._asked["name"] != self._call["tool"]:
            about["by"] = self._asked["name"]
        stamped: ToolMessage | Command[Any] = self._stamped(self.returned, about)
        if self.hands_over and self.message is None:
            self._stamped(ToolMessage("handed over", tool_call_id=self._asked["id"] or ""), about)
        return stamped

    @property
    def hands_over(self) -> bool:
        """Whether the tool goes on in the graph around the agent, which takes back all that this step writes."""
        returned = self.returned if isinstance(self.returned, list) else [self.returned]
        return any(isinstance(part, Command) and part.graph == Command.PARENT for part in returned)

    @property
    def _charges(self) -> Charges:
        """Of all tries of the call so far."""
        return self._made.charges | {key: charge for meter in self._meters for key, charge in meter.charges.items()}

    @property
    def _taken(self) -> float:
        """Seconds of the run that the call took, those of its earlier tries among them."""
        shift = sum(meter.shift for meter in self._meters)
        return self._worked + time.perf_counter() - self._started + shift

    def _as_result(self, refusal: str) -> ToolMessage:
        asked = self._asked
        return ToolMessage(refusal, tool_call_id=asked["id"] or "", name=asked["name"], status="error")

    def _stamped(self, returned: Any, about: dict[str, Any]) -> Any:
        if isinstance(returned, list):
            return [self._stamped(part, about) for part in returned]
        if isinstance(returned, Command) and isinstance(returned.update, dict) and "messages" in returned.update:
            messages = [self._stamped(message, about) for message in returned.update["messages"]]
            return replace(returned, update={**returned.update, "messages": messages})
        if not isinstance(returned, ToolMessage) or returned.tool_call_id != self._asked["id"]:
            return returned
        outcome: Outcome = {"content": clean(returned.text), "error": returned.status == "error", **about}  # type: ignore[typeddict-item]
        charges = self._charges
        tell_outcome(self._parts.engine, self._run["id"], self._turn["id"], self._call, outcome, charges)
        stamp = {"charges": charges, "outcome": about}
        metadata = {**returned.response_metadata, STAMP: stamp}
        self.message = returned.model_copy(update={"response_metadata": metadata})
        return self.message

    def _place(self, turns: dict[str, Turn], request: ToolCallRequest) -> tuple[Turn, Call]:
        """The turn that the call belongs to, and its place in it; arguments as they are sent."""
        said, _ = newest(request.state["messages"])
        turn = tool_turn(self._run, turns, said or AIMessage(""))
        calls = {call.get("tool_call_id"): call for call in turn["decision"]["calls"]}
        if self._asked["id"] not in calls:
            ids = list(calls)
            raise ConfigError(f"{self._asked!r} is no call of the newest message of the agent; expected one of {ids}")
        return turn, calls[self._asked["id"]]

    def _refusal(self, purse: Purse) -> str | None:
        """Why the call cannot be sent, or None; calls of the same message are paid in its order."""
        refusal = None
        for call in self._turn["decision"]["calls"]:
            refusal = purse.reserve(self._line(call["tool"]), [])
            if call["id"] == self._call["id"]:
                break
        return refusal

    def _shortage(self) -> str | None:
        """Why the budget does not pay for one more try, or None."""
        return shortage(self._spec, [], self._left, self._charges, self._taken)

    def _line(self, name: str) -> ToolSpec:
        return self._parts.prices.get(name) or ToolSpec.model_construct(name=name, price=Price())


class MeteredTool(BaseTool):
    """A tool whose every try is an attempt, also those that other middleware makes; each further one is checked."""

    wrapped: Any
    step: Any

    @classmethod
    def around(cls, tool: BaseTool, step: ToolStep) -> MeteredTool:
        """The same tool to whoever looks at it."""
        shown = ("name", "description", "args_schema", "return_direct", "tags", "metadata", "extras", "response_format")
        return cls(**{field: getattr(tool, field) for field in shown}, wrapped=tool, step=step)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke the tool."""
        refused = self.step.refused_attempt()
        if refused is not None:
            return refused
        with self.step.attempt():
            return self.wrapped.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke the tool."""
        refused = self.step.refused_attempt()
        if refused is not None:
            return refused
        with self.step.attempt():
            return await self.wrapped.ainvoke(input, config, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a metered tool is invoked")
