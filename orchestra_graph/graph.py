"""Builds an orchestrator: a state graph of one router node, one node a tool, and a closing node.

graph = create_orchestrator(router, tools).compile()
state = graph.invoke({"messages": [("user", "What is 6 x 7?")]})
print(state["answer"], state["ledger"]["dollars"])
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from langchain_core.language_models import BaseChatModel
from langgraph.cache.base import BaseCache
from langgraph.graph import END, START, StateGraph

from orchestra_graph.approval import Approval, Approve
from orchestra_graph.budgeting import closers
from orchestra_graph.catalog import RESERVED_NAMES, Catalog, ModelSpec
from orchestra_graph.engine import MAX_DEPTH, Constraint, Engine, check_spoken, final_answer_spec, line_price
from orchestra_graph.errors import ConfigError
from orchestra_graph.execution import CallNode
from orchestra_graph.lifecycle import ClosingNode
from orchestra_graph.nesting import refuse_too_deep
from orchestra_graph.portal import Portal
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.protocols.conversation import SYSTEM, ConversationProtocol
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.router import RouterNode
from orchestra_graph.routers import ProgramRouter, Rules
from orchestra_graph.routers.local import LocalRouter
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.served import ServedModel
from orchestra_graph.state import OrchestratorContext, OrchestratorInput, OrchestratorOutput, OrchestratorState
from orchestra_graph.tools.adapt import ToolLike, as_tool
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.expert import Expert, model_identity
from orchestra_graph.tracing import POLICY

_log = logging.getLogger(__name__)

_RESERVED: Final = RESERVED_NAMES | {"closing", "fallback", FINAL_ANSWER}


def create_orchestrator(
    router: BaseChatModel,
    tools: Sequence[ToolLike],
    *,
    catalog: Catalog | None = None,
    preferences: Preferences | None = None,
    budget: Budget | None = None,
    protocol: Protocol | None = None,
    constraint: Constraint | Literal["auto"] | None = "auto",
    run_log: RunLog | None = None,
    cache: BaseCache[Any] | None = None,
    closing: str | None = None,
    fallback: BaseChatModel | Literal["rules"] | None = "rules",
    max_malformed: int = 3,
    approve: Approve | None = None,
    max_depth: int = MAX_DEPTH,
) -> StateGraph[OrchestratorState, OrchestratorContext, Any, OrchestratorOutput]:
    """Build the graph of an orchestrator, not yet compiled.

    Args:
        router: Any chat model that calls tools; the programs of `orchestra_graph.routers` are chat models too.
        tools: LangChain tools, functions, compiled graphs, `Expert` and the other tools of `orchestra_graph.tools`.
        catalog: Descriptions, prices, latencies and limits, by tool name; what it leaves out comes from the tools, and
            prices of known models from `genai-prices`. Lines without a tool are refused.
        preferences: What matters, unless a run's context says otherwise.
        budget: What a run may spend, unless its context says otherwise.
        protocol: What the router reads and how its reply is parsed; by default the one that a `LocalRouter` was trained
            for, else `ConversationProtocol()`.
        constraint: `required` makes the router's server write nothing but valid calls; `auto`, the default, does so for
            a `ChatVLLM` where the protocol allows it. Never done in runs whose context says `purpose: train`.
        run_log: Where each run is written as one line.
        cache: Answers repeated calls of the tools whose catalog line says `cache = true`.
        closing: Terminal tool that answers when the budget is used up; the cheapest one by default.
        fallback: Router that takes over after `max_malformed` malformed replies in a row; None ends the run there.
        max_malformed: See `fallback`. For a program as router both have no meaning: its first such reply ends the run.
        approve: Calls that a person is asked for before they are sent: `{"refund": True, "large": 0.05}` by tool, with
            dollars above which to ask, or one such threshold for all. A graph counts with all that the budget lets it
            spend: without one in dollars it is always asked for. See `orchestra_graph.approval`; needs a checkpointer.
            A run whose budget is used up is closed by a tool that needs no asking.
        max_depth: Orchestrators that may be inside each other, this one among them: checked here for graphs that are
            tools, and when a run starts for functions that run orchestrators.

    Returns:
        A graph from `messages` to `messages`, `answer`, `stopped_by`, `ledger` and `turns`. With a checkpointer, run it
        with `durability="sync"`; `exit` loses results that were paid.

    Raises:
        ConfigError: Something does not fit together; the text names it and the fix.
    """
    engine = make_engine(
        router,
        _by_name(tools),
        catalog=catalog,
        preferences=preferences,
        budget=budget,
        protocol=protocol or spoken_by(router),
        constraint=constraint,
        run_log=run_log,
        cache=cache,
        closing=closing,
        fallback=fallback,
        max_malformed=max_malformed,
        approve=approve,
        max_depth=max_depth,
    )
    return _build(engine)


def make_engine(
    router: BaseChatModel,
    tools: Mapping[str, Tool],
    *,
    catalog: Catalog | None,
    preferences: Preferences | None,
    budget: Budget | None,
    protocol: Protocol,
    constraint: Constraint | Literal["auto"] | None,
    run_log: RunLog | None,
    closing: str | None,
    fallback: BaseChatModel | Literal["rules"] | None,
    max_malformed: int,
    cache: BaseCache[Any] | None = None,
    approve: Approve | None = None,
    max_depth: int = MAX_DEPTH,
    is_heard: bool = True,
) -> Engine:
    """The parts of a run, checked to fit together; the arguments are those of `create_orchestrator`.

    Args:
        is_heard: Whether `stream_mode="messages"` has the words of router and fallback: in a graph of somebody else's
            they would stand among those that its users are shown.

    Raises:
        ConfigError: Something does not fit together; the text names it and the fix.
    """
    _check_types(
        router=(router, BaseChatModel),
        catalog=(catalog, Catalog | None),
        preferences=(preferences, Preferences | None),
        budget=(budget, Budget | None),
        protocol=(protocol, Protocol),
        run_log=(run_log, RunLog | None),
        cache=(cache, BaseCache | None),
        fallback=(None if fallback == "rules" else fallback, BaseChatModel | None),
    )
    if constraint not in ("auto", "required", None):
        raise ConfigError(f"constraint = {constraint!r}; expected 'auto', 'required' or None")
    if max_malformed < 1:
        raise ConfigError(f"max_malformed = {max_malformed}; expected at least 1")
    if max_depth < 1:
        raise ConfigError(f"max_depth = {max_depth}; expected at least 1")
    refuse_too_deep(tools, max_depth)
    for name in _RESERVED.intersection(tools):
        raise ConfigError(f"a tool is named {name!r}, which the graph uses itself; rename it")
    decider = Rules() if fallback == "rules" else fallback
    if isinstance(router, ProgramRouter):
        # A program gives the same reply to the same messages: when it has nothing to call, that is its last word.
        decider, max_malformed = None, 1
    complete = _complete(catalog, tools, router, answers=protocol.answers)
    check_spoken(protocol, complete, fix="let one end it, ToolSpec(terminal=True)")
    engine = Engine(
        catalog=complete,
        tools=tools,
        router=router,
        fallback=decider,
        fallback_spec=_fallback_spec(decider, complete),
        protocol=protocol,
        constraint=_constraint(protocol, router) if constraint == "auto" else constraint,
        preferences=preferences or Preferences(),
        budget=budget or Budget(),
        closing=closing,
        max_malformed=max_malformed,
        approval=None if approve is None else Approval.of(approve, complete),
        run_log=run_log,
        cache=cache,
        max_depth=max_depth,
        is_heard=is_heard,
    )
    _check(engine)
    _warn_of_what_no_budget_bounds(engine)
    return engine


def _build(engine: Engine) -> StateGraph[Any, Any, Any, Any]:
    portal = Portal()
    graph = StateGraph(
        OrchestratorState,
        context_schema=OrchestratorContext,
        input_schema=OrchestratorInput,
        output_schema=OrchestratorOutput,
    )
    names = [name for name in engine.catalog.tools if name in engine.tools]
    graph.add_node("router", RouterNode(engine, portal), destinations=(*names, "closing", END), trace_policy=POLICY)
    graph.add_edge(START, "router")
    for name in names:
        graph.add_node(name, CallNode(name, engine, portal), trace_policy=POLICY)
        graph.add_edge(name, "router")
    graph.add_node("closing", ClosingNode(engine, portal), destinations=(END,), trace_policy=POLICY)
    return graph


def spoken_by(router: BaseChatModel, system: str = SYSTEM) -> Protocol:
    """The protocol that a `LocalRouter` was trained for; for any other router a conversation.

    Args:
        router: The router.
        system: What opens a conversation.
    """
    trained = router.protocol if isinstance(router, LocalRouter) else None
    return trained or ConversationProtocol(system=system)


def _constraint(protocol: Protocol, router: BaseChatModel) -> Constraint | None:
    return "required" if protocol.constrains and isinstance(router, ServedModel) else None


def _by_name(tools: Sequence[ToolLike]) -> dict[str, Tool]:
    made: dict[str, Tool] = {}
    for tool in map(as_tool, tools):
        name = tool.spec.name
        if name in made:
            raise ConfigError(f"two tools are named {name!r}; expected unique names; rename one")
        made[name] = tool
    if not made:
        raise ConfigError("tools = []; expected at least one tool")
    return made


def _complete(catalog: Catalog | None, tools: Mapping[str, Tool], router: BaseChatModel, *, answers: bool) -> Catalog:
    """The catalog with a line for each tool, prices of known models, and a way to answer."""
    given = catalog.tools if catalog is not None else {}
    missing = [name for name in given if name not in tools]
    if missing:
        raise ConfigError(
            f"the catalog has {', '.join(map(repr, missing))} without a tool; pass it, or restrict the catalog to: "
            + ", ".join(n for n in given if n in tools)
        )
    lines = {name: given[name].completed_by(tool.spec) if name in given else tool.spec for name, tool in tools.items()}
    for name, tool in tools.items():
        if isinstance(tool, Expert) and tool.retriever is not None:
            other = lines.get(tool.retriever.spec.name)
            if other is not None and other.kind == tool.retriever.spec.kind:  # the catalog says what a search costs
                lines[name] = lines[name].model_copy(update={"retrieval": other.price})
    order = [*given, *(name for name in lines if name not in given)]
    specs = [lines[name] for name in order]
    if answers or not any(spec.terminal for spec in specs):
        specs.append(final_answer_spec())
    router_spec = catalog.router if catalog is not None and catalog.router.model else _router_spec(catalog, router)
    return _priced(Catalog.of(specs, router=router_spec))


def _fallback_spec(model: BaseChatModel | None, catalog: Catalog) -> ModelSpec:
    """What the fallback router costs: as a line of the catalog for the same model, else what is known of that."""
    spec = ModelSpec() if model is None else ModelSpec.model_validate(model_identity(model))
    price = line_price(catalog, spec.model)
    return _priced(Catalog(tools={}, router=spec)).router if price is None else spec.model_copy(update={"price": price})


def _router_spec(catalog: Catalog | None, router: BaseChatModel) -> ModelSpec:
    known = catalog.router if catalog is not None else ModelSpec()
    return known.model_copy(update=model_identity(router))


def _priced(catalog: Catalog) -> Catalog:
    """Fill in what `genai-prices` knows, where a model is named without a price."""
    lines = [catalog.router, *catalog.tools.values()]
    if not any(line.model and line.price.source == "unknown" for line in lines):
        return catalog
    from orchestra_graph.prices import with_known_prices  # noqa: PLC0415  (its library takes 100 ms to import)

    return with_known_prices(catalog)


def _check_types(**values: tuple[object, Any]) -> None:
    """Refuse arguments of another type.

    Raises:
        ConfigError: Names the argument, its value, and the type expected.
    """
    for name, (value, expected) in values.items():
        if not isinstance(value, expected):
            wanted = getattr(expected, "__name__", None) or str(expected).replace(" | None", " or None")
            raise ConfigError(f"{name} = {value!r}; expected {wanted.rsplit('.', 1)[-1]}")


def _warn_of_what_no_budget_bounds(engine: Engine) -> None:
    unpriced = [name for name, spec in engine.catalog.tools.items() if spec.is_unpriced]
    if unpriced and not math.isinf(engine.budget.dollars):
        _log.warning(
            "budget.dollars = %g does not bound what %s cost: no price is known, and their calls count as $0; "
            "fix: state one, Price(input=..., output=...), of zeros for a model of your own",
            *(engine.budget.dollars, ", ".join(unpriced)),
        )


def _check(engine: Engine) -> None:
    closing = engine.closing
    if closing is not None and closing not in [spec.name for spec in closers(engine.catalog, closing)]:
        raise ConfigError(
            f"closing = {closing!r}; expected a terminal tool without required arguments: "
            + (", ".join(spec.name for spec in closers(engine.catalog, None)) or "the catalog has none")
        )
    engine.catalog_for(engine.preferences)
