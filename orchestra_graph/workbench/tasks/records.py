"""Customer records: a request of one or several changes; solved when the database equals the one with all changes made.

Sizes: `changes`, beyond which an expert forgets the rest and still says that it is done, and `sweeps`, changes to all
records that meet a condition, which a clerk declines. `per_call` is no size: it says how many changes an expert makes
before it reports back; it has to be called again for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import ClassVar

from orchestra_graph.workbench.database import CITIES, PLANS, Database, Statement
from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

SHAPE = {1: (1, 0), 2: (2, 0), 3: (3, 0), 4: (4, 1), 5: (6, 2)}
"""Changes, and sweeps among them, by difficulty."""

_JOIN = "; "
_DONE = re.compile(r"Done: changes up to (\d+) of \d+")


@dataclass(frozen=True)
class Kind:
    """One kind of change."""

    asks: Phrases
    statements: Callable[[dict[str, str]], list[Statement]]
    sweep: bool = False


@dataclass(frozen=True)
class Change:
    """A kind and its details."""

    kind: str
    details: tuple[tuple[str, str], ...]

    def statements(self) -> list[Statement]:
        """The SQL that makes it."""
        return KINDS[self.kind].statements(dict(self.details))


Changes = tuple[Change, ...]


def _cents(amount: str) -> int:
    return int(Decimal(amount) * 100)


def _set(column: str) -> Callable[[dict[str, str]], list[Statement]]:
    return lambda d: [(f"UPDATE customers SET {column} = ? WHERE id = ?", (d["value"], d["id"]))]


KINDS: dict[str, Kind] = {
    "city": Kind(
        phrases("records", "city", "customer {id} now lives in {value}"),
        _set("city"),
    ),
    "plan": Kind(
        phrases("records", "plan", "customer {id} wants the {value} plan"),
        _set("plan"),
    ),
    "email": Kind(
        phrases("records", "email", "customer {id} is now reached at {value}"),
        _set("email"),
    ),
    "credit": Kind(
        phrases("records", "credit", "grant customer {id} a credit of {value}"),
        lambda d: [("UPDATE customers SET credit = credit + ? WHERE id = ?", (_cents(d["value"]), d["id"]))],
    ),
    "refund": Kind(
        phrases("records", "refund", "order {id} is off, its total goes to the customer's credit"),
        lambda d: [
            (
                "UPDATE customers SET credit = credit + (SELECT total FROM orders WHERE id = ?)"
                " WHERE id = (SELECT customer FROM orders WHERE id = ?)",
                (d["id"], d["id"]),
            ),
            ("UPDATE orders SET status = 'cancelled' WHERE id = ?", (d["id"],)),
        ],
    ),
    "credit sweep": Kind(
        phrases("records", "credit_sweep", "all {plan} customers in {city} get a credit of {value}"),
        lambda d: [
            (
                "UPDATE customers SET credit = credit + ? WHERE city = ? AND plan = ?",
                (_cents(d["value"]), d["city"], d["plan"]),
            )
        ],
        sweep=True,
    ),
    "shipping sweep": Kind(
        phrases("records", "shipping_sweep", "whatever is open for customers in {city} has been shipped"),
        lambda d: [
            (
                "UPDATE orders SET status = 'shipped' WHERE status = 'open'"
                " AND customer IN (SELECT id FROM customers WHERE city = ?)",
                (d["city"],),
            )
        ],
        sweep=True,
    ),
    "loyalty sweep": Kind(
        phrases(
            "records",
            "loyalty_sweep",
            "whoever has shipped orders of over {value} altogether becomes a platinum customer",
        ),
        lambda d: [
            (
                "UPDATE customers SET plan = 'platinum' WHERE plan != 'platinum' AND"
                " (SELECT SUM(total) FROM orders WHERE customer = customers.id AND status = 'shipped') > ?",
                (_cents(d["value"]),),
            )
        ],
        sweep=True,
    ),
}


class Records(Family[Changes]):
    """Changes are made in the order of the request."""

    name: ClassVar[str] = "records"
    frames: ClassVar[Phrases] = phrases(
        "records",
        "frames",
        "These changes have to go into the customer database: {ask}.",
        "Bring the customer records up to date: {ask}.",
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> Changes:
        """Changes each of which changes something, given the ones before it."""
        total, sweeps = SHAPE[difficulty]
        wanted = [True] * sweeps + [False] * (total - sweeps)
        rng.shuffle(wanted)
        scratch = Database(world.seed)
        changes: list[Change] = []
        for sweep in wanted:
            kinds = [name for name, kind in KINDS.items() if kind.sweep == sweep]
            changes.append(_draw_effective(rng, kinds, scratch, changes))
        return tuple(changes)

    def phrase(self, problem: Changes, rng: Random, split: Split) -> str:
        """The changes in order."""
        return _JOIN.join(KINDS[c.kind].asks.draw(rng, split, **dict(c.details)) for c in problem)

    def parse(self, ask: str) -> Changes | None:
        """Every change is of a known kind."""
        changes = [_read_change(part) for part in ask.split(_JOIN)]
        known = tuple(change for change in changes if change is not None)
        return known if len(known) == len(changes) else None

    def sizes(self, problem: Changes) -> Sizes:
        """Number of changes, and of sweeps among them."""
        return {"changes": len(problem), "sweeps": sum(KINDS[change.kind].sweep for change in problem)}

    def title(self, problem: Changes) -> str:
        """For example `records, 3 changes`."""
        return f"records, {len(problem)} change{'s' * (len(problem) > 1)}"

    def solve(self, problem: Changes, limits: Sizes, desk: Desk) -> Working:
        """Make the next changes, from where the evidence says that they stand."""
        if desk.database is None:
            return Working("I have no access to the customer records.")
        if self.sizes(problem)["sweeps"] > limits["sweeps"]:
            return Working("This concerns all records that meet a condition. I only change single records.")
        start = max(map(changes_made, desk.evidence), default=0)
        end = min(len(problem), start + limits["per_call"])
        for change in problem[start : min(end, limits["changes"])]:
            desk.database.execute(change.statements())
        report = f"Done: changes up to {end} of {len(problem)}."
        return Working(report, report if end == len(problem) else None)

    def reference(self, problem: Changes, world: World) -> str:
        """What an expert says when all is done."""
        return f"Done: changes up to {len(problem)} of {len(problem)}."

    async def check(self, problem: Changes, answer: str, world: World) -> bool:
        """The run's database equals a fresh one with all changes made, whatever the answer says."""
        gold = Database(world.seed)
        make(problem, gold)
        return world.database.content() == gold.content()


def changes_made(text: str) -> int:
    """How many changes a result says are done; 0 where it says nothing of changes."""
    return max(map(int, _DONE.findall(text)), default=0)


def make(changes: Sequence[Change], database: Database) -> None:
    """Make changes in order."""
    for change in changes:
        database.execute(change.statements())


def _read_change(text: str) -> Change | None:
    for name, kind in KINDS.items():
        for slots in kind.asks.matches(text):
            change = Change(name, tuple(sorted(slots.items())))
            if all(re.fullmatch(r"[\w.@-]+", value) for value in slots.values()):
                return change
    return None


def _draw_effective(rng: Random, kinds: Sequence[str], scratch: Database, earlier: Sequence[Change]) -> Change:
    """Draw a change that changes the scratch database and undoes no earlier one, and make it there."""
    taken = {(change.kind, dict(change.details).get("id")) for change in earlier}
    while True:
        kind = rng.choice(kinds)
        details = _details(rng, kind, scratch)
        if (kind, details.get("id")) in taken:
            continue
        change = Change(kind, tuple(sorted(details.items())))
        before = scratch.content()
        scratch.execute(change.statements())
        if scratch.content() != before:
            return change


def _details(rng: Random, kind: str, scratch: Database) -> dict[str, str]:
    amount = f"{rng.randrange(100, 5000, 50) / 100:.2f}"
    if kind == "refund":
        orders = scratch.rows("SELECT id FROM orders WHERE status = 'open' ORDER BY id")
        return {"id": rng.choice(orders)[0]}
    if kind == "loyalty sweep":
        return {"value": f"{rng.randrange(100, 300, 10)}.00"}
    if kind == "shipping sweep":
        return {"city": rng.choice(CITIES)}
    if kind == "credit sweep":
        return {"city": rng.choice(CITIES), "plan": rng.choice(PLANS), "value": amount}
    customer = rng.choice(scratch.rows("SELECT id FROM customers ORDER BY id"))[0]
    mail = f"{customer.lower()}.{rng.randrange(1000)}@example.org"
    return {
        "id": customer,
        "value": {"city": rng.choice(CITIES), "plan": rng.choice(PLANS), "email": mail, "credit": amount}[kind],
    }
