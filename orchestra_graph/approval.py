"""Asks a person before a call is sent: approve it, edit its arguments, or reject it.

The graph is interrupted in the call's own task, before anything of the call is paid; siblings go on. Requests and
answers have the form of LangChain's `HumanInTheLoopMiddleware` in its mode `per_call`, so that user interfaces made for
it work here:

    state = graph.invoke(question, config, version="v2")
    answers = {i.id: {"type": "approve"} for i in state.interrupts}
    graph.invoke(Command(resume=answers), config)

Interrupts need a checkpointer. The time that a person takes counts neither for the budget nor for the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, NotRequired

from langgraph.types import interrupt
from pydantic import Discriminator, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.mend import plain, show
from orchestra_graph.text import estimate_tokens
from orchestra_graph.turns import Call

Approve = Mapping[str, bool | float] | float
"""By tool: True, or dollars above which a call is asked for; or such a threshold for all tools."""

NO_REASON: Final = "no reason was given; do not send it again"


class ApprovalRequest(TypedDict):
    """What a person is asked; the value of the interrupt."""

    type: Literal["tool_approval"]
    tool_call_id: str
    name: str
    args: dict[str, Any]
    description: str
    dollars: float | None
    """The most that one attempt can cost: a graph all that it is given, None where the run has no budget of dollars."""
    problem: NotRequired[str]
    """What was wrong with the last answer."""


class _Approved(TypedDict):
    type: Literal["approve"]


class _Action(TypedDict):
    name: str
    args: dict[str, Any]


class _Edited(TypedDict):
    type: Literal["edit"]
    edited_action: _Action


class _Rejected(TypedDict):
    type: Literal["reject"]
    message: NotRequired[str]


@cache
def _answers() -> TypeAdapter[_Approved | _Edited | _Rejected]:
    return TypeAdapter(Annotated[_Approved | _Edited | _Rejected, Discriminator("type")])


@dataclass(frozen=True, slots=True)
class Approval:
    """Which calls a person is asked for."""

    over: Mapping[str, float]
    """Dollars that one attempt of a call may cost without being asked for, by tool; others are sent as they are."""

    @classmethod
    def of(cls, approve: Approve, catalog: Catalog) -> Approval:
        """Check what a user asked for against the catalog.

        Raises:
            ConfigError: A name is no tool, a threshold is no price, or a tool with a threshold has no price.
        """
        wanted = dict(approve) if isinstance(approve, Mapping) else dict.fromkeys(catalog.tools, approve)
        over: dict[str, float] = {}
        for name, limit in wanted.items():
            spec = catalog.tools.get(name)
            if spec is None:
                raise ConfigError(f"approve: {name!r} is no tool; expected one of {', '.join(catalog.tools)}")
            if isinstance(limit, bool):
                if limit:
                    over[name] = -1.0
                continue
            if not isinstance(limit, int | float) or not limit >= 0:
                raise ConfigError(f"approve: {name} = {limit!r}; expected True, False, or dollars of at least 0")
            if spec.is_unpriced:
                raise ConfigError(
                    f"approve: {name} = {limit!r} asks by price, and the price of {name} is unknown; "
                    f"state it in the catalog, or ask for every call: {{{name!r}: True}}"
                )
            over[name] = float(limit)
        return cls(over)

    def is_needed(self, spec: ToolSpec, left: float | None, texts: Iterable[str] | None = None) -> bool:
        """Whether a call has to be asked for; the arguments are those of `most_dollars`."""
        limit = self.over.get(spec.name)
        if limit is None:
            return False
        most = most_dollars(spec, left, texts)
        return most is None or most > limit

    def review(self, spec: ToolSpec, call: Call, left: float | None, texts: Iterable[str]) -> dict[str, Any] | str:
        """Ask a person; an answer that cannot be used is asked for again, with what is wrong with it.

        Args:
            spec: The tool.
            call: What the router would have it do.
            left: See `most_dollars`.
            texts: See `most_dollars`.

        Returns:
            The arguments that may be sent, or why the call was rejected.

        Raises:
            GraphInterrupt: Nobody has answered yet.
            ConfigError: The arguments of an edit cannot be stored. The call waits for another answer.
        """
        request: ApprovalRequest = {
            "type": "tool_approval",
            "tool_call_id": call["id"],
            "name": spec.name,
            "args": call["args"],
            "description": spec.description,
            "dollars": most_dollars(spec, left, texts),
        }
        while True:
            try:
                answer = _answers().validate_python(interrupt(request))
            except ValidationError as error:
                request = {**request, "problem": _problem(error)}
                continue
            if answer["type"] == "reject":
                return answer.get("message") or NO_REASON
            if answer["type"] == "approve":
                return call["args"]
            args: dict[str, Any]
            args, fault = plain(answer["edited_action"]["args"])
            if fault is not None:
                # A checkpoint could not hold this answer either, as it would have to where it is asked for again.
                raise ConfigError(f"edited_action.args = {show(args)}: {fault}; fix: answer with other arguments")
            problem = _unfit(spec, answer["edited_action"]["name"], args)
            if problem is None:
                return args
            request = {**request, "problem": problem}


def most_dollars(spec: ToolSpec, left: float | None, texts: Iterable[str] | None) -> float | None:
    """The most that one attempt of a call can cost: the longest reply, all of its time; a graph all that it is given.

    Args:
        spec: The tool.
        left: Dollars that the call is given, None for no bound.
        texts: What it reads; None for all that its context holds.
    """
    if spec.is_open_ended:
        return left
    limits = spec.limits
    read = limits.context_tokens if texts is None else estimate_tokens(list(texts))
    most = spec.price.dollars(input_tokens=read, output_tokens=limits.output_tokens, calls=1, seconds=limits.timeout)
    return most if spec.retrieval is None else most + spec.retrieval.dollars(calls=1, seconds=limits.timeout)


def _unfit(spec: ToolSpec, name: str, args: dict[str, Any]) -> str | None:
    if name != spec.name:
        return f"edited_action.name = {name!r}; expected {spec.name!r}: reject the call to have another one"
    errors = [error.message for error in spec.validator.iter_errors(args)]
    return f"edited_action.args = {args!r}: {'; '.join(errors)}" if errors else None


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the answer"
    return f'{place} = {first["input"]!r}: {first["msg"]}; expected {{"type": "approve"}}, "edit" or "reject"'
