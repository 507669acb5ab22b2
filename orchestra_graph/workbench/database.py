"""The customer records: an SQLite database in memory, the same rows for the same seed."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Any

from orchestra_graph.workbench.names import unique_names

CUSTOMERS = 40
ORDERS = 60
PLANS = ("basic", "silver", "gold", "platinum")
CITIES = ("Lyon", "Porto", "Graz", "Turku", "Bergen", "Leiden")
ITEMS = ("lamp", "kettle", "desk", "chair", "printer", "bicycle", "tent", "radio")
STATUSES = ("open", "open", "open", "shipped", "cancelled")

_SCHEMA = """
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, city TEXT, plan TEXT, email TEXT, credit INTEGER);
CREATE TABLE orders (id TEXT PRIMARY KEY, customer TEXT, item TEXT, status TEXT, total INTEGER);
"""

Statement = tuple[str, tuple[Any, ...]]
"""SQL with `?` marks, and their values. Money is in cents."""


class Database:
    """Customers and their orders; filled when they are first looked at, which most runs never do.

    Args:
        seed: Gives the rows.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()

    @cached_property
    def _connection(self) -> sqlite3.Connection:
        """Made under the lock."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        weakref.finalize(self, connection.close)
        _fill(connection, Random(f"records/{self._seed}"))
        return connection

    def execute(self, statements: Sequence[Statement]) -> int:
        """Run statements in one transaction.

        Returns:
            Rows changed.
        """
        with self._lock, self._connection:
            return sum(self._connection.execute(sql, values).rowcount for sql, values in statements)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows by table, ordered by id: two databases are equal when their contents are."""
        return {table: self.rows(f"SELECT * FROM {table} ORDER BY id") for table in ("customers", "orders")}


def _fill(connection: sqlite3.Connection, rng: Random) -> None:
    names = unique_names(rng)
    customers = [f"C-{number}" for number in sorted(rng.sample(range(1000, 10000), CUSTOMERS))]
    orders = [f"O-{number}" for number in sorted(rng.sample(range(10000, 100000), ORDERS))]
    with connection:
        connection.executescript(_SCHEMA)
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)", [_customer(c, next(names), rng) for c in customers]
        )
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", [_order(o, customers, rng) for o in orders])


def _customer(identity: str, name: str, rng: Random) -> tuple[Any, ...]:
    email = f"{name.lower()}@example.com"
    return identity, name, rng.choice(CITIES), rng.choice(PLANS), email, rng.randrange(0, 5000, 50)


def _order(identity: str, customers: Sequence[str], rng: Random) -> tuple[Any, ...]:
    total = rng.randrange(500, 20000, 50)
    return identity, rng.choice(customers), rng.choice(ITEMS), rng.choice(STATUSES), total
