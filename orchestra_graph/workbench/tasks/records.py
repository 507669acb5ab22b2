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
from orchestra_graph.workbench.wording import Phrases, Split
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
        Phrases(
            (
                "move customer {id} to {value}",
                "set the city of customer {id} to {value}",
                "change the city of customer {id} to {value}",
                "record {value} as the city of customer {id}",
                "customer {id} has moved, so write {value} as the city",
            ),
            ("customer {id} now lives in {value}",),
        ),
        _set("city"),
    ),
    "plan": Kind(
        Phrases(
            (
                "put customer {id} on the {value} plan",
                "switch customer {id} to plan {value}",
                "change the plan of customer {id} to {value}",
                "give customer {id} the {value} plan",
                "make {value} the plan of customer {id}",
            ),
            ("customer {id} wants the {value} plan",),
        ),
        _set("plan"),
    ),
    "email": Kind(
        Phrases(
            (
                "set the e-mail of customer {id} to {value}",
                "store {value} as the e-mail of customer {id}",
                "change the e-mail of customer {id} to {value}",
                "use {value} as the new e-mail of customer {id}",
                "update the e-mail address of customer {id} to {value}",
            ),
            ("customer {id} is now reached at {value}",),
        ),
        _set("email"),
    ),
    "credit": Kind(
        Phrases(
            (
                "credit customer {id} with {value}",
                "add {value} to the credit of customer {id}",
                "increase by {value} what customer {id} has as credit",
                "raise the credit of customer {id} by {value}",
                "book {value} of credit for customer {id}",
            ),
            ("grant customer {id} a credit of {value}",),
        ),
        lambda d: [("UPDATE customers SET credit = credit + ? WHERE id = ?", (_cents(d["value"]), d["id"]))],
    ),
    "refund": Kind(
        Phrases(
            (
                "cancel order {id} and credit its total to the customer",
                "refund order {id} as credit and cancel it",
                "cancel order {id} and turn its total into credit",
                "void order {id} and give its total back as credit",
                "take back order {id}: cancel it and credit its total",
            ),
            ("order {id} is off, its total goes to the customer's credit",),
        ),
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
        Phrases(
            (
                "credit every customer in {city} on the {plan} plan with {value}",
                "add {value} to the credit of each customer in {city} whose plan is {plan}",
                "give all customers in {city} who are on the {plan} plan a credit of {value}",
                "for every {plan} customer of {city}, raise the credit by {value}",
                "grant {value} of credit to each customer in {city} with the {plan} plan",
            ),
            ("all {plan} customers in {city} get a credit of {value}",),
        ),
        lambda d: [
            (
                "UPDATE customers SET credit = credit + ? WHERE city = ? AND plan = ?",
                (_cents(d["value"]), d["city"], d["plan"]),
            )
        ],
        sweep=True,
    ),
    "shipping sweep": Kind(
        Phrases(
            (
                "mark every open order of customers in {city} as shipped",
                "set all open orders from {city} to shipped",
                "ship all open orders of customers in {city}",
                "for each customer in {city}, mark the open orders as shipped",
                "change the status of open orders from {city} to shipped",
            ),
            ("whatever is open for customers in {city} has been shipped",),
        ),
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
        Phrases(
            (
                "put every customer whose shipped orders exceed {value} in total on the platinum plan",
                "move all customers with more than {value} in shipped orders to platinum",
                "upgrade to platinum every customer with shipped orders above {value} in total",
                "give the platinum plan to all customers whose shipped orders add up to more than {value}",
                "switch customers to platinum if their shipped orders total over {value}",
            ),
            ("whoever has shipped orders of over {value} altogether becomes a platinum customer",),
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
    frames: ClassVar[Phrases] = Phrases(
        train=(
            "Please change the customer records: {ask}.",
            "Update the customer database: {ask}.",
            "A request for the records desk: {ask}.",
            "In our customer records, do the following: {ask}.",
            "Edit customers and orders as follows: {ask}.",
            "Customer service asks: {ask}.",
            "There is work to do on customers and orders: {ask}.",
            "Carry this out in the CRM: {ask}.",
        ),
        held_out=(
            "These changes have to go into the customer database: {ask}.",
            "Bring the customer records up to date: {ask}.",
        ),
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
