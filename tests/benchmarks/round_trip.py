"""Whether what a harvest gives is what happened: workbench runs against their live ledgers, through every source.

    python -m tests.benchmarks.round_trip              # 1,000 runs; needs PostgreSQL's binaries
    python -m tests.benchmarks.round_trip --runs 60

Groups of rollouts on tasks of the workbench, by programs and by the tiny router, judged by the workbench, are traced,
logged, and checkpointed in SQLite and in PostgreSQL, all at once. Each source is harvested by itself, and each figure
of each run held against the live one, to the last digit:

    dollars, seconds, calls by tool    of the ledger that the graph gave its caller
    task, group                        what the caller said of the task; the group that a reward compares the run in
    verdict                            the workbench's; in LangSmith a person's who says the same; in checkpoints none
    rows                               ids, masks, logprobs and weights: of the policy's own tokens, and of the run
                                       rendered as a conversation
    fidelity                           `exact` of tokens sampled at temperature 1, `ids` of the likeliest, `text` of
                                       programs and of whatever comes from traces and checkpoints

Traces and checkpoints hold the hash of the catalog alone. The script, which knows the catalog, puts it back to render
their runs; a harvest does not.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import langsmith
import orjson
from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from orchestra_training.groups import group_id
from orchestra_training.harvest.checkpoints import PostgresSource, SqliteSource
from orchestra_training.harvest.fidelity import fidelity
from orchestra_training.harvest.gather import TEST, TRAIN, harvest
from orchestra_training.harvest.langsmith import LangSmithSource
from orchestra_training.harvest.logs import LogSource
from orchestra_training.harvest.output import provenance
from orchestra_training.harvest.source import Source
from orchestra_training.harvest.sources import Wanted
from orchestra_training.render import Renderer
from orchestra_training.rows import policy_tokens, rows_of
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestra_graph import Catalog, Cheapest, Random, Rules, RunLog, create_orchestrator
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.routers.bundled import tiny_router
from orchestra_graph.runlog.memory import MemoryLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.serving.random_weights import TEMPLATE
from orchestra_graph.workbench import Oracle, Workbench
from tests.integration.postgres import postgres
from tests.langsmith_recorder import KEY, Recorder, recording, served
from tests.training.test_render import TOKENIZER, tokenizer_of

FEEDBACK = "solved"
ROUTERS: dict[str, Callable[[], BaseChatModel]] = {
    "rules": Rules,
    "random": Random,
    "cheapest": Cheapest,
    "oracle": Oracle,
    "tiny, sampled": lambda: tiny_router(temperature=1.0),
    "tiny, greedy": tiny_router,
}
"""Each rollout of a group is by another one."""
PURPOSES = ("train", "train", "train", "evaluate")
FIGURES = ("dollars", "seconds", "calls", "task", "group", "verdict", "rows", "fidelity")


# Carrying runs out.


class Rows(NamedTuple):
    """What is to be equal about the rows of a run."""

    sha256: str
    """Of all that is in them."""
    tokens: int
    """That are trained: each row weighs by one over it."""


@dataclass(frozen=True, slots=True)
class Live:
    """What a run came to, as its caller and its graph saw it."""

    ledger: dict[str, Any]
    about: dict[str, Any]
    solved: bool
    group: str
    fidelity: str
    own: Rows
    """Of the tokens that its policy read and wrote."""
    rendered: Rows
    """Of the run as a conversation."""


class Witness(RunLog):
    """A run log that also keeps the run in memory, as the graph told it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._memory = MemoryLog()

    def journal(self, run_id: str, record: Mapping[str, Any], *, hold: bool = False) -> None:
        super().journal(run_id, record, hold=hold)
        self._memory.journal(run_id, record)

    def finish(self, run_id: str, trajectory: Mapping[str, Any]) -> dict[str, Any]:
        self._memory.finish(run_id, trajectory)
        return super().finish(run_id, trajectory)

    def take(self) -> Trajectory:
        """The run that has ended."""
        (run,) = self._memory.take()
        return run


class Twice(BaseCheckpointSaver[Any]):
    """Keeps each checkpoint in every one of some savers; reads from the first."""

    def __init__(self, savers: list[BaseCheckpointSaver[Any]]) -> None:
        super().__init__(serde=savers[0].serde)
        self._savers = savers

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._savers[0].get_next_version(current, channel)

    async def aget_tuple(self, config: Any) -> Any:
        return await self._savers[0].aget_tuple(config)

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        first, *others = [await saver.aput(config, checkpoint, metadata, new_versions) for saver in self._savers]
        assert all(other == first for other in others)
        return first

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        for saver in self._savers:
            await saver.aput_writes(config, writes, task_id, task_path)


@dataclass(slots=True)
class Made:
    """What was carried out."""

    live: dict[str, Live] = field(default_factory=dict)
    """By run id."""
    catalogs: dict[str, Catalog] = field(default_factory=dict)
    """Those that the runs saw, by hash."""

    def with_catalog(self, run: Trajectory) -> Trajectory:
        """The run with the catalog that it saw, one object for all that saw the same one."""
        assert run.catalog_hash is not None
        known = self.catalogs.get(run.catalog_hash, run.catalog)
        assert known is not None
        self.catalogs[run.catalog_hash] = known
        return run.model_copy(update={"catalog": known})


async def make(runs: int, log: Witness, saver: Any, renderer: Renderer) -> Made:
    """Carry out runs, two on each thread."""
    bench, made = Workbench(), Made()
    routers = [make_router() for make_router in ROUTERS.values()]
    for number in track(range(runs), "runs", disable=not sys.stdout.isatty()):
        group, rollout = divmod(number, len(routers))
        (task,) = bench.tasks("train", 1, seed=group)
        about = {"id": task.id, "group_id": f"g{group}", "rollout": rollout, "purpose": PURPOSES[group % len(PURPOSES)]}
        world = bench.world(task)
        graph = create_orchestrator(
            routers[rollout], bench.tools(world), catalog=bench.catalog, run_log=log, fallback=None
        ).compile(checkpointer=saver)
        question: Any = {"messages": [("user", task.question)]}
        config: Any = {"configurable": {"thread_id": f"t{number // 2}"}}
        answer: Any = None
        async for event in graph.astream(question, config, context={"task": about}, stream_mode="custom"):
            answer = event if event["type"] == "answer" else answer
        solved = await bench.verdict(task, answer["answer"], world)
        log.judge(answer["run"], Verdict(outcome=float(solved), by="workbench"))
        run = made.with_catalog(log.take())
        made.live[run.run_id] = Live(
            ledger=answer["ledger"],
            about=about,
            solved=solved,
            group=group_id(run),
            fidelity=fidelity(run).fidelity,
            own=read_rows(run),
            rendered=read_rows(renderer.render(run)),
        )
    return made


def read_rows(run: Trajectory) -> Rows:
    """The rows of a run."""
    rows = rows_of(run)
    return Rows(hashlib.sha256(orjson.dumps(rows)).hexdigest(), policy_tokens(rows)[run.run_id])


def judge_traces(recorder: Recorder, live: Mapping[str, Live]) -> None:
    """Feedback of a person on each trace, which says what the workbench said."""
    for run in [run for run in recorder.runs.values() if not run.get("parent_run_id")]:
        solved = live[run["extra"]["metadata"]["run"]].solved
        stamp = {"created_at": "2026-01-01T00:00:00+00:00", "modified_at": "2026-01-01T00:00:00+00:00"}
        named = {"id": run["id"], "run_id": run["id"], "trace_id": run["trace_id"], "key": FEEDBACK}
        recorder.feedback.append({**named, **stamp, "score": float(solved), "feedback_source": {"type": "app"}})


# Comparing them.

NO_ROWS = Rows(hashlib.sha256(b"[]").hexdigest(), 0)


@dataclass(frozen=True, slots=True)
class Held:
    """What a source can have of a run."""

    tokens: bool = False
    verdicts: bool = False


@dataclass(slots=True)
class Compared:
    """What was harvested from a source."""

    runs: int = 0
    judged: int = 0
    equal: Counter[str] = field(default_factory=Counter)
    """Runs by figure that is the live one."""
    fidelity: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    """Trained in the rows, `own` and `rendered`."""

    def is_whole(self, runs: int) -> bool:
        """Whether it is every run as it happened, and nothing beside them."""
        return self.runs == runs and not self.skipped and all(self.equal[name] == runs for name in FIGURES)


def figures(run: Trajectory, live: Live, held: Held, own: Rows, rendered: Rows) -> dict[str, bool]:
    """Which figures of a harvested run are the live ones, or absent where its source has none."""
    about = {name: getattr(run, name) for name in ("group_id", "rollout", "purpose")}
    totals: Mapping[str, Any] = {} if run.totals is None else run.totals
    stated = provenance(run)
    return {
        "dollars": totals.get("dollars") == live.ledger["dollars"],
        "seconds": all(totals.get(name) == live.ledger[name] for name in ("seconds", "wall_seconds")),
        "calls": totals.get("tools") == live.ledger["tools"],
        "task": {"id": run.task.id, **about} == live.about,
        "group": group_id(run) == live.group,
        "verdict": (run.verdict and run.verdict.outcome) == (float(live.solved) if held.verdicts else None),
        "rows": (own, rendered) == (live.own if held.tokens else NO_ROWS, live.rendered),
        "fidelity": stated is not None and stated.fidelity == (live.fidelity if held.tokens else "text"),
    }


def compare(source: Source, held: Held, made: Made, renderer: Renderer, folder: Path) -> Compared:
    """Harvest a source by itself, and count the runs that are equal."""
    report = harvest([source], folder)
    found, seen = Compared(fidelity=report.fidelity, skipped=report.skipped), set[str]()
    for path in [folder / name for name in (TRAIN, TEST) if (folder / name).exists()]:
        for run in read_runs(path):
            assert run.run_id not in seen
            seen.add(run.run_id)
            own, rendered = read_rows(run), read_rows(renderer.render(made.with_catalog(run)))
            equal = figures(run, made.live[run.run_id], held, own, rendered)
            found.equal.update(name for name, is_equal in equal.items() if is_equal)
            found.tokens.update(own=own.tokens, rendered=rendered.tokens)
            found.judged += run.verdict is not None
    found.runs = len(seen)
    return found


def round_trip(runs: int, folder: Path, address: str | None) -> dict[str, Compared]:
    """Carry runs out and harvest them from each source.

    Args:
        runs: How many.
        folder: Empty.
        address: Of an empty PostgreSQL database, where there is one.
    """
    tokenizer = tokenizer_of(TOKENIZER, TEMPLATE.read_text(encoding="utf-8"), eos_token="<|im_end|>")
    renderer = Renderer(tokenizer, ConversationProtocol(), name="chat")
    log = Witness(folder / "runs.jsonl")
    with phase("carried out"), recording() as recorder:
        made = asyncio.run(_carry_out(runs, folder, log, renderer, address))
    with served() as reader:
        reader.runs = recorder.runs
        judge_traces(reader, made.live)
        sources: dict[str, tuple[Source, Held]] = {
            "run log": (LogSource(log.path), Held(tokens=True, verdicts=True)),
            "LangSmith": (_project(reader), Held(verdicts=True)),
            "SQLite": (SqliteSource(folder / "checkpoints.sqlite"), Held()),
            **({"PostgreSQL": (PostgresSource(address), Held())} if address is not None else {}),
        }
        found = {}
        for name, (source, held) in sources.items():
            with phase(f"harvested from {name}"):
                found[name] = compare(source, held, made, renderer, folder / f"data {name}")
        return found


async def _carry_out(runs: int, folder: Path, log: Witness, renderer: Renderer, address: str | None) -> Made:
    async with AsyncExitStack() as stack:
        file = str(folder / "checkpoints.sqlite")
        savers: list[Any] = [await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(file))]
        if address is not None:
            savers.append(await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(address)))
            await savers[-1].setup()
        return await make(runs, log, Twice(savers), renderer)


def _project(reader: Recorder) -> LangSmithSource:
    return LangSmithSource("test", Wanted(feedback=FEEDBACK), lambda: langsmith.Client(api_url=reader.url, api_key=KEY))


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Say how long a part took, and what memory the process has needed so far."""
    started = time.perf_counter()
    yield
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {time.perf_counter() - started:.1f} s, peak memory so far {memory:,.0f} MB", flush=True)


def show(runs: int, found: Mapping[str, Compared]) -> None:
    """Print the table."""
    print(f"\n{runs:,} runs of the workbench, by {'; '.join(ROUTERS)}. Runs whose figure is the live one:\n")
    table = Table("source", "runs", *FIGURES, "tokens: own", "rendered", "stated fidelity", box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for name, row in found.items():
        equal = [f"{row.equal[each]:,}" if each != "verdict" or row.judged else "none" for each in FIGURES]
        tokens = [f"{row.tokens[each]:,}" for each in ("own", "rendered")]
        stated = [f"{count:,} {kind}" for kind, count in sorted(row.fidelity.items())]
        skipped = [f"{count:,} skipped: {kind}" for kind, count in sorted(row.skipped.items())]
        table.add_row(name, f"{row.runs:,}", *equal, *tokens, ", ".join([*stated, *skipped]))
    Console(width=160).print(table)


def main() -> None:
    """Carry runs out, print the table, and fail where anything differs."""
    parser = argparse.ArgumentParser(description="Runs against what is harvested of them.")
    parser.add_argument("--runs", type=int, default=1_000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, postgres() as address:
        found = round_trip(runs, Path(folder), address)
    show(runs, found)
    if not all(row.is_whole(runs) for row in found.values()):
        sys.exit("something differs")


if __name__ == "__main__":
    main()
