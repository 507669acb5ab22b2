"""Makes a tool of the graph from what is there already: a LangChain tool, a function, a compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import StateGraph
from langgraph.types import Command

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.subgraph import Subgraph

ToolLike = Tool | BaseTool | Runnable[Any, Any] | Callable[..., Any]


def as_tool(value: ToolLike) -> Tool:
    """Make a tool of the graph from anything that can be one.

    Args:
        value: A `Tool`, a LangChain tool, a compiled graph with `messages`, a function with type hints and docstring.

    Raises:
        ConfigError: It is none of these; the text says what it is.
    """
    if isinstance(value, Tool):
        return value
    if isinstance(value, BaseChatModel):
        raise ConfigError(
            f"a chat model ({value.get_name()}) is no tool by itself; wrap it: Expert(model, name=..., role='answer')"
        )
    if isinstance(value, StateGraph):
        raise ConfigError(f"{value!r} is a graph that is not compiled; pass graph.compile(name=...)")
    try:
        if isinstance(value, BaseTool):
            return LangChainTool(value)
        if isinstance(value, Runnable):
            return Subgraph(value)
        if callable(value):
            return LangChainTool(tool(value))
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        name = getattr(value, "name", None) or getattr(value, "__name__", repr(value))
        raise ConfigError(f"{name!r} cannot be a tool: {error}") from error
    raise ConfigError(f"{value!r} is no tool; expected a Tool, a LangChain tool, a function or a compiled graph")


class LangChainTool(Tool):
    """A LangChain tool as it is, called through `BaseTool.ainvoke`.

    A synchronous one runs in a thread, which cannot be stopped: when its time is up its result is dropped, and the
    thread runs on. One with `return_direct` ends the run: what it returns is the answer. Of a command that one returns
    the message counts that answers the call: an orchestrator has no state that a tool could write.

    Raises:
        ConfigError: It needs what an agent injects and an orchestrator does not have, or an argument that is lost.
    """

    def __init__(self, wrapped: BaseTool) -> None:
        injected = _injected(wrapped)
        if injected:
            raise ConfigError(
                f"{wrapped.name!r} needs {', '.join(injected)}, which an agent injects and an orchestrator does not "
                "have; fix: give it a default, or take it out and call langgraph.config.get_store() for a store"
            )
        self._wrapped = wrapped
        function = convert_to_openai_tool(wrapped)["function"]
        parameters = {"type": "object", "properties": {}, **function.get("parameters", {})}
        if isinstance(wrapped, StructuredTool) and "config" in parameters["properties"]:
            raise ConfigError(f"{wrapped.name!r} has an argument 'config', which LangChain never passes on; rename it")
        self.spec = ToolSpec(
            name=wrapped.name,
            kind="function",
            description=function.get("description", ""),
            parameters=parameters,
            terminal=wrapped.return_direct,
        )

    async def run(self, request: Request) -> Result:
        """Invoke the tool; an error message that it returns as a result is an error here."""
        call = {"name": self.spec.name, "args": request.args, "id": request.call_id, "type": "tool_call"}
        reply = await self._wrapped.ainvoke(call)
        if isinstance(reply, Command):
            reply = self._message_in(reply, request.call_id)
        if not isinstance(reply, ToolMessage):
            return Result(reply if isinstance(reply, str) else str(reply))
        if reply.status == "error":
            raise ToolError(reply.text)
        return Result(
            reply.text,
            answer=reply.text if self.spec.terminal else None,
            artifacts=[] if reply.artifact is None else [reply.artifact],
        )

    def _message_in(self, command: Command[Any], call_id: str) -> ToolMessage:
        written = command.update.get("messages", []) if isinstance(command.update, dict) else []
        for message in written if isinstance(written, list) else [written]:
            if isinstance(message, ToolMessage) and message.tool_call_id == call_id:
                return message
        raise ToolError(
            f"{self.spec.name} returned {command!r:.200}, which holds no result; expected a text, or a command whose "
            "messages hold ToolMessage(..., tool_call_id=...) of this call"
        )


def _injected(wrapped: BaseTool) -> list[str]:
    """Arguments that no model can give and without which the tool fails; the id of the call is always there."""
    shown: Any = wrapped.tool_call_schema
    if isinstance(shown, dict):  # a JSON schema names what a model gives only
        return []
    fields = getattr(wrapped.get_input_schema(), "model_fields", {})
    return [
        name
        for name, field in fields.items()
        if field.is_required() and name not in shown.model_fields and InjectedToolCallId not in field.metadata
    ]
