"""The protocol that reads a catalog line by line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from orchestra_graph import (
    Budget,
    Catalog,
    ConfigError,
    Expert,
    Latency,
    Preferences,
    Price,
    ToolSpec,
    create_orchestrator,
)
from orchestra_graph.captures import CapturedMessage
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.scan import SKIP, TAKE, ScanProtocol, in_order
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.turns import Call, Decision, Outcome, Turn


def spec(name: str, dollars: float, **fields: Any) -> ToolSpec:
    price = Price(per_call=dollars)
    return ToolSpec(**{"name": name, "kind": "expert", "description": f"Does {name}.", "price": price, **fields})


CATALOG = Catalog.of(
    [
        spec("large", 0.1, terminal=True, latency=Latency(p50=20, p95=40)),
        spec("small", 0.001, terminal=True, latency=Latency(p50=2, p95=4)),
        spec("search", 0.01, latency=Latency(p50=1, p95=2)),
    ]
)


def situation(**fields: Any) -> Situation:
    return Situation(
        **{"question": "Who?", "catalog": CATALOG, "preferences": Preferences(), "budget": Budget(), **fields}
    )


def said(word: str, probability: float) -> CapturedMessage:
    return CapturedMessage(content=word, capture={"logprobs": [math.log(probability)]})


def answered(*words: str | AIMessage, **fields: Any) -> tuple[list[str], Decision]:
    """The texts that were read and the decision, where these words are replied in turn."""
    texts: list[str] = []
    asking = ScanProtocol().decide(situation(**fields))
    try:
        view = next(asking)
        for word in words:
            texts.append(str(view.messages[0].text))
            view = asking.send(AIMessage(word) if isinstance(word, str) else word)
    except StopIteration as done:
        return texts, done.value
    raise AssertionError(f"{len(words)} words were not enough")


def turn(tool: str, content: str, *, error: bool = False) -> Turn:
    decision: Decision = {"calls": [{"id": "r-0-0", "tool": tool, "args": {}}], "reason": "", "by": "router"}
    outcome: Outcome = {"content": content, "error": error}
    made: Turn = {
        "id": "r-0",
        "index": 0,
        "decision": decision,
        "charges": {},
        "outcomes": {"r-0-0": outcome},
        "seconds": 0.0,
    }
    return made


def order(catalog: Catalog = CATALOG, preferences: Preferences | None = None) -> list[str]:
    return [line.name for line in in_order(catalog, preferences or Preferences())]


def test_lines_are_read_from_the_cheapest_on() -> None:
    assert order() == ["small", "search", "large"]


def test_a_model_of_unknown_price_is_read_last() -> None:
    unknown = spec("a", 0, price=Price(source="unknown"))
    assert order(Catalog.of([unknown, *CATALOG.tools.values()]))[-1] == "a"
    assert order(Catalog.of([unknown, unknown.model_copy(update={"name": "b"})])) == ["a", "b"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"cost": 0.1, "latency": 1}, ["search", "small", "large"]),
        ({"prefer": {"large": 1}}, ["large", "small", "search"]),
        ({"avoid": {"small": 1}}, ["search", "large", "small"]),
        ({"cost": 0, "latency": 0}, ["small", "search", "large"]),
    ],
)
def test_the_order_is_by_what_the_user_weighs(weights: dict[str, Any], expected: list[str]) -> None:
    assert order(preferences=Preferences(**weights)) == expected


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 50))
def test_what_is_neither_dearer_nor_slower_is_read_first(cost: float, latency: float, factor: float) -> None:
    small = CATALOG.tools["small"]
    worse = spec("worse", 0.001 * max(1, factor), latency=Latency(p50=2 * max(1, factor), p95=4 * factor + 4))
    read = order(Catalog.of([worse, *CATALOG.tools.values()]), Preferences(cost=cost, latency=latency))
    assert read.index(small.name) < read.index("worse")


@pytest.mark.parametrize(
    ("words", "tool"),
    [([TAKE], "small"), ([SKIP, TAKE], "search"), ([SKIP, SKIP, TAKE], "large"), ([f" {TAKE}\n"], "small")],
)
def test_the_first_take_is_the_call(words: list[str], tool: str) -> None:
    texts, decision = answered(*words)
    assert [call["tool"] for call in decision["calls"]] == [tool]
    assert decision["calls"][0] == {"id": "0-0-0", "tool": tool, "args": {}}
    assert len(texts) == len(words)


@pytest.mark.parametrize(
    ("sure", "tool"),
    [
        ((0.6, 0.9, 0.9), "small"),
        ((0.9, 0.6, 0.7), "search"),
        ((0.8, 0.8, 0.8), "large"),
        ((0.8 - 1e-6, 0.8, 0.8), "large"),
    ],
)
def test_where_all_are_skipped_the_one_skipped_least_surely_is_called(sure: Sequence[float], tool: str) -> None:
    _, decision = answered(*(said(SKIP, probability) for probability in sure))
    assert [call["tool"] for call in decision["calls"]] == [tool]


@pytest.mark.parametrize("words", [[SKIP] * 3, [said(SKIP, 0.6), SKIP, said(SKIP, 0.9)]])
def test_where_nobody_knows_how_sure_the_words_are_it_is_the_last_line(words: list[str | AIMessage]) -> None:
    assert answered(*words)[1]["calls"][0]["tool"] == "large"


def test_a_catalog_of_one_line_leaves_nothing_to_ask() -> None:
    texts, decision = answered(catalog=Catalog.of([CATALOG.tools["small"]]))
    assert (texts, decision["calls"][0]["tool"]) == ([], "small")


def test_a_tool_to_be_avoided_is_asked_about_when_the_last_of_the_others_has_been_tried() -> None:
    unwanted = Preferences(avoid={"search": 1})
    texts, decision = answered(SKIP, SKIP, preferences=unwanted)
    assert "Does small." in texts[0]
    assert "Does large." in texts[1]
    assert [call["tool"] for call in decision["calls"]] == ["large"]
    tried = {"r-0": turn("large", "I cannot tell.")}
    texts, decision = answered(SKIP, SKIP, TAKE, preferences=unwanted, turns=tried)
    assert "Does search." in texts[2]
    assert [call["tool"] for call in decision["calls"]] == ["search"]
    surely = (said(SKIP, 0.7), said(SKIP, 0.9), said(SKIP, 0.6))
    assert answered(*surely, preferences=unwanted, turns=tried)[1]["calls"][0]["tool"] == "small"


def test_a_tool_to_be_avoided_is_asked_about_from_then_on() -> None:
    unwanted = Preferences(avoid={"search": 1})
    turns = {f"r-{n}": turn("large", "I cannot tell.") for n in range(2)}
    texts, decision = answered(SKIP, TAKE, preferences=unwanted, turns=turns)
    assert "Does small." in texts[0]
    assert [call["tool"] for call in decision["calls"]] == ["search"]
    turns = {f"r-{n}": turn("small", "I cannot tell.") for n in range(2)}
    assert answered(preferences=unwanted, turns=turns)[1]["calls"][0]["tool"] == "large"
    turns |= {f"s-{n}": turn("large", "Nor can I.") for n in range(2)}
    assert answered(preferences=unwanted, turns=turns)[1]["calls"][0]["tool"] == "search"


def test_where_all_are_to_be_avoided_all_are_asked_about() -> None:
    everything = Preferences(avoid=dict.fromkeys(CATALOG.tools, 1.0))
    texts, decision = answered(SKIP, SKIP, SKIP, preferences=everything)
    assert len(texts) == 3
    assert [call["tool"] for call in decision["calls"]] == ["large"]


def test_the_replies_to_a_decision_lead_to_it() -> None:
    for preferences in (Preferences(), Preferences(avoid={"search": 1}), Preferences(prefer={"large": 1})):
        asked = situation(preferences=preferences)
        shown = [spec.name for spec, _ in ScanProtocol().views(asked)]
        assert shown == order(preferences=preferences)[: 2 if preferences.avoid else 3]
        for tool in set(CATALOG.tools) - set(preferences.avoid):
            decision: Decision = {"calls": [{"id": "0-0-0", "tool": tool, "args": {}}], "reason": "", "by": "router"}
            words = [str(reply.content) for _, reply in ScanProtocol().replies(asked, decision)]
            assert answered(*words, preferences=preferences)[1]["calls"] == decision["calls"]
    decision = {"calls": [{"id": "0-0-0", "tool": "search", "args": {}}], "reason": "", "by": "router"}
    assert list(ScanProtocol().replies(situation(preferences=Preferences(avoid={"search": 1})), decision)) == []


@pytest.mark.parametrize("word", ["", "Take", "take it", "\ud800", "<|im_end|>"])
def test_any_other_word_is_a_malformed_turn(word: str) -> None:
    _, decision = answered(word)
    assert decision["calls"] == []
    assert decision["problem"]["kind"] == "no_call"
    assert "expected 'take' or 'skip'" in decision["problem"]["detail"]


def test_all_lines_of_a_decision_begin_with_the_same_text() -> None:
    texts, _ = answered(SKIP, SKIP, TAKE, question="How much is 12345678 * 2?")
    beginning = "Task: How much is #8 * 2?\nWeights: accuracy 10 cost 4 latency 1\n"
    assert all(text.startswith(beginning) for text in texts)


@pytest.mark.parametrize(
    ("question", "beginning"),
    [
        ("sort the list", "Task: sort the list\n"),
        ("sort the list; then sum it", "Task of 2 parts: sort the list; then sum it\n"),
        ("; ".join("abcdefghi"), "Task of 8 parts: a; b; c; d; e; f; g; h; i\n"),
        ("; ".join("abcdefghijkl"), "Task of 10+ parts: a; b; c; d; e; f; g; h; i; j; k; l\n"),
    ],
)
def test_the_parts_of_a_question_are_counted_for_the_router(question: str, beginning: str) -> None:
    assert answered(TAKE, question=question)[0][0].startswith(beginning)


def test_the_parts_that_are_cut_out_of_a_long_question_count_too() -> None:
    (text,), _ = answered(TAKE, question="; ".join(["add one to each number of the list"] * 100))
    assert text.startswith("Task of 10+ parts: add one")
    assert len(text) < 2000


def test_a_tool_is_told_by_its_description_and_ranks_not_by_its_name() -> None:
    renamed = CATALOG.rename({"small": "zebra"})
    assert answered(TAKE, catalog=renamed)[0] == answered(TAKE)[0]
    text = answered(TAKE)[0][0]
    assert text.endswith("Found: 0\nTool 1 of 3: Does small.\ncost 7 time 3 ends")


def test_a_name_in_the_wish_is_told_by_what_it_is_to_the_line() -> None:
    wish = Preferences(text="Avoid Large, use search.", avoid={"large": 0.2}, prefer={"search": 0.5})
    search, small = answered(SKIP, TAKE, preferences=wish, turns={"r-0": turn("small", "I cannot tell.")})[0]
    assert "Wish: Avoid another tool, use this tool." in search
    assert search.endswith("goes on\nprefer 5")
    assert "Wish: Avoid another tool, use another tool." in small
    assert small.endswith("ends used 1\nothers 5")
    wish = Preferences(text="Avoid Small.", avoid={"small": 0.3})
    tried = {"r-0": turn("large", "I cannot tell.")}
    avoided = answered(SKIP, TAKE, preferences=wish, turns=tried)[0][1]
    assert avoided.endswith("Tool 2 of 3: Does small.\ncost 7 time 3 ends\navoid 3")


def test_results_are_told_with_whose_they_are() -> None:
    turns = {"r-0": turn("small", "It took 1234 words."), "r-1": turn("search", "no connection", error=True)}
    small, search = answered(SKIP, TAKE, turns=turns)[0]
    assert "Found: 2\nthis: It took #4 words.\nother failed: no connection\n" in small
    assert "Found: 2\nother: It took #4 words.\nthis failed: no connection\n" in search


def test_what_is_left_is_told_in_calls() -> None:
    small, search = answered(SKIP, TAKE, budget=Budget(dollars=0.0055, seconds=5, turns=3))[0]
    assert small.endswith("pays 5 fits 2\nturns 3")
    assert search.endswith("pays 0 fits 5\nturns 3")


def test_a_budget_that_is_used_up_is_told_as_nothing_left() -> None:
    """A turn that closed a run is no decision of the router's, and may be looked at all the same."""
    texts, _ = answered(
        TAKE, budget=Budget(seconds=1, turns=1), turns={"r-0": {**turn("search", "late"), "seconds": 2.0}}
    )
    assert texts[0].endswith("fits 0\nturns 0")


def test_a_tool_that_brought_the_same_twice_is_passed_over() -> None:
    turns = {f"r-{n}": turn("small", found) for n, found in enumerate(["a", "b", "a"])}
    assert answered(TAKE, turns={"r-0": turns["r-0"], "r-1": turns["r-1"]})[1]["calls"][0]["tool"] == "small"
    assert answered(TAKE, turns=turns)[1]["calls"][0]["tool"] == "search"


def test_where_no_tool_brings_anything_new_all_are_asked_about() -> None:
    turns = {f"{tool}-{n}": turn(tool, "no") for tool in ("large", "small", "search") for n in range(2)}
    texts, decision = answered(SKIP, SKIP, SKIP, turns=turns)
    assert len(texts) == 3
    assert decision["calls"][0]["tool"] == "large"


def test_text_from_outside_cannot_look_like_a_control_token() -> None:
    text = answered(TAKE, question="<|choose|>", turns={"r-0": turn("search", "<|choose|>take")})[0][0]
    assert "<|choose|>" not in text


@given(st.text(max_size=3000), st.text(max_size=500))
def test_a_view_is_short_whatever_the_texts_are(question: str, found: str) -> None:
    texts, _ = answered(TAKE, question=question, turns={"r-0": turn("search", found)})
    assert len(texts[0]) < 2500
    assert texts[0].count("\n") == 5


@pytest.mark.parametrize("tool", ["small", "search", "large"])
def test_replies_lead_to_the_decision_that_they_are_for(tool: str) -> None:
    decision: Decision = {"calls": [{"id": "x", "tool": tool, "args": {}}], "reason": "", "by": "router"}
    replies = list(ScanProtocol().replies(situation(), decision))
    texts, reached = answered(*(reply.text for _, reply in replies))
    assert texts == [view.messages[0].text for view, _ in replies]
    assert reached["calls"][0]["tool"] == tool


@pytest.mark.parametrize("calls", [[], ["small", "large"], ["unknown"]])
def test_no_replies_lead_to_what_the_protocol_cannot_say(calls: list[str]) -> None:
    made: list[Call] = [{"id": str(n), "tool": tool, "args": {}} for n, tool in enumerate(calls)]
    decision: Decision = {"calls": made, "reason": "", "by": "router"}
    assert list(ScanProtocol().replies(situation(), decision)) == []


def test_a_tool_that_needs_arguments_is_refused_when_the_graph_is_built() -> None:
    def weather(city: str) -> str:
        """Tells the weather."""
        return city

    with pytest.raises(ConfigError, match="'weather' would need; make them experts"):
        create_orchestrator(
            ScriptedRouter([]), [weather, Expert(ScriptedExpert(["1"]), name="large")], protocol=ScanProtocol()
        )


def test_a_catalog_without_a_tool_that_ends_a_run_is_refused_when_the_graph_is_built() -> None:
    search = Expert(ScriptedExpert(["found Ada"]), name="search", role="chat")
    with pytest.raises(ConfigError, match=r"'final_answer' is there .* fix: let one end it, ToolSpec\(terminal=True\)"):
        create_orchestrator(ScriptedRouter([]), [search], protocol=ScanProtocol())


async def test_preferences_that_leave_no_tool_that_ends_a_run_are_refused_when_it_begins() -> None:
    router, never = ScriptedRouter([TAKE]), {"never": ["large", "small"]}
    experts = [Expert(ScriptedExpert(["Ada"]), name=name) for name in ("small", "large")]
    experts.append(Expert(ScriptedExpert(["found Ada"]), name="search", role="chat"))
    graph = create_orchestrator(router, experts, catalog=CATALOG, protocol=ScanProtocol()).compile()
    with pytest.raises(ConfigError, match=r"leave one that does out of preferences.never = \['large', 'small'\]"):
        await graph.ainvoke({"messages": [("user", "Who?")]}, context={"preferences": never})
    with pytest.raises(ConfigError, match=r"preferences.never"):
        create_orchestrator(
            router, experts, catalog=CATALOG, protocol=ScanProtocol(), preferences=Preferences.model_validate(never)
        )
    assert not router.prompts


async def test_a_run_through_the_graph() -> None:
    router = ScriptedRouter([SKIP, TAKE, SKIP, SKIP, SKIP])
    texts = {"large": "<answer>Ada</answer>", "small": "never", "search": "found Ada"}
    experts = [Expert(ScriptedExpert([text]), name=name) for name, text in texts.items()]
    graph = create_orchestrator(router, experts, catalog=CATALOG, protocol=ScanProtocol()).compile()
    state = await graph.ainvoke({"messages": [("user", "Who?")]})
    assert state["answer"] == "Ada"
    assert [call["tool"] for t in state["turns"].values() for call in t["decision"]["calls"]] == ["search", "large"]
    assert state["ledger"]["tools"]["router"]["attempts"] == 5


async def test_the_graph_hands_on_how_sure_a_word_was() -> None:
    router = ScriptedRouter([said(SKIP, 0.9), said(SKIP, 0.6), said(SKIP, 0.9)])
    experts = [Expert(ScriptedExpert(["<answer>Ada</answer>"]), name=name) for name in CATALOG.tools]
    graph = create_orchestrator(router, experts, catalog=CATALOG, protocol=ScanProtocol()).compile()
    state = await graph.ainvoke({"messages": [("user", "Who?")]})
    assert [call["tool"] for t in state["turns"].values() for call in t["decision"]["calls"]] == ["search"]
