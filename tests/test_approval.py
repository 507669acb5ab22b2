"""A person is asked before a call is sent; nothing is paid meanwhile, and nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from orchestra_graph.approval import Approval, most_dollars
from orchestra_graph.catalog import Catalog, Limits, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.protocols.service_messages import turn_messages
from orchestra_graph.routers import Rules
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.repair import repair
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph

CONFIG: Any = {"configurable": {"thread_id": "1"}}
AMOUNT = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
APPROVE = {"type": "approve"}
FINAL = ("final_answer", {"answer": "done"})


class Paid(Tool):
    """Costs 10 cents a call and remembers what it was called with."""

    def __init__(self, name: str, **spec: Any) -> None:
        self.spec = ToolSpec(name=name, **{"price": Price(per_call=0.1), "limits": Limits(retries=0), **spec})
        self.sent: list[dict[str, Any]] = []

    async def run(self, request: Request) -> Result:
        self.sent.append(request.args)
        return Result(f"{self.spec.name} did it", answer="done" if self.spec.terminal else None)


class Failing(Paid):
    async def run(self, request: Request) -> Result:
        await super().run(request)
        raise ValueError("no")


class Conversation:
    """A graph and one thread of it."""

    def __init__(self, tools: Sequence[Any], *replies: Any, **options: Any) -> None:
        self.graph = create_orchestrator(ScriptedRouter(replies), tools, **options).compile(InMemorySaver())
        self.asked: list[dict[str, Any]] = []

    async def ask(self) -> dict[str, Any]:
        return await self._go({"messages": [HumanMessage("q")]})

    async def answer(self, *answers: Any) -> dict[str, Any]:
        ids = [i.id for i in (await self.graph.aget_state(CONFIG)).interrupts]
        return await self._go(Command(resume=dict(zip(ids, answers, strict=True))))

    async def _go(self, given: Any) -> dict[str, Any]:
        state: dict[str, Any] = await self.graph.ainvoke(given, CONFIG)
        self.asked = [i.value for i in state.get("__interrupt__", ())]
        return state


def outcomes(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [outcome for turn in state["turns"].values() for outcome in turn["outcomes"].values()]


async def test_an_approved_call_is_sent_once() -> None:
    refund = Paid("refund", parameters=AMOUNT, description="Pays back.")
    talk = Conversation([refund], ("refund", {"amount": 5}), FINAL, approve={"refund": True})
    await talk.ask()
    (request,) = talk.asked
    assert {key: request[key] for key in ("type", "name", "args", "description")} == {
        "type": "tool_approval",
        "name": "refund",
        "args": {"amount": 5},
        "description": "Pays back.",
    }
    assert request["dollars"] == pytest.approx(0.1)
    assert refund.sent == []
    state = await talk.answer(APPROVE)
    assert (refund.sent, state["answer"]) == ([{"amount": 5}], "done")
    assert state["ledger"]["tools"]["refund"]["dollars"] == pytest.approx(0.1)


async def test_changed_arguments_are_sent_recorded_and_told_to_the_router() -> None:
    refund, seen = Paid("refund", parameters=AMOUNT), []

    def decide(messages: Any) -> Any:
        seen.append(messages[-1].text)
        return FINAL if len(seen) > 1 else ("refund", {"amount": 500})

    talk = Conversation([refund], approve={"refund": True})
    talk.graph = create_orchestrator(ScriptedRouter(decide), [refund], approve={"refund": True}).compile(
        InMemorySaver()
    )
    await talk.ask()
    state = await talk.answer({"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 5}}})
    assert refund.sent == [{"amount": 5}]
    assert outcomes(state)[0]["args"] == {"amount": 5}
    assert '(a person had the arguments replaced by {"amount":5} before the call was sent)' in seen[-1]


async def test_experts_and_service_conversations_read_the_arguments_that_were_sent() -> None:
    refund, model = Paid("refund", parameters=AMOUNT), ScriptedExpert("<answer>done</answer>")
    talk = Conversation(
        [refund, Expert(model, name="solver")], ("refund", {"amount": 500}), ("solver", {}), approve={"refund": True}
    )
    await talk.ask()
    state = await talk.answer({"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 5}}})
    assert state["answer"] == "done"
    read = "".join(message.text for message in model.prompts[-1])
    assert "refund" in read and "500" not in read and '"amount": 5' in read.replace('"amount":5', '"amount": 5')
    first = next(iter(state["turns"].values()))
    called = turn_messages(first, experts=())[0]
    assert isinstance(called, AIMessage) and called.tool_calls[0]["args"] == {"amount": 5}


@pytest.mark.parametrize(("reason", "told"), [({"message": "too much"}, "too much"), ({}, "no reason was given")])
async def test_a_rejected_call_is_told_and_costs_nothing(reason: dict[str, str], told: str) -> None:
    refund = Paid("refund", parameters=AMOUNT)
    talk = Conversation([refund], ("refund", {"amount": 5}), FINAL, approve={"refund": True})
    await talk.ask()
    state = await talk.answer({"type": "reject", **reason})
    first = outcomes(state)[0]
    assert refund.sent == []
    assert first["error"] and first["rejected"] and told in first["content"]
    assert state["ledger"]["dollars"] == 0
    assert "refund" not in state["ledger"]["tools"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("yes", "'yes'"),
        ({"type": "perhaps"}, "perhaps"),
        ({"type": "edit"}, "edited_action"),
        ({"type": "edit", "edited_action": {"name": "other", "args": {}}}, "expected 'refund'"),
        ({"type": "edit", "edited_action": {"name": "refund", "args": {"amount": "x"}}}, "integer"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_asked_for_again(answer: Any, problem: str) -> None:
    refund = Paid("refund", parameters=AMOUNT)
    talk = Conversation([refund], ("refund", {"amount": 5}), FINAL, approve={"refund": True})
    await talk.ask()
    await talk.answer(answer)
    assert problem in talk.asked[0]["problem"]
    state = await talk.answer(APPROVE)
    assert (refund.sent, state["answer"]) == ([{"amount": 5}], "done")


async def test_arguments_that_cannot_be_stored_are_refused_and_another_answer_is_taken() -> None:
    refund = Paid("refund", parameters=AMOUNT)
    talk = Conversation([refund], ("refund", {"amount": 5}), FINAL, approve={"refund": True})
    await talk.ask()
    with pytest.raises(ConfigError, match=r"edited_action.args = {'amount': \d+}: cannot be stored: .*64-bit"):
        await talk.answer({"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 2**70}}})
    state = await talk.answer(APPROVE)
    assert (refund.sent, state["answer"]) == ([{"amount": 5}], "done")


async def test_siblings_are_paid_once_while_one_call_waits() -> None:
    look, refund = Paid("look"), Paid("refund")
    talk = Conversation([look, refund], [("look", {}), ("refund", {}), ("refund", {})], FINAL, approve={"refund": True})
    await talk.ask()
    assert (len(look.sent), len(talk.asked)) == (1, 2)
    state = await talk.answer(APPROVE, {"type": "reject"})
    assert (len(look.sent), len(refund.sent)) == (1, 1)
    assert state["ledger"]["dollars"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("limit", "asked"), [(0.05, True), (0.1, False), ({"look": 0.05}, True), ({"look": 0.2}, False)]
)
async def test_a_threshold_asks_for_what_may_cost_more(limit: Any, asked: bool) -> None:
    talk = Conversation([Paid("look")], ("look", {}), FINAL, approve=limit)
    state = await talk.ask()
    assert bool(talk.asked) is asked
    assert asked or state["answer"] == "done"


async def test_false_asks_for_nothing() -> None:
    talk = Conversation([Paid("look")], ("look", {}), FINAL, approve={"look": False})
    assert (await talk.ask())["answer"] == "done"


async def test_a_fallback_that_has_to_be_asked_for_is_not_sent() -> None:
    refund = Paid("refund")
    talk = Conversation([Failing("look", fallback=("refund",)), refund], ("look", {}), FINAL, approve={"refund": True})
    state = await talk.ask()
    assert refund.sent == []
    assert "a person would have to be asked" in outcomes(state)[0]["content"]


async def test_a_run_is_closed_without_asking() -> None:
    dear, cheap = Paid("dear", terminal=True, price=Price(per_call=0.2)), Paid("cheap", terminal=True)
    talk = Conversation([dear, cheap, Paid("look")], ("look", {}), approve={"cheap": True}, budget=Budget(turns=1))
    state = await talk.ask()
    assert (talk.asked, state["stopped_by"], state["answer"]) == ([], "turns", "done")
    assert (len(dear.sent), len(cheap.sent)) == (1, 0)


async def test_waiting_counts_for_no_budget_and_repair_leaves_the_run_alone(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    talk = Conversation(
        [Paid("look")], ("look", {}), FINAL, approve={"look": True}, run_log=log, budget=Budget(seconds=60.0)
    )
    await talk.ask()
    assert repair(log.path).folded == []
    state = await talk.answer(APPROVE)
    (run,) = read_runs(log.path)
    assert run.totals is not None and run.totals["dollars"] == pytest.approx(0.1)
    assert state["ledger"]["wall_seconds"] < 60


async def test_an_orchestrator_inside_is_asked_for_in_its_own_words_and_pays_once() -> None:
    look, refund = Paid("look"), Paid("refund")
    inner = create_orchestrator(
        ScriptedRouter([("look", {}), ("refund", {}), FINAL], stateless=True), [look, refund], approve={"refund": True}
    ).compile(name="inner")
    talk = Conversation([Subgraph(inner, name="inner")], ("inner", {"request": "help"}), FINAL)
    await talk.ask()
    assert [request["name"] for request in talk.asked] == ["refund"]
    state = await talk.answer(APPROVE)
    assert (len(look.sent), len(refund.sent)) == (1, 1)
    assert state["ledger"]["dollars"] == pytest.approx(0.2)


@pytest.mark.parametrize("approve", [0.05, {"inner": 0.05}])
@pytest.mark.parametrize(("budget", "asked"), [(Budget(), [None]), (Budget(dollars=0.2), [0.2])])
async def test_a_graph_is_asked_for_with_all_that_it_may_spend(approve: Any, budget: Budget, asked: list[Any]) -> None:
    look = Paid("look", terminal=True)
    inner = create_orchestrator(ScriptedRouter([("look", {})], stateless=True), [look]).compile(name="inner")
    graph = Subgraph(inner, terminal=True)
    talk = Conversation([graph], ("inner", {"request": "help"}), approve=approve, budget=budget)
    await talk.ask()
    assert ([request["dollars"] for request in talk.asked], look.sent) == (asked, [])
    state = await talk.answer(APPROVE)
    assert (len(look.sent), state["answer"], state["ledger"]["dollars"]) == (1, "done", pytest.approx(0.1))


async def test_a_graph_whose_budget_is_within_the_threshold_is_sent() -> None:
    inner = create_orchestrator(ScriptedRouter([FINAL]), [Paid("look")]).compile(name="inner")
    talk = Conversation(
        [Subgraph(inner, share=0.5)], ("inner", {"request": "help"}), FINAL, approve=0.1, budget=Budget(dollars=0.2)
    )
    assert (await talk.ask())["answer"] == "done"


async def test_a_run_is_not_closed_by_a_graph_that_has_to_be_asked_for() -> None:
    look = Paid("look", terminal=True)
    inner = create_orchestrator(ScriptedRouter([("look", {})]), [look]).compile(name="inner")
    graph = Subgraph(inner, terminal=True, takes_request=False)
    talk = Conversation([graph, Paid("other")], ("other", {}), approve={"inner": 0.05}, budget=Budget(turns=1))
    state = await talk.ask()
    assert (talk.asked, look.sent, state["answer"]) == ([], [], "other did it")


def test_the_most_that_a_call_can_cost_holds_its_longest_reply_and_all_its_time() -> None:
    spec = ToolSpec(
        name="large",
        kind="expert",
        price=Price(input=1.0, output=10.0, per_call=0.01, per_second=0.001),
        limits=Limits(output_tokens=1000, timeout=60, context_tokens=5000),
    )
    assert most_dollars(spec, 9.0, ["x" * 3996]) == pytest.approx(1000e-6 + 0.01 + 0.01 + 0.06)
    assert most_dollars(spec, None, None) == pytest.approx(5000e-6 + 0.01 + 0.01 + 0.06)


@pytest.mark.parametrize(
    ("approve", "problem"),
    [
        ({"nope": True}, "'nope' is no tool; expected one of known, unknown"),
        ({"known": -1}, "known = -1; expected True, False, or dollars"),
        ({"known": float("nan")}, "known = nan"),
        ({"known": "5 cents"}, "known = '5 cents'"),
        ({"unknown": 0.05}, "the price of unknown is unknown"),
        (0.05, "the price of unknown is unknown"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(approve: Any, problem: str) -> None:
    catalog = Catalog.of(
        [ToolSpec(name="known", kind="expert", price=Price(input=1.0)), ToolSpec(name="unknown", kind="expert")]
    )
    with pytest.raises(ConfigError, match=problem):
        Approval.of(approve, catalog)


async def test_a_program_answers_with_the_tools_own_text() -> None:
    def look(word: str) -> str:
        """Look a word up."""
        return f"about {word}"

    graph = create_orchestrator(Rules(), [look], approve={"look": True}).compile(InMemorySaver())
    await graph.ainvoke({"messages": [HumanMessage("q")]}, CONFIG)
    edited = {"type": "edit", "edited_action": {"name": "look", "args": {"word": "b"}}}
    assert (await graph.ainvoke(Command(resume=edited), CONFIG))["answer"] == "about b"
