from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from orchestra_training.rollout.calling import CallingRouter, calls_in

from tests.training.coin import tokenizer

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
FUNCTION = {"type": "function", "function": {"name": "search", "description": "", "parameters": {"type": "object"}}}


class Says:
    """An engine that writes one text."""

    def __init__(self, text: str) -> None:
        self.ids = tokenizer().encode(text, add_special_tokens=False).ids

    async def complete(self, prompt: Any, *, max_tokens: int, temperature: float) -> Any:
        return self.ids, [-0.5] * len(self.ids)


@pytest.mark.parametrize(
    ("text", "calls", "said"),
    [
        (
            'I look.<tool_call>\n{"name": "search", "arguments": {"q": 1}}\n</tool_call>',
            [("search", {"q": 1})],
            "I look.",
        ),
        (
            '<think>or <tool_call>{"name": "no"}</tool_call>?</think><tool_call>{"name": "a"}</tool_call>'
            '<tool_call>{"name": "b", "arguments": {}}',
            [("a", {}), ("b", {})],
            None,
        ),
        ('<tool_call>{"name": "search", "arg</tool_call>', [], '<tool_call>{"name": "search", "arg</tool_call>'),
        ('<tool_call>{"arguments": {}}</tool_call>', [], '<tool_call>{"arguments": {}}</tool_call>'),
        ("It is 42.", [], "It is 42."),
    ],
)
async def test_calls_are_read_as_the_parser_of_a_server_reads_them(
    text: str, calls: list[tuple[str, dict[str, Any]]], said: str | None
) -> None:
    router = CallingRouter(engine=Says(text), tokenizer=tokenizer(), chat_template=TEMPLATE)
    reply = await router.bind_tools([FUNCTION]).ainvoke([HumanMessage("?")])
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == calls
    assert said is None or reply.text == said


async def test_without_functions_there_are_no_calls() -> None:
    text = '<tool_call>{"name": "search"}</tool_call>'
    router = CallingRouter(engine=Says(text), tokenizer=tokenizer(), chat_template=TEMPLATE)
    reply = await router.ainvoke([HumanMessage("?")])
    assert (reply.tool_calls, reply.text) == ([], text)
    assert calls_in(text) is not None
