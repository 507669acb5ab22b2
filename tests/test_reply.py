import json
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, convert_to_openai_messages
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.mend import MAX_ARGUMENTS
from orchestra_graph.protocols.reply import FINAL_ANSWER, MAX_CALLS, MAX_REASON, read_reply
from orchestra_graph.turns import Decision, Turn
from tests.examples import examples


def function(name: str, *required: str, terminal: bool = False, **properties: Any) -> ToolSpec:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return ToolSpec(name=name, parameters=parameters, terminal=terminal)


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
SEARCH = function("web_search", "query", query=TEXT, limit=WHOLE, deep={"type": "boolean"})
MATH = function("math", "x", x={"type": "number"}, kinds={"type": "array"}, more={"type": "object"})
LOOSE = ToolSpec(name="loose", parameters={"type": "object", "properties": {"any": True}})
LARGE = function("large", terminal=True)
SMALL = function("small", terminal=True)
CATALOG = Catalog.of([SEARCH, MATH, LOOSE, LARGE, SMALL])
FINAL = function(FINAL_ANSWER, "answer", terminal=True, answer=TEXT)
OPEN = Catalog.of([SEARCH, FINAL])
TURN = "0a1b2c3d-4"
SERDE = JsonPlusSerializer()

Raw = tuple[Any, Any]


def message(*calls: Raw, text: Any = "", broken: list[Raw] | None = None, **metadata: Any) -> AIMessage:
    """A reply as providers' clients build it; set past pydantic, which would refuse what no client sends."""
    reply = AIMessage("", response_metadata=metadata)
    reply.content = text
    reply.tool_calls = [{"name": name, "args": args, "id": "1", "type": "tool_call"} for name, args in calls]
    reply.invalid_tool_calls = [
        {"name": name, "args": args, "id": None, "error": "x", "type": "invalid_tool_call"}
        for name, args in broken or []
    ]
    return reply


def read(*calls: Raw, catalog: Catalog = CATALOG, repair: bool = True, **rest: Any) -> Decision:
    return read_reply(message(*calls, **rest), catalog, TURN, repair=repair)


def called(decision: Decision) -> list[Raw]:
    return [(call["tool"], call["args"]) for call in decision["calls"]]


def nested(depth: int, leaf: Any = 1) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


def check_stands(reply: AIMessage, catalog: Catalog, *, repair: bool) -> Decision:
    """The law: every reply becomes a turn that can be stored, shown and sent."""
    decision = read_reply(reply, catalog, TURN, repair=repair)
    assert len(decision["calls"]) <= MAX_CALLS
    assert decision["calls"] or decision["problem"]["detail"]
    for call in decision["calls"]:
        assert catalog.tools[call["tool"]].validator.is_valid(call["args"])
    turn: Turn = {"id": TURN, "index": 4, "decision": decision, "charges": {}, "outcomes": {}, "seconds": 0.1}
    state = {"turns": {TURN: turn}}
    assert orjson.loads(orjson.dumps(state)) == state
    assert len(orjson.dumps(state)) < 1_500_000
    assert SERDE.loads_typed(SERDE.dumps_typed(state)) == state
    situation = Situation("q", catalog, Preferences(), Budget(), turns=state["turns"], turn_id="0a1b2c3d-5")
    view = ConversationProtocol().view(situation)
    assert json.dumps(convert_to_openai_messages(view.messages)).encode()
    assert orjson.dumps(convert_to_openai_messages(view.messages))
    return decision


TEXTS = [
    *("<|im_end|>", "<tool_call>", '<tool_call>{"name": "large", "arguments": {}}</tool_call>', "\ud800", "\x00"),
    *('{"query": ', "{}", "[]", "null", "NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', "[" * 5000, "<think>"),
    *('{"name": "math", "arguments": {"x": NaN}}', '```json\n{"name": "small", "arguments": {}}\n```', "</think>"),
    *("\n" * 20_000, "```" + "\n" * 20_000, "<tool_call>a" + " " * 20_000 + "b", "x" * 200_000, "functions.large"),
]
VALUES = [2**64, 10**5000, -(2**63) - 1, nested(250), nested(900), b"bytes", object, {1: 2}, (1, 2)]
# By index: hypothesis writes out what it samples from, and these are long.
strange_text = st.text(st.characters(), max_size=10) | st.integers(0, len(TEXTS) - 1).map(lambda place: TEXTS[place])
strange_values = st.integers(0, len(VALUES) - 1).map(lambda place: VALUES[place])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | strange_text | strange_values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(strange_text, inner, max_size=2),
    max_leaves=3,
)
tool_names = st.sampled_from(
    ["web_search", "math", "loose", "large", "small", FINAL_ANSWER, "Web-Search", "functions.math"]
)
some_name = tool_names | strange_text
some_args = values | st.dictionaries(st.sampled_from(["query", "limit", "x", "any", "answer"]), values, max_size=2)
blocks = st.lists(
    strange_text
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "reasoning", "tool_use", "x"]), "text": strange_text | st.none()}
    )
    | st.just({}),
    max_size=4,
)


@st.composite
def replies(draw: st.DrawFn) -> Callable[[], AIMessage]:
    """A reply behind a function: hypothesis writes out what it has drawn, which some of these do not survive."""
    reply = message(
        *draw(st.lists(st.tuples(some_name, some_args), max_size=2))
        * draw(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 2000])),
        text=draw(strange_text | blocks | st.just(5).map(lambda n: "<|x|>" * n * 40_000)),
        broken=draw(st.lists(st.tuples(some_name | st.none(), strange_text | st.none()), max_size=2)),
    )
    reason = draw(st.sampled_from(["stop", "length", "max_tokens", None, 3, ["length"]]))
    reply.response_metadata = {"finish_reason": reason}
    return lambda: reply


@pytest.mark.slow
@pytest.mark.parametrize("repair", [True, False])
@pytest.mark.parametrize("catalog", [CATALOG, OPEN], ids=["terminals", "open"])
@settings(max_examples=examples(2500), deadline=None, suppress_health_check=list(HealthCheck))
@given(make=replies())
def test_ten_thousand_arbitrary_replies_become_turns(
    make: Callable[[], AIMessage], catalog: Catalog, repair: bool
) -> None:
    check_stands(make(), catalog, repair=repair)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(make=replies())
def test_some_arbitrary_replies_become_turns(make: Callable[[], AIMessage]) -> None:
    check_stands(make(), CATALOG, repair=True)


def test_a_valid_call_is_taken_as_it_stands() -> None:
    decision = read(("web_search", {"query": "a", "limit": 3}), text=" because ")
    assert decision == {
        "calls": [{"id": f"{TURN}-0", "tool": "web_search", "args": {"query": "a", "limit": 3}}],
        "reason": "because",
        "by": "router",
    }


def test_arguments_are_no_part_of_the_reply_any_more() -> None:
    args = {"any": [1]}
    decision = read(("loose", args))
    args["any"].append(2)
    assert called(decision) == [("loose", {"any": [1]})]


REPAIRS: list[tuple[str, AIMessage, Raw, str]] = [
    (
        "case of the name",
        message(("WebSearch", {"query": "a"})),
        ("web_search", {"query": "a"}),
        "'WebSearch' for web_search",
    ),
    ("namespace", message(("functions.math", {"x": 1})), ("math", {"x": 1}), "'functions.math' for math"),
    ("number as text", message(("math", {"x": "2.5"})), ("math", {"x": 2.5}), "x = '2.5' as number"),
    (
        "text as number",
        message(("web_search", {"query": 7})),
        ("web_search", {"query": "7"}),
        "query = 7 as string",
    ),
    (
        "truth as text",
        message(("web_search", {"query": "a", "deep": "True"})),
        ("web_search", {"query": "a", "deep": True}),
        "deep = 'True' as boolean",
    ),
    ("list as text", message(("math", {"x": 1, "kinds": "[1]"})), ("math", {"x": 1, "kinds": [1]}), "as array"),
    ("object as text", message(("math", {"x": 1, "more": "{}"})), ("math", {"x": 1, "more": {}}), "as object"),
    ("unknown argument", message(("large", {"query": "a"})), ("large", {}), "dropped what it does not take: 'query'"),
    (
        "arguments as text",
        message(broken=[("web_search", '{"query": "a"}')]),
        ("web_search", {"query": "a"}),
        "read arguments that came as text",
    ),
    (
        "the only text",
        message(broken=[("web_search", "cats")]),
        ("web_search", {"query": "cats"}),
        "the text for query",
    ),
    (
        "quoted text",
        message(broken=[("web_search", '"cats"')]),
        ("web_search", {"query": "cats"}),
        "the text for query",
    ),
    ("no arguments", message(broken=[("large", "")]), ("large", {}), "empty text as no arguments"),
    (
        "hermes",
        message(text='So.\n<tool_call>\n{"name": "math", "arguments": {"x": 1}}\n</tool_call>'),
        ("math", {"x": 1}),
        "written as text",
    ),
    ("hermes, left open", message(text='<tool_call>{"name": "large", "arguments": {}}'), ("large", {}), "as text"),
    (
        "hermes, closed in a value",
        message(text='<tool_call>\n{"name": "web_search", "arguments": {"query": "</tool_call>"}}\n</tool_call>'),
        ("web_search", {"query": "</tool_call>"}),
        "written as text",
    ),
    ("llama", message(text='{"name": "math", "parameters": {"x": 1}}'), ("math", {"x": 1}), "written as text"),
    ("fence", message(text='```json\n{"name": "large", "arguments": {}}\n```'), ("large", {}), "written as text"),
]


@pytest.mark.parametrize(("reply", "call", "note"), [case[1:] for case in REPAIRS], ids=[case[0] for case in REPAIRS])
def test_what_has_one_reading_is_mended_and_said(reply: AIMessage, call: Raw, note: str) -> None:
    decision = check_stands(reply, CATALOG, repair=True)
    assert called(decision) == [call]
    assert note in "; ".join(decision["repaired"])
    assert "problem" not in decision


@pytest.mark.parametrize("reply", [case[1] for case in REPAIRS], ids=[case[0] for case in REPAIRS])
def test_nothing_is_mended_where_that_is_switched_off(reply: AIMessage) -> None:
    decision = check_stands(reply, CATALOG, repair=False)
    assert decision["calls"] == []
    assert "repaired" not in decision


def test_the_reason_is_what_stands_beside_a_call_in_text() -> None:
    reply = (
        '<think>hm <tool_call>{"name": "large", "arguments": {}}</tool_call></think>So.\n<tool_call>{"name": "small"}'
    )
    decision = read(text=reply)
    assert (decision["reason"], called(decision)) == ("So.", [("small", {})])


def test_a_tag_in_a_value_ends_no_call() -> None:
    first = '<tool_call>{"name": "web_search", "arguments": {"query": "</tool_call> <tool_call>{}"}}</tool_call>'
    decision = read(text=f'One,\n{first} two. <tool_call>{{"name": "math", "arguments": {{"x": 1}}}}')
    assert called(decision) == [("web_search", {"query": "</tool_call> <tool_call>{}"}), ("math", {"x": 1})]
    assert decision["reason"] == "One,\n two."


@pytest.mark.parametrize(
    ("text", "reason"), [("a</think>b", "b"), ("<think>a", ""), ("<think>a</think> b", "b"), ("a b", "a b")]
)
def test_thoughts_are_no_reason(text: str, reason: str) -> None:
    assert read(("large", {}), text=text)["reason"] == reason


PROBLEMS: list[tuple[str, AIMessage, str, str]] = [
    ("nothing", message(), "no_call", "holds no tool call; call one of web_search, math, loose, large, small"),
    ("words", message(text="It is 4."), "no_call", "holds no tool call"),
    ("unknown", message(("sear", {})), "unknown_tool", "no tool 'sear'; expected one of web_search, math"),
    ("no name", message(broken=[("", "{}")]), "unknown_tool", "no tool ''"),
    (
        "missing",
        message(("web_search", {})),
        "bad_arguments",
        "expected {query: string, limit: integer?, deep: boolean?}",
    ),
    ("wrong type", message(("math", {"x": "many"})), "bad_arguments", "arguments {'x': 'many'}"),
    ("two causes", message(("web_search", {"limit": "a", "query": []})), "bad_arguments", "web_search"),
    ("broken JSON", message(broken=[("web_search", '{"query": "a')]), "bad_arguments", "no JSON object"),
    ("NaN", message(("math", {"x": float("nan")})), "bad_arguments", "null is not of type"),
    ("NaN as text", message(("math", {"x": "NaN"})), "bad_arguments", "x"),
    ("huge integer", message(("loose", {"any": 10**5000})), "bad_arguments", "cannot be stored"),
    ("huge integer for a text", message(("web_search", {"query": 10**5000})), "bad_arguments", "cannot be stored"),
    ("long integer", message(("loose", {"any": 2**64})), "bad_arguments", "cannot be stored"),
    ("depth", message(("loose", {"any": nested(300)})), "bad_arguments", "cannot be stored"),
    ("depth with a surrogate", message(("loose", {"any": nested(900, "\ud800")})), "bad_arguments", "cannot be stored"),
    ("size", message(("loose", {"any": "x" * 1_000_000})), "bad_arguments", f"expected at most {MAX_ARGUMENTS:,}"),
    ("text call", message(text="<tool_call>{nope}</tool_call>"), "unreadable", "is no JSON object; expected"),
    ("cut off", message(text="First I", finish_reason="length"), "truncated", "cut off at the length limit"),
    (
        "cut in a call",
        message(broken=[("math", '{"x": ')], finish_reason="length"),
        "truncated",
        "cut off at the length",
    ),
    (
        "cut in text",
        message(text='<tool_call>{"na', stop_reason="max_tokens"),
        "truncated",
        "cut off at the length limit",
    ),
    (
        "cut, maybe",
        message(("web_search", {"query": "ca"}), finish_reason="length"),
        "truncated",
        "may not be complete",
    ),
]


@pytest.mark.parametrize(
    ("reply", "kind", "detail"), [case[1:] for case in PROBLEMS], ids=[case[0] for case in PROBLEMS]
)
def test_everything_else_is_a_problem_that_says_why(reply: AIMessage, kind: str, detail: str) -> None:
    decision = check_stands(reply, CATALOG, repair=True)
    assert (decision["calls"], decision["problem"]["kind"]) == ([], kind)
    assert detail in decision["problem"]["detail"]
    assert len(decision["problem"]["detail"]) < 2000
    assert "repaired" not in decision


def test_the_deepest_arguments_that_are_taken_can_be_stored() -> None:
    depth = next(n for n in range(300, 0, -1) if read(("loose", {"any": nested(n)}))["calls"])
    assert depth > 200
    check_stands(message(("loose", {"any": nested(depth)})), CATALOG, repair=True)


def test_surrogates_in_arguments_are_replaced() -> None:
    decision = check_stands(message(("loose", {"\ud800a": ["\udfff", {"b": "ok"}]})), CATALOG, repair=True)
    assert called(decision) == [("loose", {"\ufffda": ["\ufffd", {"b": "ok"}]})]


def test_good_calls_go_out_beside_bad_ones() -> None:
    decision = read(("math", {"x": 1}), ("nope", {}), broken=[("math", "{")])
    assert called(decision) == [("math", {"x": 1})]
    assert decision["problem"]["kind"] == "unknown_tool"
    assert decision["problem"]["detail"].count("\n") == 1


def test_notes_of_calls_that_are_not_sent_are_left_out() -> None:
    decision = read(("Math", {"x": "many"}), ("large", {}))
    assert called(decision) == [("large", {})]
    assert "repaired" not in decision


def test_a_call_that_ends_the_run_goes_alone() -> None:
    for repair in (True, False):
        decision = read(("large", {}), ("math", {"x": 1}), ("small", {}), repair=repair)
        assert called(decision) == [("math", {"x": 1})]
        assert decision["problem"]["kind"] == "too_many_calls"
        assert "large, small was not sent" in decision["problem"]["detail"]


@pytest.mark.parametrize("second", ["small", "large"])
def test_of_several_calls_that_end_the_run_the_first_goes(second: str) -> None:
    decision = read(("large", {}), (second, {}))
    assert called(decision) == [("large", {})]
    assert f"{second} was not sent" in decision["problem"]["detail"]


def test_only_the_first_calls_of_many_are_sent() -> None:
    decision = check_stands(message(*[("math", {"x": n}) for n in range(5000)]), CATALOG, repair=True)
    assert called(decision) == [("math", {"x": n}) for n in range(MAX_CALLS)]
    assert "5000 calls in one reply" in decision["problem"]["detail"]
    assert "problem" not in read(*[("math", {"x": n}) for n in range(MAX_CALLS)])


def test_many_calls_as_text_are_bounded_too() -> None:
    decision = check_stands(
        message(text='<tool_call>{"name": "math", "arguments": {"x": 1}}</tool_call>' * 5000), CATALOG, repair=True
    )
    assert len(decision["calls"]) == MAX_CALLS
    assert decision["repaired"] == ["read a call that was written as text"]


def test_calls_before_the_limit_on_length_are_sent() -> None:
    decision = read(("math", {"x": 1}), ("math", {"x": 2}), finish_reason="length")
    assert called(decision) == [("math", {"x": 1})]
    assert decision["problem"]["kind"] == "truncated"


def test_ambiguous_names_are_not_guessed() -> None:
    twins = Catalog.of([function("web_search"), function("websearch"), function("math")])
    decision = read(("WebSearch", {}), catalog=twins)
    assert (decision["calls"], decision["problem"]["kind"]) == ([], "unknown_tool")
    assert called(read(("websearch", {}), catalog=twins)) == [("websearch", {})]
    assert read(("---", {}), catalog=twins)["calls"] == []


def test_arguments_that_a_schema_allows_are_never_dropped() -> None:
    loose = ToolSpec(name="loose", parameters={"type": "object", "properties": {"n": WHOLE}})
    decision = read(("loose", {"n": "3", "other": 1}), catalog=Catalog.of([loose]))
    assert called(decision) == [("loose", {"n": 3, "other": 1})]


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "required": ["x"]},
        {"type": "object", "properties": {"x": False}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"type": ["integer", "null"]}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "required": ["x"], "$defs": {"n": WHOLE}},
    ],
)
@pytest.mark.parametrize("args", ["text", '{"x": "1"}', "{}", "[1]", {"x": "1"}, {"x": "a"}, {"y": 1}, {"x": None}])
def test_odd_schemas_are_no_trouble(parameters: dict[str, Any], args: Any) -> None:
    catalog = Catalog.of([ToolSpec(name="t", parameters=parameters)])
    reply = message(broken=[("t", args)]) if isinstance(args, str) else message(("t", args))
    decision = check_stands(reply, catalog, repair=True)
    if args == {"x": "1"} and "null" in str(parameters):
        assert called(decision) == [("t", {"x": 1})]


def test_words_are_the_final_answer_where_no_tool_gives_it() -> None:
    decision = read(text="It is 4.", catalog=OPEN)
    assert called(decision) == [(FINAL_ANSWER, {"answer": "It is 4."})]
    assert "final answer" in decision["repaired"][0]
    assert read(text="It is 4.", catalog=OPEN, repair=False)["problem"]["kind"] == "no_call"
    assert read(text="It is", catalog=OPEN, finish_reason="length")["problem"]["kind"] == "truncated"


def test_a_reason_is_kept_to_a_length() -> None:
    decision = read(("large", {}), text="a" * 1_000_000)
    assert len(decision["reason"]) < MAX_REASON * 4 + 100


def test_text_in_blocks_is_read() -> None:
    text = [{"type": "reasoning", "reasoning": "r"}, {"type": "text", "text": "be"}, "cause"]
    assert read(("large", {}), text=text)["reason"] == "because"


HOSTILE: list[Callable[[], str]] = [
    lambda: "<tool_call>a" + " " * 1_000_000 + "b",
    lambda: "```" + "\n" * 1_000_000,
    lambda: "```json\n" + "\n" * 1_000_000 + "x",
    lambda: "<tool_call>" * 90_000,
    lambda: "<think>" * 140_000,
    lambda: "{" * 1_000_000 + "}",
    lambda: '{"name": "a", "arguments": ' + "[" * 500_000 + "}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_megabyte_takes_no_time(text: Callable[[], str]) -> None:
    reply = message(text=text())
    started = time.process_time()
    check_stands(reply, CATALOG, repair=True)
    assert time.process_time() - started < 3


def test_the_question_survives_beside_a_view_of_any_turn() -> None:
    view = ConversationProtocol().view(Situation("\ud800q", CATALOG, Preferences(), Budget()))
    assert isinstance(view.messages[-1], HumanMessage)
    assert view.messages[-1].text == "\ufffdq"
