"""Runs that are interrupted or killed and taken up again: nothing is paid twice, and nothing that was paid is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, interrupt
from pydantic import Field

from orchestra_graph.catalog import Catalog, Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.ledger import Spent
from orchestra_graph.meter import report
from orchestra_graph.preferences import Budget
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.served import Served
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.provider import ANSWERED, LIMITS, PRICE, Books, CrashError, Mortal, Paid, Provider, charges_of

State = dict[str, Any]
QUESTION: Any = {"messages": [HumanMessage("q")]}
CONFIG: Any = {"configurable": {"thread_id": "1"}}


class Vendor(Tool):
    """Counts what it bills; may ask a person, or die, before it answers."""

    def __init__(self, name: str, *, asks: bool = False, dies: int = 0, wait: float = 0.0, **spec: Any) -> None:
        self.spec = ToolSpec(name=name, **{"price": Price(per_call=0.5), **spec})
        self.asks = asks
        self.dies = dies
        self.wait = wait
        self.billed = 0

    async def run(self, request: Request) -> Result:
        await asyncio.sleep(self.wait)
        self.billed += 1
        if self.dies:
            self.dies -= 1
            raise CrashError
        said = interrupt({"ask": self.spec.name}) if self.asks else "nobody"
        return Result(f"{self.spec.name}: {said}")


class AskingModel(Tool):
    """Pays a model, then asks a person, then pays the model again."""

    def __init__(self, model: Provider, questions: int = 1) -> None:
        self.spec = ToolSpec(name="asking", price=PRICE, limits=LIMITS)
        self.model = model
        self.questions = questions

    async def run(self, request: Request) -> Result:
        for n in range(self.questions):
            await self.model.ainvoke(f"before question {n}")
            interrupt({"ask": n})
        await self.model.ainvoke("after")
        return Result("done")


def replies(*calls: Any) -> ScriptedRouter:
    """A router that finds its place by what it reads, so that another process can go on with it."""
    return ScriptedRouter([*calls, ("final_answer", {"answer": "end"})], stateless=True)


def build(tools: list[Any], router: Any, **options: Any) -> Callable[[Any], Any]:
    """Compiles a fresh graph each time, as a new process would."""
    return lambda saver: create_orchestrator(router, tools, **options).compile(checkpointer=saver)


async def test_an_interrupt_waits_for_a_person_and_a_finished_sibling_is_not_run_again() -> None:
    asking, sibling = Vendor("asking", asks=True, wait=0.05), Vendor("sibling")
    saver = InMemorySaver()
    make = build([asking, sibling], replies([("asking", {}), ("sibling", {})]))
    state = await make(saver).ainvoke(QUESTION, CONFIG)
    assert state["__interrupt__"][0].value == {"ask": "asking"}
    assert state.get("answer") is None
    await asyncio.sleep(0.5)
    state = await make(saver).ainvoke(Command(resume="yes"), CONFIG)
    assert (state["answer"], sibling.billed) == ("end", 1)
    outcomes = next(iter(state["turns"].values()))["outcomes"].values()
    assert sorted(o["content"] for o in outcomes) == ["asking: yes", "sibling: nobody"]
    assert state["ledger"]["tools"]["sibling"]["dollars"] == 0.5
    assert state["ledger"]["wall_seconds"] < 0.4


@pytest.mark.parametrize("questions", [1, 2])
@pytest.mark.parametrize("with_log", [True, False])
async def test_what_was_paid_before_an_interrupt_is_in_the_ledger(
    questions: int, with_log: bool, tmp_path: Path
) -> None:
    model = Provider()
    log = RunLog(tmp_path / "runs.jsonl") if with_log else None
    graph = build([AskingModel(model, questions)], replies(("asking", {})), run_log=log)(InMemorySaver())
    state = await graph.ainvoke(QUESTION, CONFIG)
    for _ in range(questions):
        state = await graph.ainvoke(Command(resume="yes"), CONFIG)
    assert state["answer"] == "end"
    assert model.books.answered == sum(range(1, questions + 2))
    assert state["ledger"]["tools"]["asking"]["dollars"] == pytest.approx(model.books.known)


async def test_who_asks_a_person_after_a_failure_that_might_pass_is_not_tried_again() -> None:
    class Booking(Tool):
        spec = ToolSpec(name="book", price=PRICE, limits=Limits(retries=3))
        tries = 0

        async def run(self, request: Request) -> Result:
            self.tries += 1
            try:
                raise ConnectionError("the vendor is down")
            except ConnectionError:
                return Result(interrupt("Book by hand?"))

    booking = Booking()
    graph = build([booking], replies(("book", {})))(InMemorySaver())
    await graph.ainvoke(QUESTION, CONFIG)
    assert booking.tries == 1
    state = await graph.ainvoke(Command(resume="done"), CONFIG)
    assert (booking.tries, state["answer"]) == (2, "end")


async def test_another_process_that_goes_on_after_an_interrupt_knows_what_was_paid(tmp_path: Path) -> None:
    model, saver = Provider(), InMemorySaver()
    make = build([AskingModel(model)], replies(("asking", {})), run_log=RunLog(tmp_path / "runs.jsonl"))
    await make(saver).ainvoke(QUESTION, CONFIG)
    state = await make(saver).ainvoke(Command(resume="yes"), CONFIG)
    assert model.books.answered == 3
    assert state["ledger"]["tools"]["asking"]["dollars"] == pytest.approx(model.books.known)
    assert state["ledger"]["uncertain_dollars"] == 0.0


NEW_PROCESS = pytest.mark.parametrize("new_process", [True, False], ids=["new process", "same graph"])


@NEW_PROCESS
async def test_what_a_nested_orchestrator_paid_before_an_interrupt_is_in_the_ledger(
    new_process: bool, tmp_path: Path
) -> None:
    books = Books()
    paid = Mortal(Provider(books=books), name="paid", role="chat", price=PRICE, limits=LIMITS)
    inner = create_orchestrator(replies(("paid", {}), ("asking", {})), [paid, Vendor("asking", asks=True)])
    tool = Subgraph(inner.compile(), name="inner", takes_request=False)
    make, saver = build([tool], replies(("inner", {})), run_log=RunLog(tmp_path / "runs.jsonl")), InMemorySaver()
    graph = make(saver)
    state = await graph.ainvoke(QUESTION, CONFIG)
    assert state["__interrupt__"][0].value == {"ask": "asking"}
    state = await (make(saver) if new_process else graph).ainvoke(Command(resume="yes"), CONFIG)
    assert (state["answer"], books.answered) == ("end", 1)
    assert state["ledger"]["tools"]["inner/paid"]["dollars"] == pytest.approx(books.known)


@NEW_PROCESS
@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_killed_run_goes_on_and_pays_nothing_again_whose_result_was_written(
    new_process: bool, durability: Any, tmp_path: Path
) -> None:
    first, sibling, dying = Vendor("first"), Vendor("sibling"), Vendor("dying", dies=1, wait=0.1)
    log = RunLog(tmp_path / "runs.jsonl")
    make = build([first, sibling, dying], replies(("first", {}), [("sibling", {}), ("dying", {})]), run_log=log)
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "state.sqlite")) as saver:
        graph = make(saver)
        with pytest.raises(CrashError):
            await graph.ainvoke(QUESTION, CONFIG, durability=durability)
        state = await (make(saver) if new_process else graph).ainvoke(None, CONFIG, durability=durability)
    assert (state["answer"], first.billed, sibling.billed, dying.billed) == ("end", 1, 1, 2)
    tools = state["ledger"]["tools"]
    assert (tools["first"]["dollars"], tools["sibling"]["dollars"]) == (0.5, 0.5)
    assert (tools["dying"]["dollars"], tools["dying"]["uncertain_dollars"]) == (0.5, 0.5)
    assert [c["status"] for c in charges_of(state["turns"], "dying").values()] == ["uncertain", "paid"]
    (run,) = read_runs(log.path)
    assert run.totals is not None
    assert run.totals["dollars"] == state["ledger"]["dollars"]


@NEW_PROCESS
async def test_a_request_that_was_lost_with_its_process_stands_as_uncertain(new_process: bool, tmp_path: Path) -> None:
    model, saver = Provider(script=["answer", "crash"], text=""), InMemorySaver()
    expert = Mortal(model, name="expert", role="chat", price=PRICE, limits=LIMITS)
    make = build([expert], replies(("expert", {})), run_log=RunLog(tmp_path / "runs.jsonl"))
    graph = make(saver)
    with pytest.raises(CrashError):
        await graph.ainvoke(QUESTION, CONFIG)
    model.text = "fine"
    state = await (make(saver) if new_process else graph).ainvoke(None, CONFIG)
    ledger = state["ledger"]["tools"]["expert"]
    assert (model.books.answered, model.books.lost) == (2, 1)
    assert ledger["dollars"] <= model.books.owed <= ledger["dollars"] + ledger["uncertain_dollars"]
    assert sum("." in key for key in charges_of(state["turns"], "expert")) == model.books.requests


async def test_without_a_run_log_the_same_process_still_knows_what_was_paid() -> None:
    model = Provider(script=["answer", "crash"], text="")
    expert = Mortal(model, name="expert", role="chat", price=PRICE, limits=LIMITS)
    graph = build([expert], replies(("expert", {})))(InMemorySaver())
    with pytest.raises(CrashError):
        await graph.ainvoke(QUESTION, CONFIG)
    model.text = "fine"
    state = await graph.ainvoke(None, CONFIG)
    ledger = state["ledger"]["tools"]["expert"]
    assert ledger["dollars"] == pytest.approx(model.books.known)
    assert ledger["uncertain_dollars"] >= ANSWERED


@NEW_PROCESS
async def test_a_router_that_was_refused_is_asked_again_and_its_tries_are_kept(
    new_process: bool, tmp_path: Path
) -> None:
    router = Provider(script=["lost", "invalid"], calls=[("final_answer", {"answer": "end"})])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    saver = InMemorySaver()
    make = build([Vendor("look")], router, catalog=catalog, run_log=RunLog(tmp_path / "runs.jsonl"), fallback=None)
    graph = make(saver)
    with pytest.raises(RouterError, match="no such model"):
        await graph.ainvoke(QUESTION, CONFIG)
    state = await (make(saver) if new_process else graph).ainvoke(None, CONFIG)
    ledger = state["ledger"]["tools"]["router"]
    assert state["answer"] == "end"
    assert (router.books.answered, router.books.lost) == (1, 1)
    assert ledger["dollars"] == pytest.approx(ANSWERED)
    assert ledger["uncertain_dollars"] >= ANSWERED
    assert ledger["attempts"] == 3


class Hanging(Provider):
    """A router whose server never answers."""

    asked: asyncio.Event = Field(default_factory=asyncio.Event)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        self.books.requests += 1
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_router_that_is_cancelled_and_asked_again_stays_within_the_budget() -> None:
    router, closer = Hanging(), Expert(Provider(), name="closer", price=Price())
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))  # at most $0.05 and some a try
    graph = build([closer], router, catalog=catalog, budget=Budget(dollars=0.1))(InMemorySaver())
    for given in (QUESTION, None):
        run = asyncio.create_task(graph.ainvoke(given, CONFIG, durability="sync"))
        await asyncio.wait_for(router.asked.wait(), 10)
        router.asked.clear()
        run.cancel()
        await asyncio.wait([run])
    state = await asyncio.wait_for(graph.ainvoke(None, CONFIG, durability="sync"), 10)
    assert (state["stopped_by"], router.books.requests) == ("dollars", 2)
    assert state["ledger"]["tools"]["router"]["attempts"] == 2


class Briefing(ConversationProtocol):
    """Fails to write its first brief: a server that it needs is away for a moment."""

    fails = True

    def brief(self, situation: Situation, spec: ToolSpec) -> None:
        if self.fails:
            self.fails = False
            raise ConnectionError("away for a moment")


@pytest.mark.parametrize("with_log", [True, False])
async def test_a_decision_whose_calls_could_not_be_sent_is_in_the_ledger(with_log: bool, tmp_path: Path) -> None:
    router, closer = Provider(calls=[("closer", {})]), Expert(Provider(), name="closer", price=Price())
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    log = RunLog(tmp_path / "runs.jsonl") if with_log else None
    graph = build([closer], router, catalog=catalog, protocol=Briefing(), run_log=log)(InMemorySaver())
    with pytest.raises(ConnectionError):
        await graph.ainvoke(QUESTION, CONFIG, durability="sync")
    state = await graph.ainvoke(None, CONFIG, durability="sync")
    ledger = state["ledger"]["tools"]["router"]
    assert (state["answer"], router.books.answered) == ("42", 2)
    assert (ledger["dollars"], ledger["uncertain_dollars"]) == (pytest.approx(router.books.known), 0.0)


async def test_a_resumed_run_keeps_its_budget_and_preferences() -> None:
    look, dying = Vendor("look"), Vendor("dying", dies=1, price=Price())
    saver = InMemorySaver()
    make = build([look, dying], replies(("dying", {}), ("look", {}), ("look", {}), ("look", {})))
    context: Any = {"budget": Budget(dollars=1.2), "preferences": {"text": "Hurry."}}
    with pytest.raises(CrashError):
        await make(saver).ainvoke(QUESTION, CONFIG, context=context)
    graph = make(saver)
    state = await graph.ainvoke(None, CONFIG)
    assert look.billed == 2
    assert Spent.of(state["turns"].values()).dollars <= 1.2
    run = (await graph.aget_state(CONFIG)).values["run"]
    assert (run["budget"]["dollars"], run["preferences"]["text"]) == (1.2, "Hurry.")


class Updated(ScriptedRouter):
    """A router whose weights are replaced while runs go on."""

    served: Served | None = None


async def test_the_log_tells_the_policy_and_the_catalog_that_a_run_began_with(tmp_path: Path) -> None:
    log, saver = RunLog(tmp_path / "runs.jsonl"), InMemorySaver()
    for step, price in ((3, 1.0), (4, 9.0)):
        router = Updated([("asking", {}), ("final_answer", {"answer": "end"})], stateless=True)  # type: ignore[call-arg]  # the inherited __init__
        router.served = Served(step=step)
        line = ToolSpec(name="asking", price=Price(per_call=price))
        graph = build([Vendor("asking", asks=True)], router, run_log=log, catalog=Catalog.of([line]))(saver)
        given: Any = QUESTION if step == 3 else Command(resume="yes")
        state = await graph.ainvoke(given, CONFIG)
    assert state["answer"] == "end"
    (run,) = read_runs(log.path)
    assert run.policy is not None and run.policy.step == 3
    assert run.catalog is not None and run.catalog.tools["asking"].price.per_call == 1.0
    assert run.catalog.hash == run.catalog_hash


async def test_a_run_that_waits_for_a_person_says_so_in_the_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    graph = build([Vendor("asking", asks=True)], replies(("asking", {})), run_log=log)(InMemorySaver())
    await graph.ainvoke(QUESTION, CONFIG)
    (spool,) = Path(f"{log.path}.spool").glob("*.jsonl")
    assert '"kind":"waiting"' in spool.read_text()


async def test_a_finished_run_is_not_run_again() -> None:
    look = Vendor("look")
    graph = build([look], replies(("look", {})))(InMemorySaver())
    first = await graph.ainvoke(QUESTION, CONFIG)
    again = await graph.ainvoke(None, CONFIG)
    assert look.billed == 1
    assert again["turns"] == first["turns"]


# A budget, which is checked before each attempt.


class Working(Tool):
    """Works for a modelled time, then asks a person, twice."""

    spec = ToolSpec(name="working", price=Price())
    tries = 0

    async def run(self, request: Request) -> Result:
        self.tries += 1
        report(seconds=6.0)
        return Result(interrupt("one") + interrupt("two"))


async def resumed(graph: Any, context: Any = None) -> State:
    """Run a graph, and answer all that it asks."""
    state: State = await graph.ainvoke(QUESTION, CONFIG, context=context)
    while "__interrupt__" in state:
        state = await graph.ainvoke(Command(resume="yes"), CONFIG)
    return state


async def test_a_call_is_taken_up_again_only_if_the_budget_pays_for_one_more_attempt() -> None:
    model = Provider()
    graph = build([AskingModel(model, 4)], replies(("asking", {})), budget=Budget(dollars=0.005))(InMemorySaver())
    state = await resumed(graph)
    (outcome,) = next(iter(state["turns"].values()))["outcomes"].values()
    assert outcome["content"].startswith("not sent: costs at least $0.0001")
    assert (outcome["error"], state["stopped_by"]) == (True, "dollars")
    assert model.books.answered == 1 + 2  # the second attempt was paid for, and cost more than was left
    assert state["ledger"]["dollars"] == pytest.approx(model.books.known)


async def test_a_result_whose_attempt_cost_more_than_was_left_is_kept() -> None:
    model = Provider()
    graph = build([AskingModel(model)], replies(("asking", {})), budget=Budget(dollars=0.003))(InMemorySaver())
    state = await resumed(graph)
    (outcome,) = next(iter(state["turns"].values()))["outcomes"].values()
    assert (outcome["content"], outcome["error"]) == ("done", False)
    assert state["ledger"]["dollars"] == pytest.approx(3 * ANSWERED)


async def test_seconds_of_earlier_attempts_count() -> None:
    tool = Working()
    state = await resumed(build([tool], replies(("working", {})), budget=Budget(seconds=10.0))(InMemorySaver()))
    (outcome,) = next(iter(state["turns"].values()))["outcomes"].values()
    assert (outcome["content"], tool.tries, state["stopped_by"]) == ("not sent: no time is left", 2, "seconds")
    assert state["ledger"]["wall_seconds"] == pytest.approx(10.0, abs=0.1)
    state = await resumed(build([Working()], replies(("working", {})))(InMemorySaver()))
    assert state["ledger"]["wall_seconds"] == pytest.approx(18.0, abs=0.1)


async def test_an_orchestrator_that_has_overspent_goes_on_and_ends_with_what_it_has_found() -> None:
    dear, asking = Paid("dear", 0.1, extra=0.4), Vendor("asking", asks=True, wait=0.05, price=Price())
    inner = create_orchestrator(replies([("dear", {}), ("asking", {})]), [dear, asking])
    tool = Subgraph(inner.compile(), name="inner", takes_request=False)
    state = await resumed(build([tool], replies(("inner", {})), budget=Budget(dollars=0.2))(InMemorySaver()))
    (outcome,) = next(iter(state["turns"].values()))["outcomes"].values()
    assert (outcome["content"], outcome["error"], dear.sent) == ("asking: yes", False, 1)
    assert state["ledger"]["dollars"] == pytest.approx(0.5)


async def test_a_router_is_not_asked_again_for_more_than_the_budget() -> None:
    router = ScriptedRouter([("look", {})] * 9, delay=0.3)
    catalog = Catalog.of([], router=ModelSpec(model="m", price=Price(per_call=0.04), limits=LIMITS))
    make = build([Vendor("look", price=Price())], router, catalog=catalog, budget=Budget(dollars=0.1))
    graph, given = make(InMemorySaver()), QUESTION
    for _ in range(4):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(graph.ainvoke(given, CONFIG, durability="sync"), 0.1)
        given = None
    state = (await graph.aget_state(CONFIG)).values
    assert (state["ledger"]["tools"]["router"]["attempts"], state["stopped_by"]) == (2, "dollars")
    assert state["ledger"]["uncertain_dollars"] == pytest.approx(0.08)
