"""A small trained router as a LangGraph node: it picks the tool or expert for every turn.

from orchestra_graph import Expert, Rules, create_orchestrator

graph = create_orchestrator(Rules(), [Expert(model, name="strong")]).compile()
state = graph.invoke({"messages": [("user", "What is the capital of France?")]})
"""

import langgraph.types  # noqa: F401  (first, from here: deep in the import stack CPython takes 0.1 s longer for it)

from orchestra_graph.add_router import add_router
from orchestra_graph.catalog import Catalog, Latency, Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import (
    CatalogError,
    ConfigError,
    MissingError,
    OrchestraError,
    RouterError,
    RunLogError,
    ToolError,
)
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import report
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.routers import Cheapest, Fixed, Random, Rules
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.tools import (
    Bubblewrap,
    CodeInterpreter,
    Expert,
    Finding,
    LocalSearch,
    Request,
    Result,
    RetrieverSearch,
    Subgraph,
    Subprocess,
    Tool,
    WebSearch,
)
from orchestra_graph.vllm import ChatVLLM

__all__ = [
    "Bubblewrap",
    "Budget",
    "Catalog",
    "CatalogError",
    "ChatVLLM",
    "Cheapest",
    "CodeInterpreter",
    "ConfigError",
    "Expert",
    "Finding",
    "Fixed",
    "Latency",
    "Limits",
    "LocalSearch",
    "MissingError",
    "ModelSpec",
    "OrchestraError",
    "Preferences",
    "Price",
    "Random",
    "Request",
    "Result",
    "RetrieverSearch",
    "RouterError",
    "Rules",
    "RunLog",
    "RunLogError",
    "Subgraph",
    "Subprocess",
    "Tool",
    "ToolError",
    "ToolSpec",
    "WebSearch",
    "add_router",
    "create_orchestrator",
    "report",
]
