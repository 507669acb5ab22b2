"""Hard questions taken apart: an orchestrator whose tools include orchestrators of one level less.

    langgraph dev --config graphs/langgraph.json         # settings: graphs/recursive.toml
    make().compile().invoke({"messages": [("user", "Which is the older of the two towers, and by how much?")]})

All levels have the same router and tools, and pay from one budget; the innermost one has no helper. Importing this file
needs neither a server nor a key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

from langgraph.graph import StateGraph
from pydantic import Field

from orchestra_graph import Catalog, Subgraph, create_orchestrator
from orchestra_graph.settings import GraphSettings, read_settings
from orchestra_graph.tools.build import build_router, build_tools

SETTINGS: Final = Path(__file__).with_name("recursive.toml")

HELPER: Final = "helper"
"""Name of the tool that is an orchestrator of one level less."""
HELPS: Final = (
    "Works out one part of the question by itself, with the same tools. Give it a task that is complete in itself: it "
    "sees nothing else. Several of them can work side by side."
)


class RecursiveSettings(GraphSettings):
    """What `recursive.toml` holds beside what every graph can be told."""

    depth: Annotated[int, Field(ge=1, le=8)]
    """Orchestrators inside each other; 1 is one without helpers."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of what a run has left that one helper may spend."""


async def graph() -> Any:
    """The compiled graph of `recursive.toml`, built when it is first asked for."""
    # In a thread, since files are read: a server asks on its event loop, for every run.
    return await asyncio.to_thread(_compiled)


@cache
def _compiled() -> Any:
    return make().compile(name="recursive")


def make(path: Path = SETTINGS, environment: Mapping[str, str] | None = None) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of a settings file.

    Args:
        path: TOML with `RecursiveSettings`.
        environment: Where keys are looked up; the process's by default.

    Raises:
        ConfigError: Something is missing or does not fit; one line and the fix.
    """
    environment = os.environ if environment is None else environment
    settings = read_settings(path, RecursiveSettings)
    catalog = settings.read_catalog()
    router, tools = build_router(catalog.router, environment), build_tools(catalog, environment)
    lines = Catalog.of((tool.spec for tool in tools), router=catalog.router)
    shared: dict[str, Any] = {"catalog": lines, "preferences": settings.preferences}
    helpers: list[Subgraph] = []
    for _ in range(settings.depth - 1):
        inner = create_orchestrator(router, [*tools, *helpers], **shared)
        helpers = [Subgraph(inner.compile(name=HELPER), description=HELPS, share=settings.share)]
    # Runs of helpers get their budget from the run around them.
    return create_orchestrator(
        router, [*tools, *helpers], **shared, budget=settings.budget, run_log=settings.make_run_log()
    )
