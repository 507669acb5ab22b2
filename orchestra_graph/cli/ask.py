"""`orchestra ask`: one question, watched turn by turn."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from langchain_core.language_models import BaseChatModel
from rich.console import Console

from orchestra_graph.attempts import ask as ask_model
from orchestra_graph.catalog import Catalog
from orchestra_graph.cli.render import ledger_table, show_event
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.routers import Cheapest, Fixed, Random, Rules
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.build import build_router, build_tools
from orchestra_graph.turns import Decision
from orchestra_graph.wish import read_wish
from orchestra_graph.workbench import Workbench


def ask(
    question: Annotated[str, typer.Argument(help="What to solve.", show_default=False)],
    catalog: Annotated[
        Path | None, typer.Option(help="A catalog file; without one the workbench's simulated experts answer.")
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(help="rules, cheapest, random or fixed:TOOL; by default the catalog's [router], else rules."),
    ] = None,
    prefer: Annotated[
        str, typer.Option(help='What matters, in words: "cheap", "fast", "avoid TOOL", "prefer TOOL", "never TOOL".')
    ] = "",
    budget: Annotated[float | None, typer.Option(min=0, help="Dollars at most.")] = None,
    deadline: Annotated[float | None, typer.Option(min=0.001, help="Seconds at most.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Decisions at most.")] = 50,
    log: Annotated[Path | None, typer.Option(help="Write the run to this log.")] = None,
    route_only: Annotated[bool, typer.Option("--route-only", help="Show the first decision; call no tool.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Ask a question and watch each decision, its reason, dollars and seconds.

    Without --catalog the question goes to the workbench: programs with simulated prices, which solve mathematics, small
    programming tasks and look-ups in an invented knowledge base. With one, real models answer and real money is spent.
    """
    lines = Workbench().catalog if catalog is None else Catalog.from_toml(catalog)
    preferences = read_wish(prefer, list(lines.tools))
    limits = Budget(dollars=_or_infinity(budget), seconds=_or_infinity(deadline), turns=turns)
    model = _router(router, lines)
    if route_only:
        decision = asyncio.run(_route(question, lines, preferences, limits, model))
        _show_decision(decision, as_json=as_json)
        return
    graph = create_orchestrator(
        model,
        _tools(lines, from_file=catalog is not None),
        catalog=lines,
        preferences=preferences,
        budget=limits,
        run_log=RunLog(log) if log is not None else None,
    ).compile()
    asyncio.run(_watch(graph, question, as_json=as_json))


async def _watch(graph: Any, question: str, *, as_json: bool) -> None:
    console = Console(stderr=as_json, quiet=as_json)
    state: dict[str, Any] = {}
    with console.status("the router decides") as status:
        async for mode, part in graph.astream({"messages": [("user", question)]}, stream_mode=["custom", "values"]):
            if mode == "values":
                state = part
                continue
            show_event(console, part)
            if part["type"] == "decision":
                names = ", ".join(call["tool"] for call in part["decision"]["calls"])
                status.update(f"waiting for {names}" if names else "the router decides")
            elif part["type"] == "outcome":
                status.update("the router decides")
    if as_json:
        result = {key: state[key] for key in ("answer", "stopped_by", "ledger", "turns")}
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
        return
    console.print()
    console.print(ledger_table(state["ledger"]))


async def _route(
    question: str, catalog: Catalog, preferences: Preferences, budget: Budget, router: BaseChatModel
) -> Decision:
    """The router's first decision, without the graph."""
    situation = Situation(question, preferences.apply(catalog), preferences, budget)
    asking = ConversationProtocol().decide(situation)
    view = next(asking)
    while True:
        reply = await ask_model(router.bind_tools(view.tools), view.messages)
        try:
            view = asking.send(reply)
        except StopIteration as done:
            decision: Decision = done.value
            return decision


def _show_decision(decision: Decision, *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(decision, option=orjson.OPT_INDENT_2).decode())
        return
    event = {"type": "decision", "index": 0, "decision": decision, "charges": {}, "outcomes": {}, "seconds": 0.0}
    show_event(Console(), event)


def _router(name: str | None, catalog: Catalog) -> BaseChatModel:
    kind, _, tool = (name or "").partition(":")
    if kind == "fixed":
        if tool not in catalog.tools:
            raise ConfigError(
                f"--router {name}: {tool!r} is no tool; expected fixed: and one of {', '.join(catalog.tools)}"
            )
        return Fixed(tool=tool)
    programs = {"rules": Rules, "cheapest": Cheapest, "random": Random}
    if name is not None and name not in programs:
        raise ConfigError(f"--router {name}: expected {', '.join(programs)} or fixed:TOOL")
    if name is None and catalog.router.model:
        return build_router(catalog.router, os.environ)
    return programs[name or "rules"]()


def _tools(catalog: Catalog, *, from_file: bool) -> list[Tool]:
    if from_file:
        return build_tools(catalog, os.environ)
    bench = Workbench()
    return bench.tools(bench.world())


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
