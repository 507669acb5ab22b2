"""Every wording of every question is read back as what it says, and as nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import pytest

from orchestra_graph.workbench import FAMILIES
from orchestra_graph.workbench.relations import RELATIONS
from orchestra_graph.workbench.tasks import algebra, calculus, number_theory, read, records, steps
from orchestra_graph.workbench.tasks.lookup import Chain
from orchestra_graph.workbench.tasks.programming import Step
from orchestra_graph.workbench.wording import Phrases

DETAILS = {
    "city": {"id": "C17", "value": "Arden"},
    "plan": {"id": "C17", "value": "gold"},
    "email": {"id": "C17", "value": "c17.5@example.org"},
    "credit": {"id": "C17", "value": "12.50"},
    "refund": {"id": "O204"},
    "credit sweep": {"city": "Arden", "plan": "gold", "value": "12.50"},
    "shipping sweep": {"city": "Arden"},
    "loyalty sweep": {"value": "150.00"},
}


def wordings(phrases: Phrases, **slots: object) -> list[str]:
    return [text.format(**slots) for text in (*phrases.train, *phrases.held_out)]


def asks(family: str) -> Iterator[tuple[str, object]]:
    """Words of a question, and the problem that they stand for."""
    match family:
        case "arithmetic":
            yield "(12 + 345) * 67", "(12 + 345) * 67"
        case "algebra":
            lines = ("2*x - 3*y = 5", "x + y = 10")
            for text in wordings(algebra.Algebra.joins, a=lines[0], b=lines[1]):
                yield text, algebra.Equations(lines)
            yield "x**2 - 5*x + 6 = 0", algebra.Equations(("x**2 - 5*x + 6 = 0",))
        case "calculus":
            for kind, phrases in calculus._ASKS.items():
                b = 4 if kind == "integral" else 0
                for text in wordings(phrases, f="3*x*exp(2*x)", a=2, b=4):
                    yield text, calculus.Problem(kind, "3*x*exp(2*x)", 2, b)
        case "number_theory":
            for kind, phrases in number_theory._ASKS.items():
                b, m = 36 * (kind in ("gcd", "power")), 101 * (kind in ("power", "inverse"))
                for text in wordings(phrases, a=24, b=36, m=101):
                    yield text, number_theory.Problem(kind, 24, b, m)
        case "programming":
            for first, last in ((s, f) for s in steps.STEPS for f in steps.FINALS):
                k, n = (3 if step.parameter else 0 for step in (first, last))
                for text, end in zip(wordings(first.asks, k=3) * 2, wordings(last.asks, k=3) * 2, strict=False):
                    yield f"{text}; then {end}", (Step(first.name, k), Step(last.name, n))
        case "lookup":
            for relation in RELATIONS:
                for text in wordings(relation.asks, x="Ada Brun"):
                    yield text, Chain("Ada Brun", (relation.name,))
        case "records":
            for name, change_kind in records.KINDS.items():
                change = records.Change(name, tuple(sorted(DETAILS[name].items())))
                for text in wordings(change_kind.asks, **DETAILS[name]):
                    yield text, (change,)
                    yield f"{text}; {text}", (change, change)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_wording_and_every_frame(family: str) -> None:
    """Wordings take turns with frames, which each come three times at least: all pairs of them are too many."""
    frames = wordings(FAMILIES[family].frames, ask="{ask}")
    known = list(asks(family))
    each = -(-3 * len(frames) // len(known))
    for place, (ask, problem) in enumerate(known):
        for n in range(each):
            question = frames[(place * each + n) % len(frames)].format(ask=ask)
            assert read(question) == (FAMILIES[family], problem), question


def test_every_pair_of_relations_nested() -> None:
    """The wordings of the inner one take turns."""
    inners = {inner.name: cycle(wordings(inner.asks, x="River Melku")) for inner in RELATIONS}
    for outer in RELATIONS:
        for text in wordings(outer.asks, x="{inner}"):
            for name, turns in inners.items():
                question = text.format(inner=next(turns))
                assert FAMILIES["lookup"].parse(question) == Chain("River Melku", (name, outer.name)), question
