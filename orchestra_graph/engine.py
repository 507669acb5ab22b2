"""What the nodes of one orchestrator share: the parts that it was built from, and what follows from a run's header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Final, Literal, TypeVar

import orjson
from langchain_core.language_models import BaseChatModel
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableBinding
from langgraph.cache.base import BaseCache
from langgraph.constants import TAG_NOSTREAM

from orchestra_graph.approval import Approval
from orchestra_graph.attempts import Ask, ChatModel
from orchestra_graph.catalog import Catalog, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.journal import Journal, Started, best_known, next_try, of_owner
from orchestra_graph.kept import oldest
from orchestra_graph.meter import current_meter
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol, View
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.served import Served, ServedModel
from orchestra_graph.state import RunHeader, header_of
from orchestra_graph.tools.base import Tool
from orchestra_graph.turns import Charge, Turn

MAX_DEPTH: Final = 8
"""Orchestrators inside each other, unless a graph says otherwise."""

_MOST_KEPT = 1024

_VERSION: Final = {"weights_hash", "step"}
"""What `Served` says of the version of the weights."""

Constraint = Literal["required"]
"""A reply must be a valid call: names and arguments follow the functions' schemas."""

K = TypeVar("K")
V = TypeVar("V")


@cache
def final_answer_spec() -> ToolSpec:
    """The tool by which a router answers by itself; added where no tool of the catalog is terminal."""
    answer = {"type": "string", "description": "The answer, complete in itself."}
    return ToolSpec(
        name=FINAL_ANSWER,
        kind="function",
        description="Gives the final answer to the user and ends the run.",
        parameters={
            "type": "object",
            "properties": {"answer": answer},
            "required": ["answer"],
            "additionalProperties": False,
        },
        price=Price(),
        terminal=True,
    )


def check_spoken(protocol: Protocol, catalog: Catalog, *, fix: str) -> None:
    """Check that a protocol can speak of a catalog.

    Args:
        protocol: As the router is spoken to.
        catalog: With `final_answer`, where none of its tools ends a run.
        fix: How one of them comes to end it.

    Raises:
        ConfigError: Names the line that does not fit.
    """
    try:
        protocol.check(catalog)
    except ConfigError as error:
        if protocol.answers or FINAL_ANSWER not in catalog.tools:
            raise
        raise ConfigError(f"{error}; {FINAL_ANSWER!r} is there because no tool ends a run; fix: {fix}") from error


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run's header says, validated once."""

    catalog: Catalog
    """Without the tools that must never be called."""
    preferences: Preferences
    budget: Budget

    @property
    def is_bounded(self) -> bool:
        """Whether dollars or seconds are limited."""
        return not (math.isinf(self.budget.dollars) and math.isinf(self.budget.seconds))


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of an orchestrator."""

    catalog: Catalog
    tools: Mapping[str, Tool]
    router: BaseChatModel
    fallback: BaseChatModel | None
    fallback_spec: ModelSpec
    protocol: Protocol
    constraint: Constraint | None
    approval: Approval | None
    preferences: Preferences
    budget: Budget
    closing: str | None
    max_malformed: int
    run_log: RunLog | None
    cache: BaseCache[Any] | None
    max_depth: int = MAX_DEPTH
    """Orchestrators that may be inside each other, this one among them."""
    is_heard: bool = True
    """Whether `stream_mode="messages"` has what router and fallback say."""
    fallback_protocol: Protocol = field(default_factory=ConversationProtocol)
    started: Started = field(default_factory=Started)
    """Runs that began in this process; the journal of any other is read."""
    _unwritten: dict[str, dict[str, Charge]] = field(default_factory=dict)
    _earlier: dict[str, dict[str, Charge]] = field(default_factory=dict)
    """By call, what `earlier` found, for runs nested in it."""
    _bound: dict[tuple[bool, int, str | None], tuple[Ask, list[dict[str, Any]]]] = field(default_factory=dict)
    _by_run: dict[str, Setup] = field(default_factory=dict)
    _by_content: dict[bytes, Setup] = field(default_factory=dict)

    def setup(self, run: RunHeader) -> Setup:
        """Validated preferences, budget and catalog of a run; kept for runs with the same ones."""
        setup = self._by_run.get(run["id"])
        if setup is None:
            key = orjson.dumps((run["preferences"], run["budget"]))
            setup = self._by_content.get(key)
            if setup is None:
                setup = self._make_setup(run)
                _keep(self._by_content, key, setup)
            _keep(self._by_run, run["id"], setup)
        return setup

    def _make_setup(self, run: RunHeader) -> Setup:
        preferences = Preferences.model_validate(run["preferences"])
        budget = Budget.model_validate(run["budget"])
        return Setup(catalog=self.catalog_for(preferences), preferences=preferences, budget=budget)

    def catalog_for(self, preferences: Preferences) -> Catalog:
        """The catalog without the tools that must never be called, and with a way to answer.

        Raises:
            ConfigError: The preferences name no tool of the catalog, or leave what the protocol cannot speak of.
        """
        catalog = preferences.apply(self.catalog)
        if catalog is self.catalog:
            return catalog
        if not catalog.terminals:
            catalog = Catalog.of([*catalog.tools.values(), final_answer_spec()], router=catalog.router)
        never = list(preferences.never)
        check_spoken(self.protocol, catalog, fix=f"leave one that does out of preferences.never = {never}")
        return catalog

    def asking(self, run: RunHeader, view: View, *, fallback: bool = False) -> Ask:
        """How to ask the router, or its fallback, with a view's functions bound and the protocol's parameters.

        Kept as long as protocols give the same list of functions.
        """
        constraint = None if fallback or not view.tools else self.constraint_of(run)
        key = (fallback, id(view.tools), constraint)
        kept = self._bound.get(key)
        if kept is None:
            # The list is kept with it, so that its id stays its own.
            kept = (self._asking(view.tools, constraint, fallback), view.tools)
            _keep(self._bound, key, kept)
        return kept[0]

    def _asking(self, functions: list[dict[str, Any]], constraint: str | None, fallback: bool) -> Ask:
        # By the request, not by a copy of the model: the user may go on changing it, as a training changes its version.
        options: dict[str, Any] = {} if self.is_heard else {"config": {"tags": [TAG_NOSTREAM]}}
        if fallback and self.fallback is not None:
            if not functions:
                return partial(self.fallback.ainvoke, **options)
            return _unwrapped(self.fallback.bind_tools(functions), options)
        parameters = dict(self.protocol.sampling)
        if constraint is not None:
            parameters["tool_choice"] = constraint
        if not functions:
            return partial(self.router.ainvoke, **parameters, **options)
        return _unwrapped(self.router.bind_tools(functions, **parameters), options)

    def constraint_of(self, run: RunHeader) -> Constraint | None:
        """How the router's replies are constrained in a run.

        Never where the run will train: the server then reports the logprobs of a masked distribution, not the policy's.
        """
        return None if run.get("task", {}).get("purpose") == "train" else self.constraint

    @property
    def policy_name(self) -> str:
        """What logs and traces call the router."""
        return self.catalog.router.model or self.router.get_name()

    @property
    def policy(self) -> dict[str, Any]:
        """The router's name, and the version of its weights where it is known: `record.Policy`."""
        served = getattr(self.router, "served", None)
        known = served.model_dump(include=_VERSION, exclude_none=True) if isinstance(served, Served) else {}
        return {"name": self.policy_name, **known}

    def header(self, run: RunHeader) -> dict[str, Any]:
        """What the run log says of a run before its turns."""
        setup = self.setup(run)
        return {
            "run_id": run["id"],
            **header_of(run["question"], run.get("task", {})),
            "started_at": run["started"],
            # A run that is taken up under another catalog keeps the one that it began with: see `RunLog.finish`.
            **({"catalog": setup.catalog.json_data} if setup.catalog.hash == run["catalog_hash"] else {}),
            "catalog_hash": run["catalog_hash"],
            "preferences": run["preferences"],
            "budget": run["budget"],
            **self._served,
            # As the run began: weights and protocol may be others by now.
            "policy": run.get("policy", self.policy),
            "protocol": run.get("protocol", self.protocol.name),
            "constraint": self.constraint_of(run),
            "versions": versions(),
            **({"parent": run["parent"]} if "parent" in run else {}),
        }

    @property
    def _served(self) -> dict[str, Any]:
        """What is known of the router as it is served; the log leaves out what is not."""
        sampling = dict(self.protocol.sampling)
        if isinstance(self.router, ServedModel):
            sampling = self.router.sampling(sampling)
        served = getattr(self.router, "served", None)
        if not isinstance(served, Served):
            return {"sampling": sampling}
        known = served.model_dump(mode="json", exclude_none=True, exclude=_VERSION)
        return {**known, "sampling": {**served.sampling, **sampling}}

    def price_of(self, spec: ModelSpec, model: str | None) -> Price:
        """Price of a model request inside a tool: the tool's own, else that of a catalog line for the same model.

        A line that names its model has its price, also where that is unknown: the router was shown the same. Without a
        model it is that of the tool's line in the catalog.
        """
        if model is None and isinstance(spec, ToolSpec):
            line = self.catalog.tools.get(spec.name)
            return line.price if line is not None and line.kind == spec.kind else spec.price
        if spec.price.has_tokens or model is None or spec.model is not None:
            return spec.price
        return line_price(self.catalog, model) or _known_price(model) or Price(source="unknown")

    def journal(self, run_id: str) -> Journal | None:
        """What remembers the attempts of a run, where there is a run log."""
        return None if self.run_log is None else _RunJournal(self.run_log, run_id, self._earlier)

    def keep(self, run_id: str, turn_id: str, call_id: str, charges: dict[str, Charge]) -> None:
        """Hold charges of a task that is left by an exception: LangGraph drops its writes, and they were paid.

        Args:
            run_id: Id of the run.
            turn_id: The turn that they belong to.
            call_id: The call, or the turn itself for the router's.
            charges: What was paid so far.
        """
        self.started.discard(run_id)  # another process may take it up meanwhile
        if not charges:
            return
        _keep(self._unwritten, call_id, charges)
        if self.run_log is not None:
            self.run_log.journal(run_id, {"kind": "turn", "turn": {"id": turn_id, "charges": charges}})

    def earlier(self, run_id: str, call_id: str) -> tuple[int, dict[str, Charge]]:
        """Tries of a call or decision that is taken up again, made before a task of it could write anything.

        They are looked for in this process, in the run's log, and in those of the runs around it.

        Returns:
            The number of the next try, and the charges: those known, and an uncertain one with its upper bound for each
            attempt that was sent and never came back; for a decision those of the calls as well that it made before.
        """
        if self.started.is_first(run_id, call_id):
            return 0, {}
        outer = current_meter()
        logged = {} if self.run_log is None else self.run_log.take_up(run_id)
        around = {} if outer is None else outer.earlier()
        charges = best_known(self._unwritten.pop(call_id, {}), of_owner(call_id, best_known(logged, around)))
        if charges:
            _keep(self._earlier, call_id, charges)
            if outer is not None:
                outer.absorb(charges)
        return next_try(call_id, charges), charges

    def complete(self, run_id: str, turns: dict[str, Turn]) -> dict[str, Turn]:
        """The last turn, with what the run has paid that no turn holds: for others, made before a crash and not again.

        Args:
            run_id: Id of the run.
            turns: All of its turns.

        Returns:
            The turn by id; empty where nothing is missing.
        """
        if self.run_log is None or run_id in self.started or not turns:
            return {}
        held = {key for turn in turns.values() for key in turn["charges"]}
        strays = {key: charge for key, charge in self.run_log.take_up(run_id).items() if key not in held}
        last = next(reversed(turns.values()))
        return {last["id"]: {**last, "charges": {**last["charges"], **strays}}} if strays else {}


class _RunJournal:
    """The journal of a run in its log."""

    __slots__ = ("_earlier", "_log", "_run_id")

    def __init__(self, log: RunLog, run_id: str, earlier: Mapping[str, Mapping[str, Charge]]) -> None:
        self._log = log
        self._run_id = run_id
        self._earlier = earlier

    def sent(self, key: str, tool: str, upper: float) -> None:
        self._log.journal(self._run_id, {"kind": "attempt", "key": key, "tool": tool, "upper": upper})

    def came_back(self, charges: Mapping[str, Charge]) -> None:
        self._log.journal(self._run_id, {"kind": "charges", "charges": charges})

    def captured(self, capture: Mapping[str, Any]) -> None:
        self._log.journal(self._run_id, {"kind": "capture", **capture})

    def ended(self, trajectory: Mapping[str, Any]) -> None:
        self._log.journal(self._run_id, {"kind": "run", "run": trajectory})

    def earlier(self, call_id: str) -> Mapping[str, Charge]:
        return self._earlier.get(call_id, {})


def _unwrapped(bound: ChatModel, options: Mapping[str, Any]) -> Ask:
    """The call, with these options, behind a plain binding of arguments to a chat model.

    The binding would merge an empty config at every call, and the model look through a list of messages for what is
    none; the messages of a view are.
    """
    if (
        isinstance(bound, RunnableBinding)
        and type(bound).ainvoke is RunnableBinding.ainvoke
        and not (bound.config or bound.config_factories)
        and isinstance(model := bound.bound, BaseChatModel)
        and type(model).ainvoke is BaseChatModel.ainvoke
    ):
        asked, arguments = model.ainvoke, {**bound.kwargs, **options}
        return lambda messages: asked(ChatPromptValue.model_construct(messages=messages), **arguments)
    return partial(bound.ainvoke, **options)


def line_price(catalog: Catalog, model: str | None) -> Price | None:
    """The price that the first line for a model states; None where there is none."""
    lines = (line for line in catalog.tools.values() if line.model is not None and line.model == model)
    return next((line.price for line in lines if line.price.source != "unknown"), None)


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    """Store a value, and forget the oldest ones."""
    while len(kept) >= _MOST_KEPT:
        kept.pop(oldest(kept), None)
    kept[key] = value


def _known_price(model: str) -> Price | None:
    from orchestra_graph.prices import known_price  # noqa: PLC0415  (its library takes 100 ms to import)

    return known_price(model)


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide how a run behaves."""
    return {name: version(name) for name in ("orchestra-graph", "langgraph", "langchain-core", "langchain-openai")}
