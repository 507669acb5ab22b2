"""Customer records: the database decides, and every wrong or missing change is noticed."""

from __future__ import annotations

import gc
import sqlite3

import pytest

from orchestra_graph.workbench import Task, Workbench
from orchestra_graph.workbench.database import CUSTOMERS, ORDERS, Database
from orchestra_graph.workbench.tasks import FAMILIES
from orchestra_graph.workbench.tasks.records import Changes, make

BENCH = Workbench()
TASKS = BENCH.tasks("held_out", 40, families=("records",))


def changes_of(task: Task) -> Changes:
    changes: Changes | None = FAMILIES["records"].read(task.question)
    assert changes is not None
    return changes


async def test_all_changes_solve_it_whatever_is_answered() -> None:
    for task in TASKS:
        world = BENCH.world(task)
        make(changes_of(task), world.database)
        assert await BENCH.verdict(task, None, world)


async def test_doing_nothing_or_leaving_one_out_does_not() -> None:
    for task in TASKS:
        changes = changes_of(task)
        for left_out in range(len(changes)):
            world = BENCH.world(task)
            make([*changes[:left_out], *changes[left_out + 1 :]], world.database)
            assert not await BENCH.verdict(task, task.reference, world), task.question


@pytest.mark.parametrize(
    "slip",
    [
        "UPDATE customers SET credit = credit + 1 WHERE id = (SELECT MIN(id) FROM customers)",
        "UPDATE orders SET status = 'lost' WHERE id = (SELECT MAX(id) FROM orders)",
        "DELETE FROM orders WHERE id = (SELECT MIN(id) FROM orders)",
        "INSERT INTO customers (id) VALUES ('C-1')",
    ],
)
async def test_one_more_change_is_noticed(slip: str) -> None:
    task = TASKS[2]
    world = BENCH.world(task)
    make(changes_of(task), world.database)
    world.database.execute([(slip, ())])
    assert not await BENCH.verdict(task, task.reference, world)


def test_every_run_has_a_database_of_its_own() -> None:
    first, second = BENCH.world(TASKS[0]), BENCH.world(TASKS[0])
    assert first.database.content() == second.database.content()
    make(changes_of(TASKS[0]), first.database)
    assert first.database.content() != second.database.content()


def test_a_seed_gives_rows_and_another_seed_others() -> None:
    content = Database(1).content()
    assert (len(content["customers"]), len(content["orders"])) == (CUSTOMERS, ORDERS)
    assert content == Database(1).content() != Database(2).content()


def test_a_failing_statement_leaves_nothing_behind() -> None:
    database = Database(1)
    with pytest.raises(sqlite3.OperationalError):
        database.execute([("DELETE FROM orders", ()), ("DELETE FROM nowhere", ())])
    assert database.content() == Database(1).content()


def test_a_database_closes_itself() -> None:
    database = Database(1)
    connection = database._connection
    del database
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
