"""Tasks of a log are asked again: from runs to a data set of tasks to rollouts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from orchestra_training.datasets.build import build
from orchestra_training.datasets.source import logs_of
from orchestra_training.rollout import Actor, Place, Rollouts, find_tasks
from orchestra_training.rollout.logged import LoggedTask, read_tasks
from orchestra_training.verdicts import exact
from orchestra_training.verdicts.ruling import ruling
from pyarrow import parquet

from orchestra_graph import (
    Budget,
    Catalog,
    Cheapest,
    ModelSpec,
    Preferences,
    Price,
    RunLog,
    create_orchestrator,
)
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.runlog.record import Policy, Verdict
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.workbench import Oracle, Workbench

BENCH = Workbench()
TASKS = {task.question: task for task in BENCH.tasks("train", 6)}
BUDGET = Budget(dollars=0.5, turns=7)
WISH = Preferences(cost=0.9, text="Keep it cheap.")


def open_place(task: LoggedTask) -> Place:
    """A place of one's own: the workbench, which knows its tasks."""
    known = TASKS[task.question]
    world = BENCH.world(known)

    async def verdict(answer: str | None) -> Verdict:
        return ruling(float(await BENCH.verdict(known, answer, world)), "workbench")

    return Place(BENCH.tools(world, catalog=BENCH.catalog), verdict)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks of a log in which each was run once."""
    folder = tmp_path_factory.mktemp("logged")
    log = RunLog(folder / "runs.jsonl")
    for task in TASKS.values():
        graph = create_orchestrator(
            Cheapest(),
            BENCH.tools(BENCH.world(task), catalog=BENCH.catalog),
            catalog=BENCH.catalog,
            preferences=WISH,
            budget=BUDGET,
            run_log=log,
        ).compile()
        about = {"id": task.id, "purpose": "train"}
        asyncio.run(graph.ainvoke({"messages": [("user", task.question)]}, context={"task": about}))
    build("grpo", logs_of(log.path), folder / "tasks")
    return folder / "tasks"


def source(data: Path, place: str = "tests.training.test_rollout_logged:open_place") -> Any:
    return find_tasks("logged", {"data": str(data), "place": place})


def test_a_task_is_asked_as_it_was(tasks: Path) -> None:
    task = source(tasks)(0, 0, 0)
    assert task.id == TASKS[task.question].id
    assert (task.preferences, task.budget) == (WISH, BUDGET)
    logged = next(iter(logs_of(tasks.parent / "runs.jsonl"))).catalog
    assert task.catalog is not None and logged is not None
    assert task.catalog.tools == logged.tools
    assert list(task.catalog.tools) == list(BENCH.catalog.tools)


def test_every_task_has_its_turn_in_an_order_that_seed_and_step_give(tasks: Path) -> None:
    one, other = source(tasks), source(tasks)
    orders = [[one(seed, step, index).id for index in range(6)] for seed, step in [(0, 0), (0, 1), (1, 0)]]
    assert all(sorted(order) == sorted(task.id for task in TASKS.values()) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert [other(0, 1, index).id for index in range(6)] == orders[1]
    assert one(0, 0, 6).id == orders[0][0]


def test_rollouts_of_a_log_are_judged_in_their_own_places(tasks: Path) -> None:
    actor = Actor(router=Oracle(), protocol=ConversationProtocol(repair=False), policy=Policy(name="oracle"))
    runs = asyncio.run(Rollouts(tasks=source(tasks), seed=0, size=2).batch(actor, 0, range(3)))
    assert [run.verdict and run.verdict.outcome for run in runs] == [1.0] * 6


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def open_sum(task: LoggedTask) -> Place:
    """A place with one function: the router answers by itself."""

    async def verdict(answer: str | None) -> Verdict:
        return exact(answer or "", "3")

    return Place([add], verdict)


ADDING = ScriptedRouter([("add", {"a": 1, "b": 2}), ("final_answer", {"answer": "3"})], stateless=True)


def test_neither_the_routers_line_nor_what_the_graph_adds_comes_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    served = ModelSpec(model="another", base_url="http://localhost:1/v1", price=Price(input=1000.0))
    graph = create_orchestrator(
        ADDING, [add], catalog=Catalog.of([], router=served), run_log=log, fallback=None
    ).compile()
    about = {"purpose": "train"}
    asyncio.run(graph.ainvoke({"messages": [("user", "What is 1 + 2?")]}, context={"task": about}))
    build("grpo", logs_of(log.path), tmp_path / "tasks")
    tasks = source(tmp_path / "tasks", "tests.training.test_rollout_logged:open_sum")
    catalog = tasks(0, 0, 0).catalog
    assert (list(catalog.tools), catalog.router) == (["add"], ModelSpec())
    actor = Actor(router=ADDING, protocol=ConversationProtocol(repair=False), policy=Policy(name="p"))
    runs = asyncio.run(Rollouts(tasks=tasks, seed=0, size=2).batch(actor, 0, range(1)))
    assert [run.verdict and run.verdict.outcome for run in runs] == [1.0] * 2


def test_what_is_no_data_set_of_tasks_is_refused(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tasks there; expected a folder that `orchestra data build grpo` wrote"):
        source(tmp_path)
    parquet.write_table(pa.Table.from_pylist([{"prompt_ids": [1], "label": True}]), tmp_path / "kto.parquet")
    with pytest.raises(ConfigError, match="question: Field required; expected a folder"):
        source(tmp_path)
    with pytest.raises(ConfigError, match="nowhere:open_place"):
        source(tasks, "nowhere:open_place")


def test_tasks_that_test_are_not_rolled_out(tasks: Path, tmp_path: Path) -> None:
    [file] = tasks.glob("train-*.parquet")
    table = parquet.read_table(file)
    parquet.write_table(table.slice(2), tmp_path / file.name)
    parquet.write_table(table.slice(0, 2), tmp_path / file.name.replace("train", "test"))
    assert [task.question for task in read_tasks(tmp_path)] == table["question"].to_pylist()[2:]


def test_no_limit_and_no_catalog_are_read_back() -> None:
    row = {"question": "q", "preferences": "{}", "budget": json.dumps({"turns": 3, "dollars": None})}
    task = LoggedTask.model_validate({**row, "catalog": None, "runs": 1, "judged": 0, "solved": 0})
    assert (task.budget, task.catalog) == (Budget(turns=3), None)
