"""An expert of a service conversation: what it reads, and what it brings back."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.base import Request, Result
from orchestra_graph.tools.service_expert import PROMPT, ServiceExpert

LOOK = ToolSpec(name="look", description="Looks.", parameters={"type": "object", "properties": {"n": {}}})
BRIEF: list[dict[str, Any]] = [
    {"role": "system", "content": "<policy>\nBe kind.\n</policy>"},
    {"role": "user", "content": "Where is 7?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": "a", "function": {"name": "look", "arguments": '{"n": 7}'}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "here"},
]


async def reply(said: Any, **request: Any) -> tuple[Result, list[BaseMessage], ScriptedRouter]:
    model = ScriptedRouter([said])
    expert = ServiceExpert(model, name="expert-1", functions=[LOOK])
    result = await expert.run(Request(args={}, question="Where is 7?", **request))
    return result, model.prompts[0], model


async def test_it_reads_its_prompt_with_the_policy_and_the_conversation() -> None:
    _, prompt, model = await reply("There.", brief=BRIEF)
    assert [message.type for message in prompt] == ["system", "human", "ai", "tool"]
    assert prompt[0].text == f"{PROMPT}\n<policy>\nBe kind.\n</policy>"
    calls = prompt[2]
    assert isinstance(calls, AIMessage) and calls.tool_calls[0]["args"] == {"n": 7}
    assert [tool["function"]["name"] for tool in model.tools] == ["look"]


async def test_outside_of_a_conversation_it_reads_the_question() -> None:
    _, prompt, _ = await reply("There.")
    assert [message.text for message in prompt] == [PROMPT, "Where is 7?"]


async def test_words_are_the_answer_without_the_thought() -> None:
    result, _, _ = await reply("<think>hm</think>\nThere. ", brief=BRIEF)
    assert (result.content, result.answer, result.artifacts) == ("There.", "There.", [])


async def test_calls_are_handed_on_valid_or_not() -> None:
    broken = {"name": "look", "args": "{oops", "id": "b", "error": None, "type": "invalid_tool_call"}
    said = AIMessage("Moment.", tool_calls=[{"name": "look", "args": {"n": 1}, "id": "a"}], invalid_tool_calls=[broken])
    result, _, _ = await reply(said)
    calls = [{"name": "look", "args": {"n": 1}}, {"name": "look", "args": "{oops"}]
    assert (result.answer, result.artifacts) == (None, [{"text": "Moment.", "calls": calls}])
    assert result.content == "calls look, look"


@pytest.mark.parametrize("said", ["", "<think>only</think>"])
async def test_an_empty_reply_is_a_failure_that_may_pass(said: str) -> None:
    with pytest.raises(ToolError, match="empty") as error:
        await reply(said)
    assert error.value.retryable


async def test_without_functions_nothing_is_bound_and_the_line_says_what_it_is() -> None:
    model = ScriptedRouter(["There."])
    expert = ServiceExpert(model, name="expert-1", functions=[], prompt="P", description="Knows.")
    await expert.run(Request(args={}, question="q"))
    assert (model.tools, model.prompts[0][0].text) == ([], "P")
    spec = expert.spec
    assert (spec.kind, spec.terminal, spec.required, spec.description) == ("expert", True, [], "Knows.")


async def test_a_thought_that_was_cut_off_is_not_told_to_the_user() -> None:
    with pytest.raises(ToolError, match="empty") as error:
        await reply("<think>\nThis customer has a fraud flag, I must not tell")
    assert error.value.retryable


@pytest.mark.parametrize("calls", [[], [{"name": "look", "args": {"n": 12}, "id": "a"}]], ids=["words", "a call"])
async def test_a_reply_that_was_cut_off_neither_reaches_the_user_nor_is_carried_out(calls: list[Any]) -> None:
    with pytest.raises(ToolError, match="cut off at its length limit") as error:
        await reply(AIMessage("Your refund was", tool_calls=calls, response_metadata={"finish_reason": "length"}))
    assert error.value.retryable
