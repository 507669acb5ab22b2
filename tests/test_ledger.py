"""The law of the ledger: whatever is retried, resumed, replayed or cached, each paid attempt is counted once."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Sequence
from math import fsum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.cache.memory import InMemoryCache

from orchestra_graph.catalog import Catalog, ModelSpec
from orchestra_graph.engine import Engine
from orchestra_graph.execution import Execution
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.ledger import ROUTER, Spent, totals, wall_seconds
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.state import CallTask, RunHeader
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.turns import Turn, merge_turns
from tests.examples import examples
from tests.provider import ANSWERED, LIMITS, PRICE, Books, CrashError, Event, Mortal, Provider, charges_of

EXAMPLES = settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])

ALIVE: list[Event] = ["answer", "empty", "refused", "unsent", "lost", "lost unbilled"]
DEADLY: list[Event] = [*ALIVE, "crash", "crash unbilled"]


class KilledEngine(Engine):
    """That of a process that is killed: it has no time left to write down what it knows."""

    def keep(self, *args: Any) -> None:
        pass


class World:
    """One run's calls, carried out by real executions of real experts that ask a provider which keeps books.

    Args:
        folder: Where the run log is.
        script: What becomes of the provider's requests, in order.
        calls: Tool of each call; a tool that is called again is called with the same arguments.
        dies_at_once: Whether a process that dies has no time left to write.
    """

    def __init__(
        self, folder: Path, script: Sequence[Event], calls: Sequence[str], *, dies_at_once: bool = False
    ) -> None:
        self.kind = KilledEngine if dies_at_once else Engine
        self.books = Books()
        model = Provider(books=self.books, script=list(script))
        self.tools = {
            "a": Mortal(model, name="a", price=PRICE, limits=LIMITS, fallback=("b",)),
            "b": Mortal(model, name="b", price=PRICE, limits=LIMITS),
            "cached": Mortal(model, name="cached", price=PRICE, limits=LIMITS, cache=True),
        }
        self.catalog = Catalog.of([tool.spec for tool in self.tools.values()])
        self.cache: InMemoryCache[Any] = InMemoryCache()
        self.log = RunLog(folder / "runs.jsonl")
        self.run: RunHeader = {
            "id": "0" * 32,
            "question": "q",
            "message": None,
            "conversation": "",
            "preferences": Preferences().model_dump(mode="json"),
            "budget": Budget().model_dump(mode="json"),
            "catalog_hash": self.catalog.hash,
            "started": "",
        }
        self.engine = self.new_process()
        self.engine.started.add(self.run["id"])
        self.pending = {f"t-0-{n}": name for n, name in enumerate(calls)}
        self.writes: list[dict[str, Any]] = []
        self.turns: dict[str, Turn] = {"t-0": self._turn()}
        self.crashed = False

    def _turn(self) -> Turn:
        calls = [{"id": id, "tool": name, "args": {}} for id, name in self.pending.items()]
        decision: Any = {"calls": calls, "reason": "", "by": "router"}
        return {"id": "t-0", "index": 0, "decision": decision, "charges": {}, "outcomes": {}, "seconds": 0.0}

    def new_process(self) -> Engine:
        """What a process that takes the run up again starts with."""
        return self.kind(
            catalog=self.catalog,
            tools=self.tools,
            router=ScriptedRouter([]),
            fallback=None,
            fallback_spec=ModelSpec(),
            protocol=ConversationProtocol(),
            preferences=Preferences(),
            budget=Budget(),
            closing=None,
            max_malformed=3,
            constraint=None,
            approval=None,
            run_log=self.log,
            cache=self.cache,
        )

    async def carry_out(self, call_id: str) -> None:
        """Run a call's node; when the process dies in it, nothing is written, and the next process runs it again."""
        left: Any = {"dollars": None, "seconds": None, "turns": 50}
        call: Any = {"id": call_id, "tool": self.pending[call_id], "args": {}}
        task: CallTask = {"run": self.run, "turn": "t-0", "call": call, "left": left, "evidence": []}
        execution = Execution(self.engine, task)
        try:
            outcome = await execution.carry_out()
        except CrashError:
            self.crashed = True
            self.engine = self.new_process()
            return
        del self.pending[call_id]
        self.writes.append({"t-0": {"id": "t-0", "outcomes": {call_id: outcome}, "charges": execution.charges}})
        self.replay(-1)

    def replay(self, index: int) -> None:
        """Apply a write, perhaps not for the first time."""
        self.turns = merge_turns(self.turns, copy.deepcopy(self.writes[index]))

    async def finish(self) -> None:
        while self.pending:
            await self.carry_out(next(iter(self.pending)))


async def play(world: World, data: st.DataObject) -> None:
    """Carry out the calls in any order, with writes replayed in between."""
    for _ in range(data.draw(st.integers(0, 8), label="steps")):
        steps: list[int | str] = [*range(len(world.writes)), *sorted(world.pending)]
        step = data.draw(st.sampled_from(steps), label="step")
        if isinstance(step, int):
            world.replay(step)
        else:
            await world.carry_out(step)
    await world.finish()


CALLS = st.lists(st.sampled_from(["a", "b", "cached"]), min_size=1, max_size=4)


def assert_law(turns: dict[str, Turn], books: Books) -> None:
    """What is known to be owed was billed; all that was billed is known or covered by an upper bound; nothing twice."""
    ledger = totals(turns)
    charges = charges_of(turns)
    answered = [c for c in charges.values() if c["status"] == "paid" and c["dollars"]]
    uncertain = [c for c in charges.values() if c["status"] == "uncertain"]
    assert ledger["dollars"] <= books.owed + 1e-12
    assert books.owed <= ledger["dollars"] + ledger["uncertain_dollars"] + 1e-12
    assert len(answered) * ANSWERED == pytest.approx(ledger["dollars"], abs=1e-12)
    assert all(c["upper"] >= ANSWERED or c["upper"] == 0.0 for c in uncertain)
    assert all(c["dollars"] == 0.0 for c in charges.values() if c["status"] in ("failed", "cached"))
    assert fsum(tool["dollars"] for tool in ledger["tools"].values()) == pytest.approx(ledger["dollars"], abs=1e-12)


@given(st.lists(st.sampled_from(ALIVE), max_size=12), CALLS, st.data())
@EXAMPLES
def test_the_ledger_is_what_the_provider_billed(script: list[Event], calls: list[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), script, calls)
        asyncio.run(play(world, data))
    assert_law(world.turns, world.books)
    ledger = totals(world.turns)
    requests = [key for key in charges_of(world.turns) if "." in key]
    assert ledger["dollars"] == pytest.approx(world.books.known, abs=1e-12)
    assert len(requests) == world.books.requests
    assert ledger["calls"] == len(calls) + 1
    if world.books.lost == 0 and "lost unbilled" not in script:
        assert ledger["uncertain_dollars"] == 0.0


@given(st.lists(st.sampled_from(DEADLY), max_size=12), CALLS, st.booleans(), st.data())
@EXAMPLES
def test_what_a_dead_process_paid_is_covered(
    script: list[Event], calls: list[str], at_once: bool, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), script, calls, dies_at_once=at_once)
        asyncio.run(play(world, data))
    assert_law(world.turns, world.books)
    if not at_once:
        assert totals(world.turns)["dollars"] == pytest.approx(world.books.known, abs=1e-12)
    assert sum("." in key for key in charges_of(world.turns)) == world.books.requests


@pytest.mark.parametrize(("at_once", "status"), [(True, "uncertain"), (False, "failed")])
def test_a_cache_hit_after_a_crash_keeps_the_attempt_that_was_lost(at_once: bool, status: str, tmp_path: Path) -> None:
    world = World(tmp_path, ["crash", "answer"], ["cached", "cached"], dies_at_once=at_once)

    async def crash_then_hit() -> None:
        await world.carry_out("t-0-0")
        await world.carry_out("t-0-1")
        await world.carry_out("t-0-0")

    asyncio.run(crash_then_hit())
    assert world.crashed
    assert totals(world.turns)["dollars"] == pytest.approx(ANSWERED)
    own = [c["status"] for key, c in charges_of(world.turns).items() if key.startswith("t-0-0#") and "." not in key]
    assert sorted(own) == ["cached", status]


# Whole runs.


@given(
    st.lists(st.sampled_from(ALIVE), max_size=8),
    st.lists(st.sampled_from(ALIVE), max_size=8),
    st.lists(st.lists(st.sampled_from(["a", "b", "cached"]), min_size=1, max_size=3), min_size=1, max_size=3),
)
@settings(EXAMPLES, max_examples=examples(60))
def test_the_ledger_of_a_whole_run_is_what_was_billed(
    router_script: list[Event], script: list[Event], replies: list[list[str]]
) -> None:
    books, router_books = Books(), Books()
    model = Provider(books=books, script=list(script), text="no answer yet")
    experts = [
        Mortal(model, name=name, price=PRICE, limits=LIMITS, cache=name == "cached", role="chat")
        for name in ("a", "b", "cached")
    ]
    router = Replies(books=router_books, script=list(router_script), replies=[*replies, []])
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    graph = create_orchestrator(router, experts, catalog=catalog, cache=InMemoryCache(), fallback=None)
    state = asyncio.run(graph.compile().ainvoke({"messages": [HumanMessage("q")]}))
    ledger = state["ledger"]
    both = Books(
        requests=books.requests + router_books.requests,
        answered=books.answered + router_books.answered,
        lost=books.lost + router_books.lost,
    )
    assert_law(state["turns"], both)
    assert ledger["dollars"] == pytest.approx(both.known, abs=1e-12)
    assert ledger["tools"][ROUTER]["dollars"] == pytest.approx(router_books.known, abs=1e-12)


class Replies(Provider):
    """A router that calls what its replies name, and then answers by itself."""

    replies: list[list[str]]

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        calls: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in self.replies[0]]
        self.calls = calls or [("final_answer", {"answer": "42"})]
        result = super()._generate(*args, **kwargs)
        if len(self.replies) > 1:
            self.replies = self.replies[1:]
        return result


# Sums.


def charge(tool: str, dollars: float = 0.0, **parts: Any) -> Any:
    return {"tool": tool, "status": "paid", "dollars": dollars, "seconds": 1.0, **parts}


def turn(by: str = "router", **parts: Any) -> Any:
    calls = [{"id": "t-0-0", "tool": "search", "args": {}}, {"id": "t-0-1", "tool": "expert", "args": {}}]
    decision = {"calls": calls, "reason": "", "by": by}
    return {"id": "t-0", "index": 0, "decision": decision, "charges": {}, "outcomes": {}, "seconds": 0.5, **parts}


def test_totals_of_nothing_are_zero() -> None:
    ledger = totals({})
    assert ledger.pop("tools") == {}  # type: ignore[misc]
    assert set(ledger.values()) == {0}


def test_totals_by_tool_add_up() -> None:
    charges = {
        "t-0#0.0": charge("router", 0.1, input_tokens=10, cached_tokens=4, output_tokens=1),
        "t-0-0#0": charge("search", 0.2),
        "t-0-1#0": charge("expert"),
        "t-0-1#0.0": charge("expert", 0.4, input_tokens=7, output_tokens=2),
        "t-0-1#1": charge("expert"),
        "t-0-1#1.0": charge("expert", 0.0, status="uncertain", upper=0.8),
    }
    outcomes = {
        "t-0-0": {"content": "", "error": False, "seconds": 2.0},
        "t-0-1": {"content": "", "error": True, "seconds": 3.0},
    }
    ledger = totals({"t-0": turn(charges=charges, outcomes=outcomes)})
    assert (ledger["calls"], ledger["attempts"]) == (3, 4)
    assert (ledger["input_tokens"], ledger["cached_tokens"], ledger["output_tokens"]) == (17, 4, 3)
    assert (round(ledger["dollars"], 12), ledger["uncertain_dollars"]) == (0.7, 0.8)
    assert (ledger["seconds"], ledger["wall_seconds"]) == (6.0, 3.5)
    expert = ledger["tools"]["expert"]
    assert (expert["calls"], expert["attempts"], expert["seconds"], expert["wall_seconds"]) == (1, 2, 4.0, 3.0)
    assert ledger["tools"]["router"]["wall_seconds"] == 0.5


def test_a_cached_call_is_a_call_without_an_attempt() -> None:
    charges = {"t-0-0#0": charge("search", status="cached", seconds=0.0)}
    outcomes = {"t-0-0": {"content": "", "error": False, "cached": True, "seconds": 0.0}}
    search = totals({"t-0": turn(charges=charges, outcomes=outcomes)})["tools"]["search"]
    assert (search["calls"], search["attempts"], search["dollars"]) == (1, 0, 0.0)


def test_a_call_that_was_not_sent_is_none() -> None:
    outcomes = {"t-0-0": {"content": "", "error": True, "unsent": True, "seconds": 0.0}}
    assert "search" not in totals({"t-0": turn(outcomes=outcomes)})["tools"]


@pytest.mark.parametrize(
    ("by", "names"), [("router", ["router"]), ("fallback", ["fallback"]), ("closing", []), ("expert", [])]
)
def test_decisions_are_counted_by_who_made_them(by: str, names: list[str]) -> None:
    tools = totals({"t-0": turn(by)})["tools"]
    assert list(tools) == names
    assert all(tools[name]["calls"] == 1 for name in names)


def test_sums_of_many_small_dollars_are_exact() -> None:
    charges = {f"t-0#{n}": charge("router", 0.1) for n in range(1000)}
    assert totals({"t-0": turn(charges=charges)})["dollars"] == 100.0


def test_a_turn_lasts_as_long_as_its_slowest_call() -> None:
    outcomes = {str(n): {"content": "", "error": False, "seconds": float(n)} for n in range(4)}
    assert wall_seconds(turn(outcomes=outcomes)) == 3.5
    assert wall_seconds(turn()) == 0.5


def test_spent_holds_in_the_worst_case() -> None:
    charges = {"t-0#0": charge("router", 0.25), "t-0#1": charge("router", 0.0, status="uncertain", upper=0.5)}
    spent = Spent.of([turn(charges=charges)])
    assert spent == Spent(0.75, 0.5, 1)
    assert spent + Spent(1.0, 2.0, 3) == Spent(1.75, 2.5, 4)


@pytest.mark.parametrize(
    ("budget", "left"),
    [
        (Budget(dollars=1.0, seconds=2.0, turns=3), Budget(dollars=0.25, seconds=1.5, turns=2)),
        (Budget(), Budget(turns=49)),
        (Budget(dollars=0.75, turns=2), Budget(dollars=0.0, turns=1)),
        (Budget(dollars=0.5), None),
        (Budget(seconds=0.5), None),
        (Budget(turns=1), None),
    ],
)
def test_what_is_left_of_a_budget(budget: Budget, left: Budget | None) -> None:
    assert Spent(0.75, 0.5, 1).left(budget) == left
