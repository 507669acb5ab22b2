"""What a process that is killed leaves behind, taken up by another one.

A copy of the folder with checkpoints and run log, made at some moment, is all that a process killed at that moment
leaves: no `except` and no `finally` has run for it. `tests/integration/test_kills.py` kills real ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from orchestra_graph.catalog import Catalog, Latency, ModelSpec
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.journal import NO_RETURN
from orchestra_graph.preferences import Budget
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_run
from orchestra_graph.runlog.repair import repair
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.base import Request, Result
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph
from tests.provider import ANSWERED, LIMITS, PRICE, Books, Provider, charges_of
from tests.runs import spools

QUESTION: Any = {"messages": [HumanMessage("q")]}
CONFIG: Any = {"configurable": {"thread_id": "1"}}


class Process:
    """The folder of a process, of which a copy can be made at any moment, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "live"
        self.folder.mkdir(parents=True)
        self.left = folder / "left"

    def killed(self) -> None:
        """Everything that comes after this is as if it had never been."""
        if not self.left.exists():
            shutil.copytree(self.folder, self.left)

    async def run(self, make: Callable[[Path], Any], folder: Path, question: Any, **options: Any) -> dict[str, Any]:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "state.sqlite")) as saver:
            graph = make(folder).compile(checkpointer=saver)
            state: dict[str, Any] = await graph.ainvoke(question, CONFIG, durability="sync", **options)
        return state

    async def run_killed_and_resumed(self, make: Callable[[Path], Any], **options: Any) -> dict[str, Any]:
        """Ask in one process, and go on in another with what the first left when it was killed."""
        await self.run(make, self.folder, QUESTION, **options)
        return await self.run(make, self.left, None)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


class Watched(Provider):
    """Calls a function when it has billed a request, before anybody hears of the reply."""

    billed: Callable[[], None]

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        result = await super()._agenerate(*args)
        self.billed()
        return result


class Last(Expert):
    """An expert that calls a function when it has its answer."""

    def __init__(self, answered: Callable[[], None], model: Provider, **options: Any) -> None:
        super().__init__(model, role="chat", price=PRICE, limits=LIMITS, **options)
        self._answered = answered

    async def run(self, request: Request) -> Result:
        result = await super().run(request)
        self._answered()
        return result


def replies(*calls: Any) -> ScriptedRouter:
    return ScriptedRouter([*calls, ("final_answer", {"answer": "end"})], stateless=True)


def priced(books: Books, *calls: Any) -> tuple[Provider, Catalog]:
    """A router that is paid, and calls the same in each turn."""
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    return Provider(books=books, calls=list(calls)), catalog


@pytest.mark.parametrize("moment", ["billed", "answered"])
@pytest.mark.parametrize("inner_log", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
async def test_attempts_inside_a_killed_nested_run_are_known_or_uncertain(
    moment: str, inner_log: bool, depth: int, process: Process
) -> None:
    books = Books()

    def make(folder: Path) -> Any:
        log = RunLog(folder / "inner.jsonl") if inner_log else None
        first = Expert(Provider(books=books), name="first", role="chat", price=PRICE, limits=LIMITS)
        fatal = fatal_expert(process, books, moment)
        graph = create_orchestrator(replies(("first", {}), ("fatal", {})), [first, fatal], run_log=log)
        for level in range(depth):
            nested = Subgraph(graph.compile(), name=f"level{level}", takes_request=False)
            around = RunLog(folder / "runs.jsonl") if level == depth - 1 else log
            graph = create_orchestrator(replies((nested.spec.name, {})), [nested], run_log=around)
        return graph

    state = await process.run_killed_and_resumed(make)
    prefix = "/".join(f"level{level}" for level in reversed(range(depth)))
    tools = state["ledger"]["tools"]
    assert (state["answer"], books.answered) == ("end", 3)
    assert (tools[f"{prefix}/first"]["dollars"], tools[f"{prefix}/first"]["uncertain_dollars"]) == (ANSWERED, 0.0)
    requests = [c for key, c in charges_of(state["turns"], f"{prefix}/fatal").items() if "." in key]
    assert [c["status"] for c in requests] == ["uncertain" if moment == "billed" else "paid", "paid"]
    assert requests[0].get("upper", requests[0]["dollars"]) >= ANSWERED
    run = read_run(process.left / "runs.jsonl", (await header(process))["id"])
    assert run.totals == state["ledger"]
    assert spools(process.left / "runs.jsonl") == []


def fatal_expert(process: Process, books: Books, moment: str) -> Expert:
    """An expert in whose request the process is killed, or when its answer has come."""
    is_billed = moment == "billed"
    model = Watched(books=books, billed=process.killed if is_billed else alive)
    return Last(alive if is_billed else process.killed, model, name="fatal")


def alive() -> None:
    """The process goes on."""


async def header(process: Process) -> Any:
    """The header of the run that was taken up."""
    async with AsyncSqliteSaver.from_conn_string(str(process.left / "state.sqlite")) as saver:
        found = await saver.aget_tuple(CONFIG)
    assert found is not None
    return found.checkpoint["channel_values"]["run"]


class Finishing(RunLog):
    """A log with which the process is killed when the run's line has been written, before its last checkpoint."""

    def __init__(self, path: Path, process: Process) -> None:
        super().__init__(path)
        self._process = process

    def finish(self, run_id: str, trajectory: Any) -> dict[str, Any]:
        captures = super().finish(run_id, trajectory)
        self._process.killed()
        return captures


@pytest.mark.parametrize("ending", ["router", "closing"])
async def test_a_step_that_is_taken_again_after_the_runs_line_was_written_is_paid_twice_in_the_ledger(
    ending: str, process: Process
) -> None:
    books = Books()
    router, catalog = priced(books, ("final_answer", {"answer": "end"}))

    def make(folder: Path) -> Any:
        log = Finishing(folder / "runs.jsonl", process)
        closer = Expert(Provider(books=books, text="<answer>end</answer>"), name="closer", price=PRICE, limits=LIMITS)
        if ending == "closing":
            return create_orchestrator(replies(("look_up", {})), [closer, look_up], run_log=log)
        return create_orchestrator(router, [look_up], catalog=catalog, run_log=log)

    state = await process.run_killed_and_resumed(make, context={"budget": Budget(turns=1)})
    assert (state["answer"], books.answered) == ("end", 2)
    assert state["ledger"]["dollars"] == pytest.approx(2 * ANSWERED)
    assert read_run(process.left / "runs.jsonl", (await header(process))["id"]).totals == state["ledger"]


async def test_a_closing_tool_that_brought_no_answer_is_not_asked_again_when_the_second_one_is(
    process: Process,
) -> None:
    first, second = Books(), Books()

    def make(folder: Path) -> Any:
        silent = Provider(books=first, text="I do not know")
        fatal = Watched(books=second, text="<answer>end</answer>", billed=process.killed)
        closers = [
            Expert(silent, name="silent", price=PRICE, limits=LIMITS),
            Expert(fatal, name="fatal", price=PRICE, limits=LIMITS, latency=Latency(p50=2.0)),
        ]
        log = RunLog(folder / "runs.jsonl")
        return create_orchestrator(replies(("look_up", {})), [*closers, look_up], closing="silent", run_log=log)

    state = await process.run_killed_and_resumed(make, context={"budget": Budget(turns=1)})
    assert (state["answer"], first.answered, second.answered) == ("end", 1, 2)
    assert state["ledger"]["tools"]["silent"]["dollars"] == pytest.approx(ANSWERED)
    assert state["ledger"]["tools"]["fatal"]["uncertain_dollars"] >= ANSWERED
    assert read_run(process.left / "runs.jsonl", (await header(process))["id"]).totals == state["ledger"]


async def test_what_was_paid_after_the_last_checkpoint_is_in_the_ledger_of_a_run_that_answers_early(
    process: Process, tmp_path: Path
) -> None:
    books, lagging = Books(), tmp_path / "lagging"

    def lag() -> None:
        if not lagging.exists():
            lagging.mkdir()
            for file in process.folder.glob("state.sqlite*"):
                shutil.copy(file, lagging)

    def die() -> None:
        if books.answered == 3:
            process.killed()

    def make(folder: Path) -> Any:
        first = Last(lag, Provider(books=books), name="first")
        more = Last(die, Provider(books=books), name="more")
        calls = ["first"] if folder == process.left else ["first", "more", "more"]
        router = replies(*((name, {}) for name in calls))
        return create_orchestrator(router, [first, more], run_log=RunLog(folder / "runs.jsonl"))

    await process.run(make, process.folder, QUESTION)
    for file in process.left.glob("state.sqlite*"):
        file.unlink()
    shutil.copytree(lagging, process.left, dirs_exist_ok=True)
    state = await process.run(make, process.left, None)
    ledger = state["ledger"]
    assert (state["answer"], len(state["turns"]), books.answered) == ("end", 2, 4)
    assert ledger["dollars"] == pytest.approx(3 * ANSWERED)
    assert ledger["uncertain_dollars"] >= ANSWERED
    assert read_run(process.left / "runs.jsonl", (await header(process))["id"]).totals == ledger


def look_up() -> str:
    """Look something up."""
    return "nothing"


async def test_a_run_that_was_repaired_and_goes_on_has_everything_once_in_its_last_line(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books()

    def make(folder: Path) -> Any:
        tools: list[Any] = [fatal_expert(process, books, "billed"), look_up]
        return create_orchestrator(
            replies(("look_up", {}), ("fatal", {})), tools, run_log=RunLog(folder / "runs.jsonl")
        )

    await process.run(make, process.folder, QUESTION)
    log = process.left / "runs.jsonl"
    monkeypatch.setattr("orchestra_graph.runlog.repair.is_running", lambda owner: False)
    (run_id,) = repair(log).folded
    folded = read_run(log, run_id)
    assert folded.totals is not None
    assert folded.totals["uncertain_dollars"] >= ANSWERED
    state = await process.run(make, process.left, None)
    run = read_run(log, run_id)
    assert (run.ended, run.totals) == ("answered", state["ledger"])
    assert (books.answered, state["ledger"]["dollars"]) == (2, ANSWERED)
    assert state["ledger"]["uncertain_dollars"] == folded.totals["uncertain_dollars"]
    lost = [key for key, charge in charges_of(state["turns"]).items() if charge.get("error") == NO_RETURN]
    assert sorted(lost) == sorted(k for k, c in charges_of({t["id"]: t for t in folded.turns}).items() if "upper" in c)
    assert spools(log) == []


class Failing(InMemorySaver):
    """A checkpointer whose database is away for a moment."""

    fails: bool = False

    async def aput(self, *args: Any) -> Any:
        if self.fails:
            self.fails = False
            raise ConnectionError("the database is away")
        return await super().aput(*args)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        if not self.fails:
            await super().aput_writes(*args, **kwargs)


@pytest.mark.parametrize("step", ["decision", "call"])
async def test_what_a_checkpointer_could_not_write_is_in_the_ledger_when_the_same_process_goes_on(
    step: str, tmp_path: Path
) -> None:
    books, saver = Books(), Failing()

    def fail() -> None:
        saver.fails = books.answered == {"decision": 1, "call": 2}[step]

    router = Watched(books=books, calls=[("solver", {})], billed=fail)
    solver = Expert(Watched(books=books, billed=fail), name="solver", price=PRICE, limits=LIMITS)
    catalog = Catalog.of([], router=ModelSpec(model="m", price=PRICE, limits=LIMITS))
    log = RunLog(tmp_path / "runs.jsonl")
    graph = create_orchestrator(router, [solver], catalog=catalog, run_log=log).compile(checkpointer=saver)
    with pytest.raises(ConnectionError):
        await graph.ainvoke(QUESTION, CONFIG, durability="sync")
    state = await graph.ainvoke(None, CONFIG, durability="sync")
    assert (state["answer"], books.answered) == ("42", 3)
    assert state["ledger"]["dollars"] == pytest.approx(books.known)
