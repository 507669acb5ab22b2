"""A shop in memory, as an example of a domain: three customers, a few orders, five functions.

    graphs/service.toml: domain = "shop.py:make_tools"

Each call of `make_tools` opens a shop of its own. Left out: everything that a shop would keep.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

from orchestra_graph import ToolError

TODAY = date(2026, 3, 1)
RETURN_DAYS = 30

_RECORDS = """
CREATE TABLE customers (id TEXT PRIMARY KEY, email TEXT UNIQUE, name TEXT);
CREATE TABLE orders (
    id TEXT PRIMARY KEY, customer TEXT, item TEXT, price REAL, status TEXT, address TEXT, delivered TEXT
);
INSERT INTO customers VALUES
    ('c1', 'ana@example.org', 'Ana Weiss'),
    ('c2', 'ben@example.org', 'Ben Roth'),
    ('c3', 'cleo@example.org', 'Cleo Gray');
INSERT INTO orders VALUES
    ('o1', 'c1', 'kettle', 39.0, 'placed', '1 Mill Lane, Bern', NULL),
    ('o2', 'c1', 'lamp', 80.0, 'delivered', '1 Mill Lane, Bern', '2026-02-20'),
    ('o3', 'c2', 'desk', 240.0, 'shipped', '9 Lake Road, Basel', NULL),
    ('o4', 'c2', 'chair', 120.0, 'delivered', '9 Lake Road, Basel', '2026-01-05'),
    ('o5', 'c3', 'rug', 65.0, 'placed', '4 Hill Street, Chur', NULL);
"""


def make_tools() -> list[Callable[..., str]]:
    """The functions of a new shop."""
    shop = _Shop()

    def find_customer(email: str) -> str:
        """Find a customer by e-mail address, with the numbers of their orders."""
        return shop.find_customer(email)

    def get_order(order_id: str) -> str:
        """Look an order up by its number."""
        return json.dumps(shop.order(order_id))

    def cancel_order(order_id: str) -> str:
        """Cancel an order that has not been shipped."""
        return shop.change(order_id, "placed", status="cancelled")

    def change_address(order_id: str, address: str) -> str:
        """Change the delivery address of an order that has not been shipped."""
        return shop.change(order_id, "placed", address=address)

    def return_order(order_id: str) -> str:
        """Take a delivered order back and refund it."""
        order = shop.order(order_id)
        if order["delivered"] and (TODAY - date.fromisoformat(order["delivered"])).days > RETURN_DAYS:
            raise ToolError(f"order {order_id} was delivered more than {RETURN_DAYS} days ago")
        return shop.change(order_id, "delivered", status="returned")

    return [find_customer, get_order, cancel_order, change_address, return_order]


class _Shop:
    """The records; tools run in threads, one at a time here."""

    def __init__(self) -> None:
        self._records = sqlite3.connect(":memory:", check_same_thread=False)
        self._records.row_factory = sqlite3.Row
        self._records.executescript(_RECORDS)
        self._lock = threading.Lock()

    def find_customer(self, email: str) -> str:
        rows = self._rows("SELECT * FROM customers WHERE email = ?", email.strip().lower())
        if not rows:
            raise ToolError(f"there is no customer with the address {email}")
        orders = self._rows("SELECT id FROM orders WHERE customer = ? ORDER BY id", rows[0]["id"])
        return json.dumps({**rows[0], "orders": [order["id"] for order in orders]})

    def order(self, order_id: str) -> dict[str, Any]:
        rows = self._rows("SELECT * FROM orders WHERE id = ?", order_id)
        if not rows:
            raise ToolError(f"there is no order {order_id}")
        return rows[0]

    def change(self, order_id: str, needed: str, **fields: str) -> str:
        """Change fields of an order that is in the status needed."""
        status = self.order(order_id)["status"]
        if status != needed:
            raise ToolError(f"order {order_id} is {status}; expected {needed}")
        for field, value in fields.items():
            self._rows(f"UPDATE orders SET {field} = ? WHERE id = ? RETURNING id", value, order_id)
        return json.dumps(self.order(order_id))

    def _rows(self, statement: str, *values: str) -> list[dict[str, Any]]:
        with self._lock, self._records:
            return [dict(row) for row in self._records.execute(statement, values)]
