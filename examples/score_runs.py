"""From logged runs to rewards, offline: log, judge, group, filter, score: python examples/score_runs.py"""

import asyncio
import tempfile
from pathlib import Path

from orchestra_training.evaluate.score import evaluate, read_reference, write_reference
from orchestra_training.filters import FilterReport, homogeneous
from orchestra_training.groups import collect
from orchestra_training.reward import advantages, guarded
from orchestra_training.verdicts import exact

from orchestra_graph import Random, Rules, RunLog, create_orchestrator
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.workbench import Workbench

bench = Workbench()
tasks = bench.tasks("train", 4, families=["arithmetic", "algebra"])


async def play(router, log: RunLog) -> None:
    """One run of each task; any graph with a run log does."""
    for task in tasks:
        tools = bench.tools(bench.world(task))
        graph = create_orchestrator(router, tools, catalog=bench.catalog, run_log=log, fallback=None).compile()
        question = {"messages": [("user", task.question)]}
        await graph.ainvoke(question, context={"task": {"id": task.id, "purpose": "train"}})


def judge(log: RunLog) -> None:
    """Verdicts go into the log as lines of their own."""
    for run in read_runs(log.path):
        log.judge(run.run_id, exact(run.answer, bench.task(run.task.id or "").reference))


folder = Path(tempfile.mkdtemp())
rollouts, rules = RunLog(folder / "rollouts.jsonl"), RunLog(folder / "rules.jsonl")
for seed in range(6):
    asyncio.run(play(Random(seed=seed), rollouts))
asyncio.run(play(Rules(), rules))
judge(rollouts)
judge(rules)

# Runs of the same task, catalog, preferences, budget and policy are compared with each other.
report = FilterReport()
for group in collect(read_runs(rollouts.path), report):
    rewards = group.rewards(guarded)
    fault = homogeneous(rewards, group.earned)
    told = fault.kind if fault else " ".join(f"{a:+.2f}" for a in advantages(rewards))
    print(f"{sum(group.earned)} of {len(rewards)} solved, rewards {max(rewards):.2f} at most: {told}")
print(f"{report.kept} runs in groups, left out: {dict(report.counts)}")

# How good another router is, against one frozen run of the first policy on each task.
write_reference(folder / "reference.jsonl", list(read_runs(rollouts.path))[: len(tasks)])
scores = evaluate(read_runs(rules.path), read_reference(folder / "reference.jsonl"))
print(f"rules: utility {scores.utility:.2f}, score (6) {scores.mean_score:.2f} a run")
