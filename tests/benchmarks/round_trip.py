"""Whether what a harvest gives is what happened: workbench runs against their live ledgers, through every source.

    python -m tests.benchmarks.round_trip              # 1,000 runs; needs PostgreSQL's binaries
    python -m tests.benchmarks.round_trip --runs 64

Groups of rollouts on tasks of the workbench, by several routers, judged by the workbench, are traced, checkpointed in
SQLite and in PostgreSQL, and logged, all at once. Each source is harvested by itself; a run counts as equal where its
dollars, seconds, calls by tool and verdict are the live ones to the last digit. Traces and checkpoints hold no verdict
of the workbench; there the one of people is compared, which is sent as feedback, or none.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import langsmith
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from orchestra_training.harvest.checkpoints import PostgresSource, SqliteSource
from orchestra_training.harvest.gather import TEST, TRAIN, harvest
from orchestra_training.harvest.langsmith import LangSmithSource
from orchestra_training.harvest.logs import LogSource
from orchestra_training.harvest.source import Source
from orchestra_training.harvest.sources import Wanted

from orchestra_graph import Cheapest, Random, Rules, RunLog, create_orchestrator
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_graph.workbench import Oracle, Workbench
from tests.integration.postgres import postgres
from tests.langsmith_recorder import KEY, Recorder, recording, served

ROLLOUTS = 8
FEEDBACK = "solved"
ROUTERS = {"rules": Rules, "random": Random, "cheapest": Cheapest, "oracle": Oracle}
PURPOSES = ("train", "train", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class Live:
    """What a run came to, as its caller saw it."""

    ledger: dict[str, Any]
    about: dict[str, Any]
    solved: bool


async def make(runs: int, log: RunLog, savers: list[Any]) -> dict[str, Live]:
    """Carry out runs, by run id; each thread with one of the savers."""
    bench, live = Workbench(), dict[str, Live]()
    names = list(ROUTERS)
    for number in range(runs):
        group, rollout = divmod(number, ROLLOUTS)
        (task,) = bench.tasks("train", 1, seed=group)
        router = ROUTERS[names[rollout % len(names)]]()
        about = {"id": task.id, "group_id": f"g{group}", "rollout": rollout, "purpose": PURPOSES[group % len(PURPOSES)]}
        world = bench.world(task)
        graph = create_orchestrator(router, bench.tools(world), catalog=bench.catalog, run_log=log, fallback=None)
        config: Any = {"configurable": {"thread_id": f"t{number // 2}"}}
        answer: Any = None
        compiled = graph.compile(checkpointer=savers[number // 2 % len(savers)])
        question: Any = {"messages": [("user", task.question)]}
        async for event in compiled.astream(question, config, context={"task": about}, stream_mode="custom"):
            answer = event if event["type"] == "answer" else answer
        solved = await bench.verdict(task, answer["answer"], world)
        log.judge(answer["run"], Verdict(outcome=float(solved), by="workbench"))
        live[answer["run"]] = Live(answer["ledger"], about, solved)
    return live


def judge_traces(recorder: Recorder, live: dict[str, Live]) -> None:
    """Feedback of a person on each trace, which says what the workbench said."""
    for run in [run for run in recorder.runs.values() if not run.get("parent_run_id")]:
        solved = live[run["extra"]["metadata"]["run"]].solved
        stamp = {"created_at": "2026-01-01T00:00:00+00:00", "modified_at": "2026-01-01T00:00:00+00:00"}
        named = {"id": run["id"], "run_id": run["id"], "trace_id": run["trace_id"], "key": FEEDBACK}
        recorder.feedback.append({**named, **stamp, "score": float(solved), "feedback_source": {"type": "app"}})


def differences(run: Trajectory, live: Live) -> list[str]:
    """Which figures are not the live ones."""
    about = {name: getattr(run, name) for name in ("group_id", "rollout", "purpose")}
    found = {
        "dollars": run.totals is not None and run.totals["dollars"] == live.ledger["dollars"],
        "seconds": run.totals is not None and run.totals["seconds"] == live.ledger["seconds"],
        "wall seconds": run.totals is not None and run.totals["wall_seconds"] == live.ledger["wall_seconds"],
        "calls": run.totals is not None and run.totals["tools"] == live.ledger["tools"],
        "task": {"id": run.task.id, **about} == live.about,
        "verdict": run.verdict is None or run.verdict.outcome == float(live.solved),
    }
    return [name for name, equal in found.items() if not equal]


def compare(source: Source, live: dict[str, Live], folder: Path) -> dict[str, Any]:
    """Harvest a source by itself, and count the runs that are equal."""
    report = harvest([source], folder)
    runs = [run for name in (TRAIN, TEST) if (folder / name).exists() for run in read_runs(folder / name)]
    assert len({run.run_id for run in runs}) == len(runs)
    wrong = Counter(name for run in runs for name in differences(run, live[run.run_id]))
    return {
        "runs": len(runs),
        "equal": sum(not differences(run, live[run.run_id]) for run in runs),
        "judged": sum(run.verdict is not None for run in runs),
        "fidelity": dict(report.fidelity),
        "skipped": dict(report.skipped),
        "different": dict(wrong),
    }


async def _carry_out(runs: int, folder: Path, log: RunLog, address: str | None) -> dict[str, Live]:
    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as sqlite:
        if address is None:
            return await make(runs, log, [sqlite])
        async with AsyncPostgresSaver.from_conn_string(address) as pg:
            await pg.setup()
            return await make(runs, log, [sqlite, pg])


def round_trip(runs: int, folder: Path, address: str | None) -> dict[str, dict[str, Any]]:
    """Carry runs out and harvest them from each source.

    Args:
        runs: How many.
        folder: Empty.
        address: Of a PostgreSQL database, which then holds the checkpoints of every second thread.

    Returns:
        By source, what `compare` counts.
    """
    log = RunLog(folder / "runs.jsonl")
    with recording() as recorder:
        live = asyncio.run(_carry_out(runs, folder, log, address))
    with served() as reader:
        reader.runs = recorder.runs
        judge_traces(reader, live)
        sources: dict[str, Source] = {
            "run log": LogSource(log.path),
            "LangSmith": LangSmithSource("test", Wanted(feedback=FEEDBACK), lambda: _client(reader)),
            "SQLite": SqliteSource(folder / "checkpoints.sqlite"),
            **({"PostgreSQL": PostgresSource(address)} if address is not None else {}),
        }
        return {name: compare(source, live, folder / f"data {name}") for name, source in sources.items()}


def _client(reader: Recorder) -> langsmith.Client:
    return langsmith.Client(api_url=reader.url, api_key=KEY)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Runs against what is harvested of them.")
    parser.add_argument("--runs", type=int, default=1_000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, postgres() as address:
        found = round_trip(runs, Path(folder), address)
    print(
        f"{runs:,} runs of the workbench, by {', '.join(ROUTERS)}; checkpoints of every second thread in each database"
    )
    print(f"{'source':12} {'runs':>6} {'equal':>6} {'judged':>7}  fidelity, skipped, different")
    for name, row in found.items():
        rest = ", ".join(str(row[key]) for key in ("fidelity", "skipped", "different"))
        print(f"{name:12} {row['runs']:6,} {row['equal']:6,} {row['judged']:7,}  {rest}")


if __name__ == "__main__":
    main()
