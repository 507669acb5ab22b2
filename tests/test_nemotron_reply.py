"""What becomes of the released checkpoint's replies: one call of an expert, or a record of why there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from orchestra_graph.protocols.nemotron_qa import nemotron_catalog
from orchestra_graph.protocols.nemotron_reply import read_choice

CATALOG = nemotron_catalog()


def call(name: str, args: Any) -> Any:
    return {"name": name, "args": args, "id": None, "type": "tool_call"}


def broken(name: str | None, args: str) -> Any:
    return {"name": name, "args": args, "id": None, "error": None, "type": "invalid_tool_call"}


def read(*calls: Any, text: str = "", invalid: Any = (), **metadata: Any) -> Any:
    reply = AIMessage(text, tool_calls=list(calls), invalid_tool_calls=list(invalid), response_metadata=metadata or {})
    return read_choice(reply, CATALOG, "r-3")


def test_a_valid_call_becomes_one_of_the_expert() -> None:
    decision = read(call("enhance_reasoning", {"model": "reasoner-2"}), text="<think>long</think>because")
    assert decision == {
        "calls": [{"id": "r-3-0", "tool": "reasoner-2", "args": {}}],
        "reason": "because",
        "by": "router",
    }


def test_only_the_first_valid_call_counts() -> None:
    decision = read(
        call("enhance_reasoning", {}),
        call("answer", {"model": "answer-math-1"}),
        call("search", {"model": "search-1"}),
    )
    assert [c["tool"] for c in decision["calls"]] == ["answer-math-1"]
    assert decision["problem"]["kind"] == "bad_arguments"
    assert decision["problem"]["detail"].endswith("3 calls in one reply; only the first valid one is executed")


def test_arguments_beside_the_model_do_no_harm() -> None:
    assert read(call("search", {"model": "search-1", "query": "x"}))["calls"][0] == {
        "id": "r-3-0",
        "tool": "search-1",
        "args": {},
    }


@pytest.mark.parametrize(
    ("calls", "kind", "words"),
    [
        ([call("reasoner-1", {"model": "reasoner-1"})], "unknown_tool", "no tool 'reasoner-1'; expected one of enh"),
        ([call("answer", {"model": "gpt-5"})], "bad_arguments", "expected model: one of answer-1, answer-2"),
        ([call("answer", {"model": "search-1"})], "bad_arguments", "answer: arguments"),
        ([call("answer", {"model": ["answer-1"]})], "bad_arguments", "answer: arguments"),
        ([call("answer", {})], "bad_arguments", "answer: arguments {}"),
        ([call("Answer", {"model": "answer-1"})], "unknown_tool", "no tool 'Answer'"),
    ],
)
def test_an_invalid_call_is_recorded(calls: list[Any], kind: str, words: str) -> None:
    decision = read(*calls)
    assert decision["calls"] == []
    assert decision["problem"]["kind"] == kind
    assert words in decision["problem"]["detail"]


@pytest.mark.parametrize("args", ['{"model": "answer-1"', "answer-1", ""])
def test_arguments_that_are_no_json_are_recorded(args: str) -> None:
    decision = read(invalid=[broken("answer", args)])
    assert (decision["calls"], decision["problem"]["kind"]) == ([], "bad_arguments")
    assert read(invalid=[broken(None, args)])["problem"]["kind"] == "unknown_tool"


@pytest.mark.parametrize(
    ("text", "metadata", "kind"),
    [
        ("I would call answer-1.", {}, "no_call"),
        ("", {}, "no_call"),
        ("<think>so long", {"finish_reason": "length"}, "truncated"),
        ('<tool_call>\n{"name": "answer", "arguments": {"model": "answer-1"}}\n</tool_call>', {}, "unreadable"),
    ],
)
def test_a_reply_without_a_call_is_recorded(text: str, metadata: Any, kind: str) -> None:
    decision = read(text=text, **metadata)
    assert (decision["calls"], decision["problem"]["kind"]) == ([], kind)


def test_a_whole_call_of_a_reply_that_was_cut_off_counts() -> None:
    decision = read(call("answer", {"model": "answer-1"}), finish_reason="length")
    assert decision["calls"][0]["tool"] == "answer-1"
    assert "problem" not in decision


def test_what_is_kept_of_many_invalid_calls_is_short() -> None:
    calls = [call("answer", {"model": f"{n}" * 1000}) for n in range(1000)]
    assert len(read(*calls)["problem"]["detail"]) < 5_000


@given(
    calls=st.lists(st.tuples(st.text(max_size=10), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))),
    text=st.text(max_size=50),
)
def test_no_reply_raises(calls: Any, text: str) -> None:
    decision = read(*(call(name, args) for name, args in calls), text=text)
    assert decision["calls"] == []
    assert "problem" in decision
