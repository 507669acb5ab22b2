"""Questions over search, code and experts, in the released router's protocol or in our own.

    langgraph dev --config graphs/langgraph.json         # settings: graphs/research.toml
    make().compile().invoke({"messages": [("user", "Who built the first lighthouse of Genoa?")]})

Importing this file needs neither a server nor a key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from langgraph.graph import StateGraph

from orchestra_graph import Catalog, create_orchestrator
from orchestra_graph.catalog_import import read_functions
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.nemotron_qa import NemotronQA, VariantName
from orchestra_graph.settings import GraphSettings, read_settings
from orchestra_graph.tools.build import build_router, build_tools

SETTINGS: Final = Path(__file__).with_name("research.toml")

MALFORMED: Final = {"conversation": 3, "nemotron_qa": 50}
"""Malformed replies in a row before the fallback takes over: the released protocol lets each use up its turn."""


class ResearchSettings(GraphSettings):
    """What `research.toml` holds beside what every graph can be told."""

    protocol: Literal["conversation", "nemotron_qa"]
    variant: VariantName = "hle"
    """Which of the released evaluations `nemotron_qa` follows."""


async def graph() -> Any:
    """The compiled graph of `research.toml`, built when it is first asked for."""
    # In a thread, since files are read: a server asks on its event loop, for every run.
    return await asyncio.to_thread(_compiled)


@cache
def _compiled() -> Any:
    return make().compile(name="research")


def make(path: Path = SETTINGS, environment: Mapping[str, str] | None = None) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of a settings file.

    Args:
        path: TOML with `ResearchSettings`.
        environment: Where keys are looked up; the process's by default.

    Raises:
        ConfigError: Something is missing or does not fit; one line and the fix.
    """
    environment = os.environ if environment is None else environment
    settings = read_settings(path, ResearchSettings)
    catalog = settings.read_catalog()
    router = build_router(catalog.router, environment)
    tools = build_tools(catalog, environment)
    return create_orchestrator(
        router,
        tools,
        catalog=Catalog.of((tool.spec for tool in tools), router=catalog.router),
        protocol=_protocol(settings, catalog, environment),
        preferences=settings.preferences,
        budget=settings.budget,
        run_log=settings.make_run_log(),
        max_malformed=MALFORMED[settings.protocol],
    )


def _protocol(settings: ResearchSettings, catalog: Catalog, environment: Mapping[str, str]) -> Protocol:
    if settings.protocol == "conversation":
        return ConversationProtocol()
    tokenizer = settings.make_tokenizer(catalog.router, environment)
    # A catalog that was imported from a release has its texts of the functions.
    functions = read_functions(settings.path(settings.catalog)) if settings.catalog_is_file else None
    return NemotronQA(tokenizer, settings.variant, functions=functions)
