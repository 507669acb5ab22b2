"""Scripted chat models for tests: a router and an expert that answer from a list or from a function.

No server, no key, no randomness. Both are ordinary LangChain chat models, sync and async, and state their usage, so a
graph under test prices, logs and traces them as it would a real model:

    router = ScriptedRouter([("calculator", {"expression": "6 * 7"}), ("expert", {})])
    expert = ScriptedExpert(lambda prompt: "<answer>42</answer>" if "42" in prompt else "I cannot tell.")

Left out: streaming (the reply comes whole), and an HTTP server that fails; tokens are counted as four characters.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

from orchestra_graph.errors import ConfigError
from orchestra_graph.meter import report

ToolCall = tuple[str, dict[str, Any]]
"""Name of a tool and its arguments."""

Reply = AIMessage | ToolCall | list[ToolCall] | str | Exception
"""A message as it stands, one call, several calls in one reply, a text without a call, or an error to raise."""

_PROMPTS_KEPT = 100


class _Scripted(BaseChatModel):
    """Turns scripted replies into chat results: copies, usage, seconds, errors."""

    delay: float = 0.0
    """Seconds that pass before each reply."""
    seconds: float = 0.0
    """Seconds of work that each reply reports to the meter in place of the clock; 0 reports nothing."""
    prompts: deque[list[BaseMessage]] = Field(default_factory=lambda: deque(maxlen=_PROMPTS_KEPT), exclude=True)
    """What the model was asked, the last 100 prompts."""
    tools: list[dict[str, Any]] = Field(default_factory=list, exclude=True)
    """The tools bound last, in OpenAI's format."""

    _turns: Iterator[int] = PrivateAttr(default_factory=itertools.count)

    @abstractmethod
    def _reply(self, messages: list[BaseMessage]) -> Reply: ...

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, as a served model would; they are kept in `tools`."""
        self.tools = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=self.tools, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        time.sleep(self.delay)
        return self._result(messages)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(self.delay)
        return self._result(messages)

    def _result(self, messages: list[BaseMessage]) -> ChatResult:
        self.prompts.append(messages)
        report(seconds=self.seconds)
        reply = self._reply(messages)
        if isinstance(reply, Exception):
            raise reply
        message = _message(reply)
        if message.usage_metadata is None:
            message.usage_metadata = _usage(messages, message)
        return ChatResult(generations=[ChatGeneration(message=message)])


class ScriptedRouter(_Scripted):
    """A router that decides what the script says.

    Args:
        replies: One reply a turn, or a function from the messages to a reply.
        stateless: Find the place in the script by counting the assistant's messages with calls, so that one instance
            serves any number of concurrent runs. A reply without a call is then given again. Without it the instance
            remembers its place.
        delay: Seconds that pass before each reply.
        seconds: Seconds of work that each reply reports to the meter.

    Raises:
        ConfigError: When asked: the script is over.

    Example:
        >>> router = ScriptedRouter([("search", {"query": "capital of France"}), "no call"])
        >>> router.invoke("Which city?").tool_calls[0]["args"]
        {'query': 'capital of France'}
        >>> router.invoke("Which city?").text
        'no call'
    """

    stateless: bool = False

    _replies: Sequence[Reply] | Callable[[list[BaseMessage]], Reply] = PrivateAttr()

    def __init__(
        self,
        replies: Sequence[Reply] | Callable[[list[BaseMessage]], Reply],
        *,
        stateless: bool = False,
        delay: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(stateless=stateless, delay=delay, seconds=seconds)
        self._replies = replies

    def _reply(self, messages: list[BaseMessage]) -> Reply:
        if callable(self._replies):
            return self._replies(messages)
        turn = sum(isinstance(m, AIMessage) and bool(m.tool_calls) for m in messages)
        return _at(self._replies, turn if self.stateless else next(self._turns))


class ScriptedExpert(_Scripted):
    """An expert that answers what the script says.

    Args:
        answers: One text for every prompt, a list of texts and errors in order, or a function from the text of the
            newest message to a text.
        delay: Seconds that pass before each answer.
        seconds: Seconds of work that each answer reports to the meter.

    Raises:
        ConfigError: When asked: the script is over.

    Example:
        >>> expert = ScriptedExpert([ConnectionError("down"), "<answer>4</answer>"])
        >>> expert.invoke("2 + 2?")
        Traceback (most recent call last):
        ConnectionError: down
        >>> expert.invoke("2 + 2?").text
        '<answer>4</answer>'
    """

    _answers: str | Sequence[str | Exception] | Callable[[str], str] = PrivateAttr()

    def __init__(
        self,
        answers: str | Sequence[str | Exception] | Callable[[str], str],
        *,
        delay: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(delay=delay, seconds=seconds)
        self._answers = answers

    def _reply(self, messages: list[BaseMessage]) -> Reply:
        if isinstance(self._answers, str):
            return self._answers
        if callable(self._answers):
            return self._answers(messages[-1].text)
        return _at(self._answers, next(self._turns))


def _at(script: Sequence[Reply], turn: int) -> Reply:
    if turn >= len(script):
        raise ConfigError(
            f"the script holds {len(script)} replies and was asked for number {turn + 1}; "
            "add replies, or give a function"
        )
    return script[turn]


def _message(reply: AIMessage | ToolCall | list[ToolCall] | str) -> AIMessage:
    """A message of its own for every call: the caller may write into it."""
    if isinstance(reply, AIMessage):
        return reply.model_copy(deep=True)
    if isinstance(reply, str):
        return AIMessage(reply)
    calls = reply if isinstance(reply, list) else [reply]
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": dict(args), "id": f"call_{i}", "type": "tool_call"}
            for i, (name, args) in enumerate(calls)
        ],
    )


def _usage(messages: list[BaseMessage], reply: AIMessage) -> UsageMetadata:
    read = sum(len(message.text) for message in messages) // 4
    wrote = (len(reply.text) + sum(len(json.dumps(call["args"])) for call in reply.tool_calls)) // 4
    return UsageMetadata(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote)
