"""`CallingRouter`: a model in process whose tool calls are read as a server's parser reads them.

Qwen3 and other models of Hermes' format write each call as JSON between `<tool_call>` tags. With a server, vLLM's
parser `hermes` makes calls of them before a protocol sees the reply; here nobody stands in between. As there, one call
that is no JSON leaves the whole text as it is: the protocol then says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from langchain_core.messages.tool import ToolCall, tool_call
from langchain_core.outputs import ChatResult

from orchestra_graph.routers.local import LocalRouter
from orchestra_graph.served import Served

_CALL: Final = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


class CallingRouter(LocalRouter):
    """A `LocalRouter` that may be asked with functions."""

    tokenizer_name: str | None = None
    """Folder of the tokenizer, or its name on the Hugging Face hub; the router's name says whose weights these are."""

    @property
    def served(self) -> Served:
        """As of any `LocalRouter`, under the name of the tokenizer."""
        return super().served.model_copy(update={"tokenizer": self.tokenizer_name})

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        result = await super()._agenerate(*args, **kwargs)
        message: Any = result.generations[0].message
        calls = calls_in(message.text) if kwargs.get("tools") else None
        if calls:
            message.content = message.text.partition("<tool_call>")[0]
            message.tool_calls = calls
        return result


def calls_in(text: str) -> list[ToolCall] | None:
    """The calls in a reply; None where one of them cannot be read.

    >>> calls_in('I look. <tool_call>{"name": "search", "arguments": {"query": "Ulm"}}</tool_call>')[0]["args"]
    {'query': 'Ulm'}
    """
    calls = []
    for number, body in enumerate(_CALL.findall(text.rpartition("</think>")[2])):
        try:
            read = json.loads(body)
            calls.append(tool_call(name=read["name"], args=dict(read.get("arguments") or {}), id=f"call-{number}"))
        except (ValueError, TypeError, KeyError):
            return None
    return calls
