"""Messages of service conversations: what is shown of turns and earlier runs, and what is left where room is short."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from orchestra_graph.protocols.service_messages import CUT, GAP, NO_RESULT, Counter, Unit, fit, shown, turn_messages
from orchestra_graph.tokens import FolderTokenizer, Tokenizer
from orchestra_graph.turns import Call, Outcome, Turn

TOKENIZER = FolderTokenizer(Path(__file__).parent / "data" / "tokenizer")
COUNTER = Counter(TOKENIZER)


def turn(*calls: tuple[str, Outcome | None], reason: str = "") -> Turn:
    made: list[Call] = [{"id": f"t-0-{n}", "tool": tool, "args": {"n": n}} for n, (tool, _) in enumerate(calls)]
    return {
        "id": "t-0",
        "index": 0,
        "decision": {"calls": made, "reason": reason, "by": "router"},
        "charges": {},
        "outcomes": {f"t-0-{n}": outcome for n, (_, outcome) in enumerate(calls) if outcome is not None},
        "seconds": 0.0,
    }


def fine(content: str) -> Outcome:
    return {"content": content, "error": False}


def failed(content: str) -> Outcome:
    return {"content": content, "error": True}


def called(*ids: str, text: str = "") -> AIMessage:
    return AIMessage(text, tool_calls=[{"name": "look", "args": {"q": "<think>"}, "id": i} for i in ids])


def result(id: str, text: str = "found") -> ToolMessage:
    return ToolMessage(text, tool_call_id=id, name="look")


def test_calls_and_results_of_a_turn() -> None:
    (said, first, second) = turn_messages(turn(("look", fine("a")), ("pay", failed("no money")), reason="Moment."), ())
    assert isinstance(said, AIMessage)
    assert said.text == "Moment."
    assert [(c["name"], c["args"], c["id"]) for c in said.tool_calls] == [
        ("look", {"n": 0}, "t-0-0"),
        ("pay", {"n": 1}, "t-0-1"),
    ]
    assert isinstance(first, ToolMessage) and isinstance(second, ToolMessage)
    assert (first.text, first.tool_call_id, first.status) == ("a", "t-0-0", "success")
    assert (second.text, second.tool_call_id, second.status) == ("Error: no money", "t-0-1", "error")


def test_an_error_that_says_so_itself_is_shown_as_it_is_and_a_missing_result_is_named() -> None:
    messages = turn_messages(turn(("look", failed("Error: gone")), ("look", None)), ())
    assert [message.text for message in messages[1:]] == ["Error: gone", NO_RESULT]


def test_experts_and_final_answers_leave_no_trace() -> None:
    assert turn_messages(turn(("expert-1", fine("x")), reason="why"), {"expert-1"}) == []
    assert turn_messages(turn(("final_answer", fine("x"))), ()) == []
    assert turn_messages(turn(reason="no call"), ()) == []


def test_calls_are_shown_with_their_results_and_no_result_without_its_call() -> None:
    conversation = [
        SystemMessage("s"),
        result("0"),
        HumanMessage("Where is it?<|im_end|>"),
        called("1", "2"),
        result("2", "two </tool_response>"),
        result("1", "one"),
        SystemMessage("s"),
        result("9", "nobody asked"),
        AIMessage(""),
        AIMessage("There."),
        called("3"),
        HumanMessage("Thanks."),
    ]
    units = list(shown(conversation))
    assert [[m.type for m in unit] for unit in units] == [
        ["human"],
        ["ai", "tool", "tool"],
        ["ai"],
        ["ai", "tool"],
        ["human"],
    ]
    texts = [m.text for unit in units for m in unit]
    assert texts == ["Where is it?< |im_end|>", "", "one", "two < /tool_response>", "There.", "", NO_RESULT, "Thanks."]
    calls = units[1][0]
    assert isinstance(calls, AIMessage) and calls.tool_calls[0]["args"] == {"q": "< think>"}
    assert conversation[3].tool_calls[0]["args"] == {"q": "<think>"}  # type: ignore[attr-defined]


@given(st.lists(st.sampled_from(["human", "said", "calls", "orphan", "system"]), max_size=20))
def test_what_was_shown_once_is_shown_again_in_the_same_words(kinds: list[str]) -> None:
    conversation: list[BaseMessage] = []
    for n, kind in enumerate(kinds):
        calls = [called(f"{n}-0", f"{n}-1", text="x"), result(f"{n}-0"), result(f"{n}-1", "<|im_end|>")]
        one: dict[str, list[BaseMessage]] = {
            "human": [HumanMessage(f"h{n} <think>")],
            "said": [AIMessage(f"a{n}")],
            "calls": list(calls),
            "orphan": [result(f"{n}-9")],
            "system": [SystemMessage("s")],
        }
        conversation += one[kind]
    units = list(shown(conversation))
    assert list(shown(m for unit in units for m in unit)) == units
    for unit in units:
        asked = [call["id"] for m in unit if isinstance(m, AIMessage) for call in m.tool_calls]
        assert [m.tool_call_id for m in unit if isinstance(m, ToolMessage)] == asked
    growing = [list(shown(conversation[:n])) for n in range(len(conversation) + 1) if _is_whole(conversation[:n])]
    for earlier, later in pairwise(growing):
        assert later[: len(earlier)] == earlier


def _is_whole(messages: list[BaseMessage]) -> bool:
    """Whether no result of the last calls is missing."""
    asked = {call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    return asked <= {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}


class Slow(Tokenizer):
    """Counts words, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def count(self, text: str) -> int:
        self.asked += 1
        return len(text.split())

    def first(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])

    def last(self, text: str, tokens: int) -> str:
        raise AssertionError("nothing is cut from the front")


def test_a_text_is_counted_once_and_surrogates_do_no_harm() -> None:
    slow = Slow()
    counter = Counter(slow)
    assert [counter.count("one two \ud800"), counter.count("one two \ud800"), counter.count("one")] == [3, 3, 1]
    assert slow.asked == 2


def sized(*tokens: int) -> list[Unit]:
    return [Unit([HumanMessage(f"m{n}")], size) for n, size in enumerate(tokens)]


def kept(units: list[Unit], room: int, system: int = 10) -> list[str]:
    messages = fit(Unit([SystemMessage("s")], system), units, room, COUNTER)
    assert messages[0].text == "s"
    return [m.text for m in messages[1:]]


def test_a_conversation_that_fits_is_whole() -> None:
    assert kept(sized(30, 30, 30), 100) == ["m0", "m1", "m2"]


def test_a_longer_one_keeps_whole_messages_of_the_first_and_the_last_half_with_a_mark_between() -> None:
    units = sized(20, 20, 20, 20, 20, 20)
    assert kept(units, 100) == ["m0", "m1", GAP.format(n=2), "m4", "m5"]
    assert kept(units, 99) == ["m0", GAP.format(n=3), "m4", "m5"]
    assert kept(sized(100, 20, 20), 100) == [GAP.format(n=1), "m1", "m2"]


def test_the_newest_message_is_always_there() -> None:
    assert kept(sized(10, 10, 70), 90) == ["m0", GAP.format(n=1), "m2"]
    assert kept(sized(20, 20), 30) == [GAP.format(n=1), "m1"]


def test_one_that_is_too_long_by_itself_is_cut() -> None:
    text = "word " * 500
    newest = COUNTER.unit(
        [
            called("1", "2"),
            result("1", text),
            result("2", text),
        ]
    )
    system = COUNTER.unit([SystemMessage("policy")])
    messages = fit(system, [*sized(20), newest], 200, COUNTER)
    assert [m.type for m in messages] == ["system", "human", "ai", "tool", "tool"]
    assert all(m.text.endswith(CUT) and m.text.startswith("word word") for m in messages[3:])
    assert COUNTER.unit(messages).tokens < 200 + 40
    unlucky = fit(Unit([SystemMessage("s")], 500), [newest], 200, COUNTER)
    assert [m.type for m in unlucky] == ["system", "ai", "tool", "tool"]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(60, 400), st.integers(1, 30))
def test_a_cut_keeps_order_halves_and_the_newest(sizes: list[int], room: int, system: int) -> None:
    units = sized(*sizes)
    names = kept(units, room, system)
    marks = [n for n, name in enumerate(names) if not name.startswith("m")]
    places = [int(name[1:]) for n, name in enumerate(names) if n not in marks]
    assert places == sorted(set(places)) and places[-1] == len(units) - 1
    whole = len(places) == len(units)
    assert whole == (system + sum(sizes) <= room or not marks)
    assert system + sum(sizes[place] for place in places[:-1]) <= room
    if marks:
        (mark,) = marks
        left_out = places[mark] - (places[mark - 1] + 1 if mark else 0)
        assert names[mark] == GAP.format(n=left_out)
        assert system + sum(sizes[place] for place in places[:mark]) <= room // 2 or mark == 0
