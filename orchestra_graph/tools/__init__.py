"""What the router can call: experts, code, search, graphs. Any LangChain tool or function is a tool as it is."""

from orchestra_graph.tools.adapt import as_tool
from orchestra_graph.tools.base import Finding, Request, Result, Tool
from orchestra_graph.tools.code_interpreter import CodeInterpreter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.local_search import LocalSearch, RetrieverSearch
from orchestra_graph.tools.sandbox import Bubblewrap, Sandbox, Subprocess
from orchestra_graph.tools.subgraph import Subgraph
from orchestra_graph.tools.web_search import WebSearch

__all__ = [
    "Bubblewrap",
    "CodeInterpreter",
    "Expert",
    "Finding",
    "LocalSearch",
    "Request",
    "Result",
    "RetrieverSearch",
    "Sandbox",
    "Subgraph",
    "Subprocess",
    "Tool",
    "WebSearch",
    "as_tool",
]
