"""One call: cache, tries, fallback tools, and what its outcome holds."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.cache.memory import InMemoryCache

from orchestra_graph.catalog import Catalog, Limits, Price, ToolSpec
from orchestra_graph.errors import ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.provider import charges_of

State = dict[str, Any]
QUERY = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


class Scripted(Tool):
    """Returns or raises what the script says; the last entry for ever."""

    def __init__(self, name: str, *script: Result | Exception | str, **spec: Any) -> None:
        self.spec = ToolSpec(name=name, **{"price": Price(per_call=0.1), **spec})
        self._script = list(script)
        self.requests: list[Request] = []

    async def run(self, request: Request) -> Result:
        self.requests.append(request)
        entry = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(entry, Exception):
            raise entry
        return Result(entry) if isinstance(entry, str) else entry


def final(answer: str = "done") -> tuple[str, dict[str, Any]]:
    return "final_answer", {"answer": answer}


async def run(tools: Sequence[Any], *replies: Any, question: str = "q", **options: Any) -> State:
    graph = create_orchestrator(ScriptedRouter(replies), tools, **options).compile()
    state: State = await graph.ainvoke({"messages": [HumanMessage(question)]})
    return state


def outcome(state: State, turn: int = 0, call: int = 0) -> dict[str, Any]:
    turns = list(state["turns"].values())
    found: dict[str, Any] = turns[turn]["outcomes"][f"{turns[turn]['id']}-{call}"]
    return found


# Tries.


async def test_a_failure_that_may_pass_is_tried_again() -> None:
    tool = Scripted("t", ToolError("busy", retryable=True), TimeoutError("slow"), "there")
    state = await run([tool], ("t", {}), final())
    assert outcome(state)["content"] == "there"
    own = charges_of(state["turns"], "t")
    assert [key.rpartition("#")[2] for key in own] == ["0", "1", "2"]
    assert [charge["status"] for charge in own.values()] == ["uncertain", "uncertain", "paid"]
    assert state["ledger"]["tools"]["t"] | {"calls": 1, "attempts": 3} == state["ledger"]["tools"]["t"]


async def test_tries_end_with_the_limit_of_the_catalog() -> None:
    tool = Scripted("t", ToolError("busy", retryable=True), limits=Limits(retries=1))
    state = await run([tool], ("t", {}), final())
    assert (len(tool.requests), outcome(state)["error"], outcome(state)["content"]) == (2, True, "busy")


async def test_a_failure_for_good_is_not_tried_again() -> None:
    tool = Scripted("t", ToolError("wrong"))
    state = await run([tool], ("t", {}), final())
    assert (len(tool.requests), outcome(state)["error"], outcome(state)["content"]) == (1, True, "wrong")


async def test_a_bug_in_a_tool_is_an_error_outcome_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    state = await run([Scripted("t", KeyError("missing"))], ("t", {}), final())
    assert outcome(state)["content"] == "KeyError: 'missing'"
    assert "tool t failed" in caplog.text


async def test_a_try_that_takes_too_long_is_cancelled() -> None:
    slow = Expert(ScriptedExpert("x", delay=5.0), name="t", role="chat", limits=Limits(timeout=0.05, retries=0))
    state = await run([slow], ("t", {}), final())
    assert "no reply within 0.05 s" in outcome(state)["content"]


# Fallback tools.


async def test_a_fallback_answers_in_place_of_the_tool_called() -> None:
    first = Scripted("first", ToolError("down"), fallback=("second", "third"))
    second, third = Scripted("second", ToolError("down too")), Scripted("third", "there")
    state = await run([first, second, third], ("first", {}), final())
    assert outcome(state) | {"content": "there", "by": "third", "error": False} == outcome(state)
    tools = state["ledger"]["tools"]
    assert (tools["first"]["calls"], tools["third"]["calls"]) == (0, 1)
    assert (tools["first"]["attempts"], tools["second"]["attempts"], tools["third"]["attempts"]) == (1, 1, 1)
    assert tools["third"]["dollars"] == pytest.approx(0.1)
    keys = [key.rpartition("#")[2] for key in charges_of(state["turns"]) if "#" in key and "." not in key]
    assert keys == ["0", "1", "2"]


async def test_all_failures_are_told_when_no_fallback_helps() -> None:
    first = Scripted("first", ToolError("down"), fallback=("second",))
    state = await run([first, Scripted("second", ToolError("down too"))], ("first", {}), final())
    assert outcome(state)["content"] == "down; then second: down too"


async def test_a_fallback_that_cannot_take_the_arguments_is_passed_over() -> None:
    first = Scripted("first", ToolError("down"), fallback=("second",))
    second = Scripted("second", "there", parameters=QUERY)
    state = await run([first, second], ("first", {}), final())
    assert second.requests == []
    assert outcome(state)["content"] == "down; then second: cannot take these arguments"


async def test_a_fallback_that_must_never_be_called_is_not() -> None:
    first, second = Scripted("first", ToolError("down"), fallback=("second",)), Scripted("second", "there")
    graph = create_orchestrator(ScriptedRouter([("first", {}), final()]), [first, second]).compile()
    await graph.ainvoke({"messages": [HumanMessage("q")]}, context={"preferences": {"never": ["second"]}})
    assert second.requests == []


async def test_a_fallback_expert_of_a_function_reads_the_evidence_and_the_function_does_not() -> None:
    first, expert = Scripted("first", ToolError("down"), fallback=("expert",)), ScriptedExpert("hm")
    tools = [Scripted("look", "news"), first, Expert(expert, name="expert", role="chat")]
    await run(tools, ("look", {}), ("first", {}), final())
    assert "Evidence:\n[1] look {}\nnews" in expert.prompts[0][1].text
    assert first.requests[0].evidence == ()


async def test_a_fallback_expert_reads_no_more_than_its_own_context_holds() -> None:
    small = ScriptedExpert("hm")
    tools = [
        Scripted("look", "a" * 300, "b" * 300, "c" * 300),
        Expert(ScriptedExpert([ToolError("down")]), name="large", role="chat", fallback=("small",)),
        Expert(small, name="small", role="chat", limits=Limits(context_tokens=150)),
    ]
    await run(tools, ("look", {}), ("look", {}), ("look", {}), ("large", {}), final())
    shown = small.prompts[0][1].text
    assert "a" * 9 not in shown
    assert "b" * 300 in shown and "c" * 300 in shown


# The cache.


async def test_the_same_call_is_answered_from_the_cache_under_its_own_id_at_price_0() -> None:
    tool = Scripted("t", "there", cache=True, parameters=QUERY)
    calls = [("t", {"query": "a"}), ("t", {"query": "b"}), ("t", {"query": "a"})]
    state = await run([tool], *calls, final(), cache=InMemoryCache())
    assert [r.args["query"] for r in tool.requests] == ["a", "b"]
    assert outcome(state, 2) == {"content": "there", "error": False, "cached": True, "seconds": 0.0}
    assert state["ledger"]["tools"]["t"]["dollars"] == pytest.approx(0.2)
    assert state["ledger"]["tools"]["t"]["calls"] == 3
    (cached,) = [c for c in charges_of(state["turns"], "t").values() if c["status"] == "cached"]
    assert cached == {"tool": "t", "status": "cached", "dollars": 0.0, "seconds": 0.0}


async def test_a_cache_serves_several_runs() -> None:
    tool, cache = Scripted("t", "there", cache=True, parameters=QUERY), InMemoryCache[Any]()
    for _ in range(3):
        state = await run([tool], ("t", {"query": "a"}), final(), cache=cache)
    assert len(tool.requests) == 1
    assert outcome(state)["cached"]


class BrokenCache(InMemoryCache[Any]):
    """A cache whose server is gone."""

    async def aget(self, keys: Any) -> Any:
        raise ConnectionError("the cache is gone")

    async def aset(self, pairs: Any) -> None:
        raise ConnectionError("the cache is gone")


async def test_a_cache_that_fails_costs_no_result(caplog: pytest.LogCaptureFixture) -> None:
    tool = Scripted("t", "there", cache=True, parameters=QUERY)
    state = await run([tool], ("t", {"query": "a"}), final(), cache=BrokenCache())
    assert outcome(state)["content"] == "there"
    assert [record.message for record in caplog.records] == [
        "the cache could not be read",
        "the cache could not keep a result of t",
    ]


@pytest.mark.parametrize(
    ("spec", "requests"), [({"cache": False}, 2), ({"cache": True, "version": "2"}, 1), ({"cache": True}, 1)]
)
async def test_only_tools_that_say_so_are_cached(spec: dict[str, Any], requests: int) -> None:
    tool = Scripted("t", "there", parameters=QUERY, **spec)
    await run([tool], ("t", {"query": "a"}), ("t", {"query": "a"}), final(), cache=InMemoryCache())
    assert len(tool.requests) == requests


async def test_another_version_is_another_call() -> None:
    cache = InMemoryCache[Any]()
    tools = [Scripted("t", v, cache=True, version=v, parameters=QUERY) for v in ("1", "2")]
    states = [await run([tool], ("t", {"query": "a"}), final(), cache=cache) for tool in tools]
    assert [outcome(state)["content"] for state in states] == ["1", "2"]


async def test_failures_are_not_cached() -> None:
    tool = Scripted("t", ToolError("down"), "there", cache=True)
    state = await run([tool], ("t", {}), ("t", {}), final(), cache=InMemoryCache())
    assert [outcome(state, n)["content"] for n in (0, 1)] == ["down", "there"]


async def test_the_answer_of_a_fallback_is_not_cached_as_that_of_the_tool() -> None:
    first = Scripted("a", ToolError("down"), "from a", cache=True, fallback=("b",), parameters=QUERY)
    calls = [("a", {"query": "x"})] * 3
    second = Scripted("b", "from b", parameters=QUERY)
    state = await run([first, second], *calls, final(), cache=InMemoryCache())
    assert [outcome(state, n)["content"] for n in range(3)] == ["from b", "from a", "from a"]
    assert (len(first.requests), outcome(state, 2)["cached"]) == (2, True)


async def test_evidence_of_a_fallback_expert_makes_no_other_call_of_a_function() -> None:
    first = Scripted("first", "there", cache=True, fallback=("expert",), parameters=QUERY)
    tools = [first, Scripted("look", "news"), Expert(ScriptedExpert("hm"), name="expert", role="chat")]
    ask = ("first", {"query": "a"})
    await run(tools, ask, ("look", {}), ask, final(), cache=InMemoryCache())
    assert len(first.requests) == 1


async def test_an_expert_is_asked_again_when_the_evidence_has_changed() -> None:
    expert = Expert(ScriptedExpert("hm"), name="e", role="chat", cache=True)
    look = Scripted("look", "news")
    state = await run([expert, look], ("e", {}), ("e", {}), ("look", {}), ("e", {}), final(), cache=InMemoryCache())
    # The expert's own first remark is evidence of the second call.
    assert [outcome(state, n).get("cached", False) for n in (0, 1, 3)] == [False, False, False]


async def test_a_graph_that_reads_the_question_is_not_answered_with_that_of_another_question() -> None:
    cache = InMemoryCache[Any]()
    expert = Expert(ScriptedExpert(lambda prompt: f"<answer>{prompt}</answer>"), name="e")
    inner = create_orchestrator(ScriptedRouter(lambda m: ("e", {})), [expert]).compile()
    graph = Subgraph(inner, name="g", takes_request=False, cache=True)
    for question in ("first", "second"):
        state = await run([graph], ("g", {}), final(), question=question, cache=cache)
        assert question in outcome(state)["content"]


# What an outcome holds.


async def test_a_terminal_function_of_the_catalog_ends_the_run_with_its_result() -> None:
    def submit(answer: str) -> str:
        """Submit."""
        return f"submitted {answer}"

    spec = ToolSpec(
        name="submit", parameters=QUERY | {"properties": {"answer": {}}, "required": ["answer"]}, terminal=True
    )
    state = await run([submit], ("submit", {"answer": "42"}), catalog=Catalog.of([spec]))
    assert (state["answer"], state["stopped_by"]) == ("submitted 42", "answer")


async def test_an_expert_that_the_catalog_has_end_runs_ends_them_unless_it_is_to_say_whether_it_answers() -> None:
    talk = Expert(ScriptedExpert("hello"), name="talk", role="chat", terminal=True)
    state = await run([talk], ("talk", {}))
    assert (state["answer"], state["stopped_by"], len(state["turns"])) == ("hello", "answer", 1)
    ask = Expert(ScriptedExpert("nothing is missing but the answer"), name="ask")
    state = await run([ask], ("ask", {}), budget=Budget(turns=1))
    assert state["stopped_by"] == "turns"


async def test_artifacts_become_plain_json() -> None:
    day = datetime.date(2026, 1, 2)
    tool = Scripted("t", Result("x", artifacts=[{"day": day, 1: (2, 3)}, object]))
    state = await run([tool], ("t", {}), final())
    assert outcome(state)["artifacts"][0] == {"day": "2026-01-02", "1": [2, 3]}
    assert isinstance(outcome(state)["artifacts"][1], str)


async def test_lone_surrogates_are_replaced() -> None:
    tool = Scripted("t", Result("a\ud800b", answer="\udfff"), terminal=True)
    state = await run([tool], ("t", {}))
    assert (outcome(state)["content"], state["answer"]) == ("a\ufffdb", "\ufffd")


async def test_a_tool_is_told_the_question_and_its_call() -> None:
    tool = Scripted("t", "x", parameters=QUERY)
    state = await run([tool], ("t", {"query": "a"}), final(), question="why?")
    (request,) = tool.requests
    assert (request.args, request.question, request.evidence) == ({"query": "a"}, "why?", ())
    assert [request.call_id] == list(next(iter(state["turns"].values()))["outcomes"])


async def test_experts_read_the_evidence_of_earlier_turns_and_not_of_their_own() -> None:
    expert = ScriptedExpert("hm")
    tools = [Scripted("look", "news"), Expert(expert, name="e", role="chat")]
    await run(tools, [("look", {}), ("e", {})], ("e", {}), final())
    assert "Evidence" not in expert.prompts[0][1].text
    assert expert.prompts[1][1].text == "Question:\nq\n\nEvidence:\n[1] look {}\nnews\n\n[2] e {}\nhm"
