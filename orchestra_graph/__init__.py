"""A small trained router as a LangGraph node: it picks the tool or expert for every turn.

from orchestra_graph import Expert, Rules, create_orchestrator

graph = create_orchestrator(Rules(), [Expert(model, name="strong")]).compile()
state = graph.invoke({"messages": [("user", "What is the capital of France?")]})

A name is imported from its module when it is first asked for: OpenAI's client alone takes a second.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
    from orchestra_graph.tools.base import Finding, Request, Result, Tool
    from orchestra_graph.tools.code_interpreter import CodeInterpreter
    from orchestra_graph.tools.expert import Expert
    from orchestra_graph.tools.local_search import LocalSearch, RetrieverSearch
    from orchestra_graph.tools.sandbox import Bubblewrap, Subprocess
    from orchestra_graph.tools.subgraph import Subgraph
    from orchestra_graph.tools.web_search import WebSearch
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

_MODULES: Final = {
    "add_router": "add_router",
    "catalog": "Catalog Latency Limits ModelSpec Price ToolSpec",
    "errors": "CatalogError ConfigError MissingError OrchestraError RouterError RunLogError ToolError",
    "graph": "create_orchestrator",
    "meter": "report",
    "preferences": "Budget Preferences",
    "routers": "Cheapest Fixed Random Rules",
    "runlog.log": "RunLog",
    "tools.base": "Finding Request Result Tool",
    "tools.code_interpreter": "CodeInterpreter",
    "tools.expert": "Expert",
    "tools.local_search": "LocalSearch RetrieverSearch",
    "tools.sandbox": "Bubblewrap Subprocess",
    "tools.subgraph": "Subgraph",
    "tools.web_search": "WebSearch",
    "vllm": "ChatVLLM",
}
"""Where the names above are at home, for the interpreter as the imports above for type checkers."""


class _Package(ModuleType):
    """This module, whose public names are imported when they are first asked for.

    Two of them are functions that share their name with a module of the package, `add_router` and `report`. Python
    would put the module in the function's place as soon as somebody imports it; here the function stays.
    """

    def __getattr__(self, name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names.split():
                import_module("langgraph.types")  # first, from here: deep in the stack of imports it takes longer
                value = getattr(import_module(f"{__name__}.{module}"), name)
                self.__dict__[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
