"""The router inside `langchain.agents.create_agent`; needs the extra `agents`."""

from orchestra_graph.errors import MissingError

try:
    import langchain.agents  # noqa: F401
except ImportError as error:
    raise MissingError("the package langchain", 'pip install "orchestra-graph[agents]"') from error

from orchestra_graph.middleware.agent import OrchestraMiddleware, OrchestraState

__all__ = ["OrchestraMiddleware", "OrchestraState"]
