"""The kinds of fact in the knowledge base: what they lead from and to, how documents and questions put them."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_graph.workbench.wording import Phrases, phrases


@dataclass(frozen=True)
class Relation:
    """One kind of fact."""

    name: str
    subjects: tuple[str, ...]
    """Kinds of thing that have it."""
    object: str
    """Kind of thing, or of plain value, that it leads to."""
    sentences: tuple[str, ...]
    """How documents say it, with `{s}` and `{o}`."""
    asks: Phrases
    """How questions say it, with `{x}`."""


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "founder",
        ("company",),
        "person",
        ("{s} was founded by {o}.", "The founder of {s} is {o}."),
        phrases("lookup", "founder", "the person who founded {x}"),
    ),
    Relation(
        "seat",
        ("company", "institute"),
        "city",
        ("{s} has its seat in {o}.", "The headquarters of {s} stand in {o}."),
        phrases("lookup", "seat", "the city that houses {x}"),
    ),
    Relation(
        "product",
        ("company",),
        "ware",
        ("{s} is known for its {o}.", "The workshops of {s} turn out {o}."),
        phrases("lookup", "product", "the ware that {x} is known for"),
    ),
    Relation(
        "birthplace",
        ("person",),
        "city",
        ("{s} was born in {o}.", "The birthplace of {s} is {o}."),
        phrases("lookup", "birthplace", "the city where {x} was born"),
    ),
    Relation(
        "mentor",
        ("person",),
        "person",
        ("{s} learned the trade from {o}.", "The mentor of {s} was {o}."),
        phrases("lookup", "mentor", "the person who taught {x}"),
    ),
    Relation(
        "profession",
        ("person",),
        "craft",
        ("By profession {s} is a {o}.", "{s} earns a living as a {o}."),
        phrases("lookup", "profession", "the line of work of {x}"),
    ),
    Relation(
        "employer",
        ("person",),
        "institute",
        ("{s} works at the {o}.", "Colleagues at the {o} value {s}."),
        phrases("lookup", "employer", "the institute that employs {x}"),
    ),
    Relation(
        "region",
        ("city",),
        "region",
        ("{s} lies in {o}.", "{s} is a city of {o}."),
        phrases("lookup", "region", "the province in which {x} lies"),
    ),
    Relation(
        "river",
        ("city",),
        "river",
        ("{s} stands on the banks of the {o}.", "Through {s} flows the {o}."),
        phrases("lookup", "river", "the river that flows through {x}"),
    ),
    Relation(
        "mayor",
        ("city",),
        "person",
        ("The mayor of {s} is {o}.", "{s} elected {o} as its mayor."),
        phrases("lookup", "mayor", "the person who is mayor in {x}"),
    ),
    Relation(
        "capital",
        ("region",),
        "city",
        ("The capital of {s} is {o}.", "{s} is governed from {o}."),
        phrases("lookup", "capital", "the city from which {x} is governed"),
    ),
    Relation(
        "emblem",
        ("region",),
        "animal",
        ("The arms of {s} show a {o}.", "{s} bears a {o} on its flag."),
        phrases("lookup", "emblem", "the animal on the flag of {x}"),
    ),
    Relation(
        "mouth",
        ("river",),
        "city",
        ("The {s} meets the sea near {o}.", "The {s} ends in the harbour of {o}."),
        phrases("lookup", "mouth", "the city where {x} ends"),
    ),
    Relation(
        "fish",
        ("river",),
        "fish",
        ("Anglers come to the {s} for its {o}.", "The {s} is rich in {o}."),
        phrases("lookup", "fish", "the fish that fills {x}"),
    ),
    Relation(
        "director",
        ("institute",),
        "person",
        ("The {s} is led by {o}.", "The director of the {s} is {o}."),
        phrases("lookup", "director", "the person who leads {x}"),
    ),
    Relation(
        "opened",
        ("institute", "company"),
        "year",
        ("{s} opened its doors in {o}.", "The year {o} saw the opening of {s}."),
        phrases("lookup", "opened", "the year in which {x} opened"),
    ),
)
