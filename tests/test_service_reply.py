"""What replies in a service conversation decide."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.engine import final_answer_spec
from orchestra_graph.protocols.service_reply import MOST_CALLS, message_of, read_expert, read_router

ORDER = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
CATALOG = Catalog.of(
    [
        ToolSpec(name="cancel", parameters=ORDER),
        ToolSpec(name="look", parameters={"type": "object", "properties": {}}),
        ToolSpec(name="expert-1", kind="expert"),
        ToolSpec(name="expert-2", kind="expert"),
        final_answer_spec(),
    ]
)
TURN = "0a1b2c3d-4"


def said(text: str, *calls: tuple[str, Any], **rest: Any) -> AIMessage:
    """A reply with calls; arguments that are a string came as no JSON."""
    whole = [{"name": n, "args": a, "id": f"c{i}"} for i, (n, a) in enumerate(calls) if isinstance(a, dict)]
    broken = [{"name": n, "args": a, "id": "b", "error": None} for n, a in calls if isinstance(a, str)]
    return AIMessage(text, tool_calls=whole, invalid_tool_calls=broken, **rest)


def calls_of(reply: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    decision = read_router(reply, CATALOG, TURN)
    assert [call["id"] for call in decision["calls"]] == [f"{TURN}-{n}" for n in range(len(decision["calls"]))]
    return [(call["tool"], call["args"]) for call in decision["calls"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<think>a</think>\n\n<message>Hello.</message>", "Hello."),
        ("<think>a</think> b <think>c</think> Hello. ", "Hello."),
        ("a</think><message>no</message> <message>\nHello.\n</message> bye", "\nHello.\n"),
        ("<think>never ends", ""),
        ("<message>Hello.", "Hello."),
        ("  Hello.  ", "Hello."),
        ("", ""),
    ],
)
def test_the_message_is_what_stands_after_the_thought_and_inside_the_last_tags(text: str, message: str) -> None:
    assert message_of(text) == message


def test_a_reply_without_a_call_is_the_message_to_the_user() -> None:
    assert calls_of(said("<think>x</think><message>Hello.</message>")) == [("final_answer", {"answer": "Hello."})]
    assert calls_of(said("Hello.")) == [("final_answer", {"answer": "Hello."})]


def test_calls_of_the_domain_go_out_side_by_side_with_what_was_said() -> None:
    reply = said("<think>x</think><message>One moment.</message>", ("look", {}), ("cancel", {"order": 7}))
    assert calls_of(reply) == [("look", {}), ("cancel", {"order": 7})]
    assert read_router(reply, CATALOG, TURN)["reason"] == "One moment."


def test_an_expert_stands_for_the_whole_reply_and_the_last_of_several_is_asked() -> None:
    assert calls_of(said("", ("call_expert", {"expert": "expert-1"}))) == [("expert-1", {})]
    mixed: list[tuple[str, Any]] = [("look", {}), ("call_expert", {"expert": "expert-2"}), ("cancel", "{oops")]
    assert calls_of(said("", *mixed)) == [("expert-2", {})]
    both = ("call_expert", {"expert": "expert-1"}), ("call_expert", {"expert": "expert-2"})
    assert calls_of(said("", *both)) == [("expert-2", {})]
    seventh: list[tuple[str, Any]] = [("look", {})] * 6 + [("call_expert", {"expert": "expert-1"})]
    assert calls_of(said("", *seventh)) == [("expert-1", {})]


@pytest.mark.parametrize(
    ("reply", "kind", "detail"),
    [
        (said("", ("call_expert", {"expert": "expert-9"})), "unknown_tool", "'call_expert'"),
        (said("", ("call_expert", {"expert": "look"})), "unknown_tool", "'call_expert'"),
        (said("", ("call_expert", {"expert": ["a"]})), "unknown_tool", "'call_expert'"),
        (said("", ("call_expert", {})), "unknown_tool", "'call_expert'"),
        (said("", ("expert-1", {})), "unknown_tool", "'expert-1'"),
        (said("", ("final_answer", {"answer": "Hi."})), "unknown_tool", "'final_answer'"),
        (said("", ("gone", {})), "unknown_tool", "'gone'"),
        (said("", ("cancel", {"order": "7"})), "bad_arguments", "order"),
        (said("", ("cancel", {})), "bad_arguments", "order"),
        (said("", ("cancel", "{oops")), "bad_arguments", "oops"),
        (said('<tool_call>{"name": "look"'), "unreadable", "not parsed by the server"),
        (said("<message>Hi.</message><tool_call>oops</tool_call>"), "unreadable", "oops"),
        (said(""), "no_call", ""),
        (said("<think>only"), "no_call", ""),
        (said("<message> </message>"), "no_call", ""),
        (said("Half a mess", response_metadata={"finish_reason": "length"}), "truncated", "cut off"),
    ],
)
def test_what_is_no_valid_reply_calls_nothing_and_says_why(reply: AIMessage, kind: str, detail: str) -> None:
    decision = read_router(reply, CATALOG, TURN)
    assert decision["calls"] == []
    assert decision["problem"]["kind"] == kind
    assert detail in decision["problem"]["detail"]


def test_valid_calls_go_out_beside_invalid_ones() -> None:
    reply = said("", ("look", {}), ("call_expert", {"expert": "nobody"}), ("cancel", "{oops"))
    assert calls_of(reply) == [("look", {})]
    assert read_router(reply, CATALOG, TURN)["problem"]["kind"] == "unknown_tool"


def test_at_most_six_calls_of_a_reply_are_sent() -> None:
    reply = said("", *[("cancel", {"order": n}) for n in range(9)])
    assert calls_of(reply) == [("cancel", {"order": n}) for n in range(MOST_CALLS)] and MOST_CALLS == 6
    assert "9 calls" in read_router(reply, CATALOG, TURN)["problem"]["detail"]
    assert "problem" not in read_router(said("", *[("look", {})] * 6), CATALOG, TURN)


def test_an_experts_reply_is_read_as_the_routers_and_says_who_decided() -> None:
    calls: list[dict[str, Any]] = [
        {"name": "look", "args": {}},
        {"name": "cancel", "args": "{oops"},
        {"name": "gone", "args": {}},
    ]
    decision = read_expert("Moment.", calls, CATALOG, TURN)
    assert [call["tool"] for call in decision["calls"]] == ["look"]
    assert (decision["by"], decision["reason"]) == ("expert", "Moment.")
    assert decision["problem"]["detail"].count("\n") == 1
    text = read_expert("All done.", [], CATALOG, TURN)
    assert text["calls"] == [{"id": f"{TURN}-0", "tool": "final_answer", "args": {"answer": "All done."}}]
    assert text["by"] == "expert"
    nested = read_expert("", [{"name": "call_expert", "args": {"expert": "expert-1"}}], CATALOG, TURN)
    assert (nested["calls"], nested["problem"]["kind"]) == ([], "unknown_tool")


NAMES = st.sampled_from(["look", "cancel", "call_expert", "expert-1", "final_answer", "gone", ""])
ARGS = st.one_of(
    st.text(max_size=20),
    st.dictionaries(st.sampled_from(["order", "expert", "answer"]), st.one_of(st.integers(), st.text(), st.none())),
)


@given(st.text(), st.lists(st.tuples(NAMES, ARGS), max_size=9), st.sampled_from(["stop", "length"]))
def test_every_reply_is_a_decision(text: str, calls: list[tuple[str, Any]], finish: str) -> None:
    decision = read_router(said(text, *calls, response_metadata={"finish_reason": finish}), CATALOG, TURN)
    assert decision["by"] == "router"
    assert len(decision["calls"]) <= MOST_CALLS
    assert decision["calls"] or decision["problem"]["detail"]
    for call in decision["calls"]:
        assert CATALOG.tools[call["tool"]].validator.is_valid(call["args"])
    experts = [call for call in decision["calls"] if CATALOG.tools[call["tool"]].kind == "expert"]
    assert not experts or len(decision["calls"]) == 1
