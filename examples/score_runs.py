"""From logged runs to rewards, offline: log, judge, harvest, group, score: python examples/score_runs.py"""

import asyncio
import tempfile
from pathlib import Path

from orchestra_training.evaluate.score import evaluate, read_reference, write_reference
from orchestra_training.filters import FilterReport, homogeneous
from orchestra_training.groups import collect
from orchestra_training.harvest.gather import harvest
from orchestra_training.harvest.logs import LogSource
from orchestra_training.reward import advantages, guarded
from orchestra_training.verdicts import exact

from orchestra_graph import Random, Rules, RunLog, create_orchestrator
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.workbench import Workbench

bench = Workbench()
tasks = bench.tasks("train", 6, families=["arithmetic", "algebra"])
folder = Path(tempfile.mkdtemp())
log = RunLog(folder / "runs.jsonl")


async def play(router) -> None:
    """One run of each task; any graph with a run log does."""
    for task in tasks:
        tools = bench.tools(bench.world(task))
        graph = create_orchestrator(router, tools, catalog=bench.catalog, run_log=log, fallback=None).compile()
        question = {"messages": [("user", task.question)]}
        await graph.ainvoke(question, context={"task": {"id": task.id, "purpose": "train"}})


for seed in range(6):
    asyncio.run(play(Random(seed=seed)))
asyncio.run(play(Rules()))
for run in list(read_runs(log.path)):  # a verdict goes into the log as a line of its own
    log.judge(run.run_id, exact(run.answer, bench.task(run.task.id or "").reference))

harvested = harvest([LogSource(log.path)], folder / "data", test_share=0.3)
print({name: f"{split.runs} runs, {split.tasks} tasks" for name, split in harvested.splits.items()})

# Runs of the same task, catalog, preferences, budget and policy are compared with each other.
report = FilterReport()
for group in collect(read_runs(folder / "data" / "train.jsonl.zst"), report):
    rewards = group.rewards(guarded)
    fault = homogeneous(rewards, group.earned)
    told = fault.kind if fault else " ".join(f"{advantage:+.2f}" for advantage in advantages(rewards))
    print(f"{sum(group.earned)} of {len(rewards)} solved: {told}")
print(f"{report.kept} runs in groups, left out: {dict(report.counts)}")

# How good a router is on the tasks kept for testing, against one frozen run of another one on each of them.
tested = list(read_runs(folder / "data" / "test.jsonl.zst"))
frozen = {run.task.id: run for run in tested if run.policy.name == "Random"}
write_reference(folder / "reference.jsonl", frozen.values())
rules = [run for run in tested if run.policy.name == "Rules"]
scores = evaluate(rules, read_reference(folder / "reference.jsonl"))
print(f"Rules: utility {scores.utility:.2f}, score (6) {scores.mean_score:.2f} a run")
