"""A customer's conversation: a policy, the tools of a domain, and experts that may reply in the router's place.

    langgraph dev --config graphs/langgraph.json         # settings: graphs/service.toml

Each message of the customer is one run on the conversation's thread, so compile the graph with a checkpointer:

    graph = make().compile(checkpointer=InMemorySaver())

Importing this file needs neither a server nor a key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from langgraph.graph import StateGraph

from orchestra_graph import Catalog, ConfigError, Tool, ToolSpec, create_orchestrator
from orchestra_graph.protocols.nemotron_service import NemotronService
from orchestra_graph.protocols.service_policy import HAND_OVER, INSTRUCTIONS
from orchestra_graph.settings import GraphSettings, load, read_settings
from orchestra_graph.tools.adapt import ToolLike, as_tool
from orchestra_graph.tools.build import build_model, build_router, what_is_missing
from orchestra_graph.tools.service_expert import ServiceExpert

SETTINGS: Final = Path(__file__).with_name("service.toml")


class ServiceSettings(GraphSettings):
    """What `service.toml` holds beside what every graph can be told."""

    policy: str
    """File with what the agent may do."""
    domain: str
    """`FILE.py:NAME` of a function that makes the domain's tools."""
    hand_over: str | None = None
    """File with the paragraph that tells when to call an expert, in place of our own."""
    clauses: list[str] | None = None
    """The clauses of the policy that it replaces, as they stand there; without them they are found."""


async def graph() -> Any:
    """The compiled graph of `service.toml`, built when it is first asked for; a server brings its checkpointer."""
    # In a thread, since files are read: a server asks on its event loop, for every run.
    return await asyncio.to_thread(_compiled)


@cache
def _compiled() -> Any:
    return make().compile(name="service")


def make(path: Path = SETTINGS, environment: Mapping[str, str] | None = None) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of a settings file.

    Args:
        path: TOML with `ServiceSettings`.
        environment: Where keys are looked up; the process's by default.

    Raises:
        ConfigError: Something is missing or does not fit; one line and the fix.
    """
    settings = read_settings(path, ServiceSettings)
    tools: Sequence[ToolLike] = load(settings.domain, settings.folder)()
    return assemble(settings, tools, settings.text(settings.policy), environment=environment)


def assemble(
    settings: ServiceSettings,
    domain: Sequence[ToolLike],
    policy: str,
    *,
    instructions: str = INSTRUCTIONS,
    environment: Mapping[str, str] | None = None,
) -> StateGraph[Any, Any, Any, Any]:
    """Put the graph together from a domain's tools and its policy.

    Args:
        settings: Catalog with the router and the experts, tokenizer, preferences, budget.
        domain: The tools, in the order in which the router reads them.
        policy: What the agent may do.
        instructions: What stands before the policy.
        environment: Where keys are looked up; the process's by default.

    Raises:
        ConfigError: See `make`.
    """
    environment = os.environ if environment is None else environment
    catalog = settings.read_catalog()
    others = [spec.name for spec in catalog.tools.values() if spec.kind != "expert"]
    if others:
        raise ConfigError(f"{', '.join(others)}: expected experts alone in the catalog; tools come from domain")
    tools = [as_tool(tool) for tool in domain]
    functions = [tool.spec for tool in tools]
    protocol = NemotronService(
        settings.make_tokenizer(catalog.router, environment),
        policy,
        instructions=instructions,
        hand_over=HAND_OVER if settings.hand_over is None else settings.text(settings.hand_over).strip(),
        clauses=settings.clauses,
    )
    return create_orchestrator(
        build_router(catalog.router, environment),
        [*tools, *_experts(catalog, functions, environment)],
        catalog=Catalog.of([*functions, *catalog.tools.values()], router=catalog.router),
        protocol=protocol,
        preferences=settings.preferences,
        budget=settings.budget,
        run_log=settings.make_run_log(),
        # Rules know nothing of a customer: where the router says nothing valid, the run ends and says so.
        fallback=None,
    )


def _experts(catalog: Catalog, functions: Sequence[ToolSpec], environment: Mapping[str, str]) -> list[Tool]:
    problems = what_is_missing(catalog.tools, environment)
    if problems:
        raise ConfigError("; ".join(problems))
    return [
        ServiceExpert(build_model(line, environment), name=line.name, functions=functions)
        for line in catalog.tools.values()
    ]
