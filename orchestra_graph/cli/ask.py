"""`orchestra ask`: one question, watched turn by turn."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer
from langchain_core.language_models import BaseChatModel
from rich.text import Text

from orchestra_graph.catalog import Catalog
from orchestra_graph.cli.render import STOPPED, ledger_table, show_event
from orchestra_graph.cli.runs import open_log
from orchestra_graph.cli.terminal import console, money, one_line, print_error, print_json, working
from orchestra_graph.errors import ConfigError
from orchestra_graph.events import Event
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.protocols.table import render_preferences
from orchestra_graph.routers import Cheapest, Fixed, ProgramRouter, Random, Rules
from orchestra_graph.routers.bundled import refuse_unknown_words, tiny_router
from orchestra_graph.runlog.measure import seconds_by_tool
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.build import build_router, build_tools
from orchestra_graph.turns import Turn
from orchestra_graph.wish import read_wish
from orchestra_graph.workbench import Workbench

SIMULATED = "The workbench answers: programs at simulated prices. Ask your own models with --catalog FILE."


def _text(value: str) -> str:
    if not value.strip():
        raise typer.BadParameter("it is empty.")
    return value


def ask(
    question: Annotated[str, typer.Argument(help="What to solve.", show_default=False, callback=_text)],
    catalog: Annotated[
        Path | None, typer.Option(help="A catalog file; without one the workbench's simulated experts answer.")
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(
            help="`tiny` (it knows the workbench only), `rules`, `cheapest`, `random` or `fixed:TOOL`; "
            "else the catalog's router, else `rules`."
        ),
    ] = None,
    prefer: Annotated[
        str, typer.Option(help='What matters, in words: "cheap", "fast", "avoid TOOL", "prefer TOOL", "never TOOL".')
    ] = "",
    budget: Annotated[float | None, typer.Option(min=0, help="Dollars at most.")] = None,
    deadline: Annotated[float | None, typer.Option(min=0.001, help="Seconds at most.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Decisions at most.")] = 50,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Append the run to this log, a *.jsonl or *.jsonl.zst; "
            "latencies measured in its earlier runs replace the catalog's."
        ),
    ] = None,
    route_only: Annotated[bool, typer.Option("--route-only", help="Show the first decision; call no tool.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON and nothing else.")] = False,
) -> None:
    """Ask a question and watch each decision, its reason, dollars and seconds.

    Without `--catalog` the question goes to the workbench: programs with simulated prices, which solve mathematics,
    small programming tasks and look-ups in an invented knowledge base. With one, real models answer and real money is
    spent.

    Exit code 1 also where no tool brought a result.
    """
    if route_only and log is not None:
        raise typer.BadParameter("--log goes with a whole run, --route-only with its first decision; drop one.")
    output = console()
    run_log = None if log is None else open_log(log)
    lines = Workbench().catalog if catalog is None else Catalog.from_toml(catalog)
    preferences = read_wish(prefer, list(lines.tools))
    model = _router(router, lines)
    with working(output, "preparing the tools"):
        tools = _tools(lines, from_file=catalog is not None)
    # A program that gives up will not think better of it: there is nothing to ask it again, and nobody else to ask.
    patience: dict[str, Any] = {"fallback": None, "max_malformed": 1} if isinstance(model, ProgramRouter) else {}
    graph = create_orchestrator(
        model,
        tools,
        catalog=_measured(Catalog.of((tool.spec for tool in tools), router=lines.router), log),
        preferences=preferences,
        budget=Budget(dollars=_or_infinity(budget), seconds=_or_infinity(deadline), turns=turns),
        run_log=run_log,
        **patience,
    )
    if not as_json:
        notes = [SIMULATED] if catalog is None else []
        notes += [render_preferences(preferences).partition("\n")[0]] if prefer else []
        output.print(Text("\n".join(notes), "dim"), end="\n" if notes else "")
    if route_only:
        asyncio.run(_route(graph.compile(interrupt_after=["router"]), question, as_json=as_json))
    else:
        asyncio.run(_watch(graph.compile(), question, as_json=as_json))


async def _watch(graph: Any, question: str, *, as_json: bool) -> None:
    """Print the run while it goes on."""
    output = console()
    state: dict[str, Any] = {}
    events: list[Event] = []
    paid, doing = 0.0, "the router decides"
    with working(output, doing) as status:
        async for mode, part in _stream(graph, question):
            if mode == "values":
                state = part
                continue
            if part["type"] == "charge":
                paid += part["charge"]["dollars"]
                status.update(f"{doing}, {money(paid)} so far")
                continue
            events.append(part)
            if not as_json and part["type"] != "answer":
                show_event(output, part)
            names = [call["tool"] for call in part["decision"]["calls"]] if part["type"] == "decision" else []
            doing = f"waiting for {', '.join(names)}" if names else "the router decides"
            status.update(doing)
    failure = _failure(state)
    if as_json:
        print_json({key: state[key] for key in ("answer", "stopped_by", "ledger", "turns")})
    else:
        if failure is None:
            show_event(output, events[-1])
        output.print()
        output.print(ledger_table(state["ledger"]))
    if failure is not None:
        print_error(failure)
        raise typer.Exit(1)


async def _route(graph: Any, question: str, *, as_json: bool) -> None:
    """Print the first decision of a graph that stops behind its router."""
    output = console()
    with working(output, "the router decides"):
        events = [part async for _, part in _stream(graph, question) if part.get("type") == "decision"]
    if not events:
        print_error("no decision: the budget does not pay for one; raise --budget or --deadline")
        raise typer.Exit(1)
    if as_json:
        print_json({key: events[0][key] for key in ("decision", "charges", "seconds")})
    else:
        show_event(output, events[0])
    problem = events[0]["decision"].get("problem")
    if problem is not None:
        print_error(problem["detail"])
        raise typer.Exit(1)


def _stream(graph: Any, question: str) -> AsyncIterator[tuple[str, Any]]:
    stream: AsyncIterator[tuple[str, Any]] = graph.astream(
        {"messages": [("user", question)]}, stream_mode=["custom", "values"]
    )
    return stream


def _failure(state: dict[str, Any]) -> str | None:
    """Why there is no answer, or None where a tool brought anything that may be one."""
    turns: list[Turn] = list(state["turns"].values())
    outcomes = [outcome for turn in turns for outcome in turn["outcomes"].values()]
    if state["stopped_by"] == "answer" or any(not outcome["error"] for outcome in outcomes):
        return None
    problems = [turn["decision"]["problem"]["detail"] for turn in turns if "problem" in turn["decision"]]
    found = [outcome["content"] for outcome in outcomes] or problems
    last = f"; last: {one_line(found[-1])}" if found else ""
    fix = {"dollars": "; raise --budget", "seconds": "; raise --deadline", "turns": "; raise --turns"}
    stopped = state["stopped_by"]
    return f"no tool brought a result before {STOPPED[stopped]}{last}{fix.get(stopped, '')}"


def _router(name: str | None, catalog: Catalog) -> BaseChatModel:
    kind, _, tool = (name or "").partition(":")
    if kind == "fixed":
        if tool not in catalog.tools:
            raise ConfigError(
                f"--router {name}: {tool!r} is no tool; expected fixed: and one of {', '.join(catalog.tools)}"
            )
        return Fixed(tool=tool)
    if name == "tiny":
        refuse_unknown_words(catalog)
        return tiny_router()
    programs = {"rules": Rules, "cheapest": Cheapest, "random": Random}
    if name is not None and name not in programs:
        raise ConfigError(f"--router {name}: expected tiny, {', '.join(programs)} or fixed:TOOL")
    if name is None and catalog.router.model:
        return build_router(catalog.router, os.environ)
    return programs[name or "rules"]()


def _measured(catalog: Catalog, log: Path | None) -> Catalog:
    """The catalog with the latencies of the log's earlier runs; a new log has none."""
    if log is None or not os.path.exists(log):
        return catalog
    return catalog.with_measured_latency(seconds_by_tool(log))


def _tools(catalog: Catalog, *, from_file: bool) -> list[Tool]:
    if from_file:
        return build_tools(catalog, os.environ)
    bench = Workbench()
    return bench.tools(bench.world())


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
