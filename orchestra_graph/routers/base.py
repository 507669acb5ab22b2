"""A program that routes, as a chat model: it reads the same messages as a language model and replies with a tool call.

So it works wherever a served model does. It reads the catalog's table and the preferences from the system text, the
tools' descriptions and schemas from the bound functions, and the results so far from the tool messages. Where the text
holds no table (in a graph that is not an orchestrator) it routes by the bound functions alone.

Left out: arguments. A program fills every required one with the question, so it calls no tool that needs another type.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from orchestra_graph.preferences import Preferences
from orchestra_graph.protocols.conversation import REPLY_PROBLEM, without_remarks
from orchestra_graph.protocols.table import Line, read_preferences, read_table, without_budget


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier call, as the messages tell it."""

    tool: str
    args: dict[str, Any]
    content: str
    error: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """What a program can see of a run."""

    question: str
    lines: list[Line]
    """Tools in the catalog's order."""
    preferences: Preferences
    past: list[Past]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a program decides: a call, or with `tool=None` a reply in words."""

    tool: str | None
    reason: str
    args: dict[str, Any] | None = None
    """Arguments; by default each required one is the question."""


class ProgramRouter(BaseChatModel):
    """Base of routers that are programs. They cost nothing and need no server."""

    @abstractmethod
    def choose(self, scene: Scene) -> Choice:
        """Decide the next call."""

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind the functions to choose from."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @property
    def _llm_type(self) -> str:
        return type(self).__name__.lower()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        scene = read_scene(messages, kwargs.get("tools", []))
        choice = self.choose(scene)
        calls = []
        if choice.tool is not None:
            # Unique in the whole conversation, where one thread asks several questions.
            number = sum(isinstance(message, ToolMessage) for message in messages)
            calls.append({"name": choice.tool, "args": _args(choice, scene), "id": f"call_{number}"})
        message = AIMessage(
            choice.reason,
            tool_calls=calls,
            usage_metadata={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self._generate(messages, stop, **kwargs)


def read_scene(messages: Sequence[BaseMessage], functions: Sequence[dict[str, Any]]) -> Scene:
    """Gather what the messages and the bound functions tell."""
    system = "\n\n".join(m.text for m in messages if isinstance(m, SystemMessage))
    lines = {line.name: line for line in read_table(system)}
    described = [_described(function["function"], lines) for function in functions]
    asked = _asked(messages)
    return Scene(
        question="" if asked is None else without_budget(messages[asked].text),
        lines=described or list(lines.values()),
        preferences=read_preferences(system),
        past=_past(messages[asked or 0 :]),
    )


def _described(function: dict[str, Any], lines: dict[str, Line]) -> Line:
    name = function["name"]
    line = lines.get(name, Line(name, "function", 0.0, 0.0, 0.0, 0.0, 0.0, terminal=False))
    parameters = function.get("parameters", {})
    required = tuple(parameters.get("required", ()))
    return replace(
        line,
        description=function.get("description", ""),
        required=required,
        textual=all(_takes_text(parameters.get("properties", {}).get(name, {})) for name in required),
    )


def _takes_text(schema: Any) -> bool:
    return not isinstance(schema, dict) or (schema.get("type", "string") == "string" and "enum" not in schema)


def _asked(messages: Sequence[BaseMessage]) -> int | None:
    """Place of the question: the newest message of a person. What a protocol says of a malformed reply is none."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if isinstance(message, HumanMessage) and not message.text.startswith(REPLY_PROBLEM):
            return place
    return None


def _past(messages: Sequence[BaseMessage]) -> list[Past]:
    calls = {call["id"]: call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    past = []
    for message in messages:
        call = calls.get(message.tool_call_id) if isinstance(message, ToolMessage) else None
        if isinstance(message, ToolMessage) and call is not None:
            text = without_remarks(message.text)
            past.append(Past(call["name"], call["args"], text, error=message.status == "error"))
    return past


def _args(choice: Choice, scene: Scene) -> dict[str, Any]:
    if choice.args is not None:
        return choice.args
    line = next((line for line in scene.lines if line.name == choice.tool), None)
    return {name: scene.question for name in line.required} if line else {}
