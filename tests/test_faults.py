"""What a run makes of a model server that fails, held against what that server billed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import StateGraph
from pydantic import SecretStr

from orchestra_graph.catalog import Catalog, Limits, ModelSpec, Price
from orchestra_graph.errors import RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.router import MOST_UNREACHED
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.turns import Charge
from orchestra_graph.vllm import ChatVLLM
from tests.openai_server import Answer, OpenAIServer, Refusal, Reply, Silence, Usage, closed_url

PRICE = Price(input=2.0, cached_input=0.5, output=10.0)
PATIENT = Limits(timeout=1.0, retries=1, output_tokens=500)
HASTY = Limits(timeout=0.2, retries=1, output_tokens=500)
DECISION = Reply("the solver can do it", calls=[("solver", {})], usage=Usage(100, 20, 60))
SOLUTION = Reply("<answer>4</answer>", usage=Usage(50, 10))
UNHEARD = Usage(80, 40)
"""Work that the server bills and nobody hears of."""

BROKEN: dict[str, Answer] = {
    "reset mid-body": replace(DECISION, fault="reset"),
    "truncated JSON": replace(DECISION, fault="truncated"),
    "slow drip": replace(DECISION, fault="drip"),
    "hang": Silence(),
    "hang that is billed": Silence(billed=UNHEARD),
    "empty reply": Silence(0),
    "empty reply that is billed": Silence(0, billed=UNHEARD),
}
REFUSED: dict[str, Answer] = {"429": Refusal(429, retry_after=0.05), "500": Refusal(500), "503": Refusal(503)}
FINAL: dict[str, Answer] = {
    "400": Refusal(400, "no such template"),
    "401": Refusal(401, "no such key"),
    "404": Refusal(404, "no such model"),
}

State = dict[str, Any]


def named(answers: Mapping[str, Answer]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("answer", answers.values(), ids=answers.keys())


def orchestrator(
    router: BaseChatModel, *experts: Expert, budget: Budget | None = None, limits: Limits = PATIENT
) -> StateGraph[Any, Any, Any, Any]:
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=limits))
    return create_orchestrator(router, experts, catalog=catalog, budget=budget, max_malformed=2)


async def run(graph: StateGraph[Any, Any, Any, Any]) -> State:
    state: State = await graph.compile().ainvoke({"messages": [HumanMessage("2 + 2?")]})
    return state


async def run_router(url: str, limits: Limits = PATIENT) -> State:
    """A served router with an expert that always knows."""
    solver = Expert(ScriptedExpert("<answer>4</answer>"), name="solver")
    return await run(orchestrator(ChatVLLM(model="m", base_url=url), solver, limits=limits))


async def run_expert(url: str, limits: Limits = PATIENT, *, budget: Budget | None = None) -> State:
    """A router that asks a served expert, then another one that always knows."""
    model = ChatOpenAI(model="m", base_url=url, api_key=SecretStr("k"), max_retries=0)
    solver = Expert(model, name="solver", price=PRICE, limits=limits)
    backup = Expert(ScriptedExpert("<answer>backup</answer>"), name="backup")
    router = ScriptedRouter([("solver", {}), ("backup", {})])
    return await run(orchestrator(router, solver, backup, budget=budget))


def first_error(state: State) -> str:
    """What the router reads of the first call, which failed."""
    (outcome,) = next(iter(state["turns"].values()))["outcomes"].values()
    assert outcome["error"]
    content: str = outcome["content"]
    return content


async def expert_error(url: str) -> str:
    return first_error(await run_expert(url, HASTY))


def attempts(state: State, tool: str) -> list[Charge]:
    """Charges of a tool's model requests, in order; a call's own charge, which has no tokens, is left out."""
    turns = state["turns"].values()
    return [c for turn in turns for key, c in turn["charges"].items() if c["tool"] == tool and "." in key]


def assert_charged_right(server: OpenAIServer, charges: Sequence[Charge]) -> None:
    """What the server billed lies between what is known to be owed and that plus the uncertain."""
    owed = fsum(
        PRICE.dollars(input_tokens=u.prompt, cached_tokens=u.cached, output_tokens=u.completion) for u in server.billed
    )
    known = fsum(c["dollars"] for c in charges)
    most = fsum(c.get("upper", c["dollars"]) for c in charges)
    # A busy machine may cut a try off before the server has read it.
    assert len(charges) >= len(server.requests)
    assert known <= owed + 1e-12
    assert owed <= most + 1e-12
    if not any(c["status"] == "uncertain" for c in charges):
        assert known == pytest.approx(owed, abs=1e-12)


def statuses(charges: Sequence[Charge]) -> list[str]:
    return [c["status"] for c in charges]


@named(BROKEN)
async def test_router_recovers_from_a_broken_reply(openai_server: OpenAIServer, answer: Answer) -> None:
    openai_server.script = [answer, DECISION]
    state = await run_router(openai_server.base_url)
    charges = attempts(state, "router")

    assert (state["answer"], state["stopped_by"]) == ("4", "answer")
    assert statuses(charges) == ["uncertain", "paid"]
    assert charges[0]["upper"] > charges[0]["dollars"] == 0.0
    assert charges[1]["cached_tokens"] == 60
    assert_charged_right(openai_server, charges)


@named(REFUSED)
async def test_router_recovers_from_a_refusal(openai_server: OpenAIServer, answer: Answer) -> None:
    openai_server.script = [answer, DECISION]
    state = await run_router(openai_server.base_url)
    charges = attempts(state, "router")

    assert (state["answer"], state["stopped_by"]) == ("4", "answer")
    assert statuses(charges) == ["failed", "paid"]
    assert_charged_right(openai_server, charges)


@named(BROKEN | REFUSED)
async def test_fallback_decides_when_the_router_stays_down(openai_server: OpenAIServer, answer: Answer) -> None:
    openai_server.script = [answer]
    state = await run_router(openai_server.base_url, HASTY)
    charges = attempts(state, "router")
    decisions = [turn["decision"] for turn in state["turns"].values()]

    assert (state["answer"], state["stopped_by"]) == ("4", "answer")
    assert [d["by"] for d in decisions] == ["router", "router", "fallback"]
    assert decisions[0]["problem"]["kind"] == "router_error"
    assert "the router's model gave no reply: " in decisions[0]["problem"]["detail"]
    assert len(charges) == 4
    assert_charged_right(openai_server, charges)


async def test_fallback_decides_when_nothing_listens() -> None:
    state = await run_router(closed_url())
    charges = attempts(state, "router")

    assert (state["answer"], state["stopped_by"]) == ("4", "answer")
    assert statuses(charges) == ["failed"] * 4
    assert state["ledger"]["tools"]["router"]["dollars"] == 0.0
    assert state["ledger"]["uncertain_dollars"] == 0.0


@named(FINAL)
async def test_router_that_is_refused_for_good_stops_the_run(openai_server: OpenAIServer, answer: Refusal) -> None:
    openai_server.script = [answer]
    with pytest.raises(RouterError, match=f"^the router's model failed: .*{answer.message}"):
        await run_router(openai_server.base_url)
    assert len(openai_server.requests) == 1
    assert openai_server.billed == []


async def test_router_reply_without_text_or_call_is_a_paid_turn(openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply("", usage=Usage(100, 1)), DECISION]
    state = await run_router(openai_server.base_url)
    charges = attempts(state, "router")

    assert state["answer"] == "4"
    assert [len(turn["decision"]["calls"]) for turn in state["turns"].values()] == [0, 1]
    assert statuses(charges) == ["paid", "paid"]
    assert_charged_right(openai_server, charges)


@named(BROKEN | REFUSED)
async def test_expert_is_asked_again(openai_server: OpenAIServer, answer: Answer) -> None:
    openai_server.script = [answer, SOLUTION]
    state = await run_expert(openai_server.base_url)
    charges = attempts(state, "solver")

    assert (state["answer"], state["stopped_by"]) == ("4", "answer")
    assert statuses(charges) == ["failed" if isinstance(answer, Refusal) else "uncertain", "paid"]
    assert_charged_right(openai_server, charges)


@named(BROKEN | REFUSED | FINAL)
async def test_router_reads_that_an_expert_stays_down(openai_server: OpenAIServer, answer: Answer) -> None:
    openai_server.script = [answer]
    state = await run_expert(openai_server.base_url, HASTY)
    charges = attempts(state, "solver")
    error = first_error(state)

    assert (state["answer"], state["stopped_by"]) == ("backup", "answer")
    assert error
    assert "\n" not in error
    assert len(charges) == (1 if answer in FINAL.values() else 2)
    assert_charged_right(openai_server, charges)


async def test_router_reads_that_no_expert_listens() -> None:
    state = await run_expert(closed_url())
    assert state["answer"] == "backup"
    assert statuses(attempts(state, "solver")) == ["failed", "failed"]
    assert state["ledger"]["tools"]["solver"]["dollars"] == 0.0
    assert state["ledger"]["uncertain_dollars"] == 0.0


async def test_empty_text_of_an_expert_is_paid_and_asked_again(openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply("", usage=Usage(50, 1)), SOLUTION]
    state = await run_expert(openai_server.base_url)
    charges = attempts(state, "solver")
    assert state["answer"] == "4"
    assert statuses(charges) == ["paid", "paid"]
    assert_charged_right(openai_server, charges)


async def test_retry_after_is_waited_for_and_is_no_work(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(429, retry_after=0.5), SOLUTION]
    started = time.perf_counter()
    state = await run_expert(openai_server.base_url)

    assert time.perf_counter() - started >= 0.5
    totals = state["ledger"]["tools"]["solver"]
    assert totals["wall_seconds"] >= 0.5
    assert totals["seconds"] < 0.4


async def test_hang_ends_at_the_deadline_of_the_run(openai_server: OpenAIServer) -> None:
    openai_server.script = [Silence(billed=UNHEARD)]
    started = time.perf_counter()
    state = await run_expert(openai_server.base_url, budget=Budget(seconds=0.3))
    charges = attempts(state, "solver")

    assert time.perf_counter() - started < 2.0
    assert state["stopped_by"] == "seconds"
    assert isinstance(state["answer"], str)
    assert statuses(charges) == ["uncertain"]
    assert_charged_right(openai_server, charges)


def test_synchronous_runs_share_clients_after_a_fault(openai_server: OpenAIServer) -> None:
    openai_server.script = [BROKEN["reset mid-body"], DECISION, Refusal(500), DECISION, DECISION]
    router = ChatVLLM(model="m", base_url=openai_server.base_url)
    graph = orchestrator(router, Expert(ScriptedExpert("<answer>4</answer>"), name="solver")).compile()
    states = [graph.invoke({"messages": [HumanMessage("2 + 2?")]}) for _ in range(3)]

    assert [state["answer"] for state in states] == ["4"] * 3
    assert_charged_right(openai_server, [charge for state in states for charge in attempts(state, "router")])


async def test_error_of_a_hang_says_how_long_was_waited(openai_server: OpenAIServer) -> None:
    openai_server.script = [Silence()]
    assert "0.2 s" in await expert_error(openai_server.base_url)


async def test_error_of_a_connection_says_what_broke(openai_server: OpenAIServer) -> None:
    openai_server.script = [Silence(0)]
    assert "connection attempts failed" in await expert_error(closed_url())
    assert "disconnected" in await expert_error(openai_server.base_url)


async def test_reply_without_choices_is_named_and_paid_by_its_usage(openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply(choices=False, usage=Usage(100, 1))]
    state = await run_expert(openai_server.base_url)
    assert "choices" in first_error(state)
    assert_charged_right(openai_server, attempts(state, "solver"))


async def test_a_reply_that_langchain_cannot_read_is_tried_again(openai_server: OpenAIServer) -> None:
    openai_server.script = [replace(DECISION, calls=[("solver", "7")]), DECISION]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key=SecretStr("k"), max_retries=0)
    state = await run(orchestrator(model, Expert(ScriptedExpert("<answer>4</answer>"), name="solver")))
    (turn,) = state["turns"].values()
    router = [charge for charge in turn["charges"].values() if charge["tool"] == "router"]
    assert state["answer"] == "4"
    assert [charge["status"] for charge in router] == ["uncertain", "paid"]
    assert "the server's reply is no message" in router[0]["error"]


async def test_a_server_that_asks_for_a_long_pause_is_not_asked_again(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(429, retry_after=120)]
    state = await run_expert(openai_server.base_url)
    outcomes = [outcome for turn in state["turns"].values() for outcome in turn["outcomes"].values()]
    assert "asks to wait 120 s before another try; expected at most 30 s" in outcomes[0]["content"]
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize("budget", [Budget(), Budget(seconds=1000)])
async def test_a_router_that_cannot_be_reached_is_given_up_before_one_that_finds_no_form(
    openai_server: OpenAIServer, budget: Budget
) -> None:
    openai_server.script = [DECISION, *[Refusal(429, retry_after=3600)] * 9]
    model = ChatVLLM(model="m", base_url=openai_server.base_url)
    solver = Expert(ScriptedExpert("four it is"), name="solver", terminal=False)
    state = await run(create_orchestrator(model, [solver], max_malformed=50, fallback=None, budget=budget))
    assert (state["stopped_by"], state["answer"]) == ("router", "four it is")
    assert len(openai_server.requests) == 1 + MOST_UNREACHED


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(choices=None), "the server's reply has no choices"),
        (Refusal(200, "Rate limit exceeded", code=429), "the server's reply is an error: Rate limit exceeded"),
        (Refusal(200, "Slow down", code="rate_limit_exceeded"), "the server's reply is an error: Slow down"),
    ],
    ids=["null choices", "an error below 200", "its code in words"],
)
async def test_a_fault_that_a_gateway_calls_a_success_is_tried_again(
    openai_server: OpenAIServer, reply: Reply | Refusal, told: str
) -> None:
    openai_server.script = [reply, DECISION]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key=SecretStr("k"), max_retries=0)
    state = await run(orchestrator(model, Expert(ScriptedExpert("<answer>4</answer>"), name="solver")))
    charges = attempts(state, "router")
    assert state["answer"] == "4"
    assert [charge["status"] for charge in charges] == ["uncertain", "paid"]
    assert told in charges[0]["error"]


async def test_an_error_below_200_that_does_not_pass_stops_the_run(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(200, "no such model", code=404)]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key=SecretStr("k"), max_retries=0)
    with pytest.raises(RouterError, match="no such model"):
        await run(orchestrator(model, Expert(ScriptedExpert("<answer>4</answer>"), name="solver")))
    assert len(openai_server.requests) == 1
