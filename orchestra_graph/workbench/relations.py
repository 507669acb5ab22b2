"""The kinds of fact in the knowledge base: what they lead from and to, how documents and questions put them."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_graph.workbench.wording import Phrases


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
        Phrases(
            (
                "the founder of {x}",
                "the one who started {x}",
                "the originator of {x}",
                "the creator of {x}",
                "the one behind the founding of {x}",
            ),
            ("the person who founded {x}",),
        ),
    ),
    Relation(
        "seat",
        ("company", "institute"),
        "city",
        ("{s} has its seat in {o}.", "The headquarters of {s} stand in {o}."),
        Phrases(
            (
                "the seat of {x}",
                "the home city of {x}",
                "the city where {x} is based",
                "the headquarters city of {x}",
                "the town that houses {x}",
            ),
            ("the city that houses {x}",),
        ),
    ),
    Relation(
        "product",
        ("company",),
        "ware",
        ("{s} is known for its {o}.", "The workshops of {s} turn out {o}."),
        Phrases(
            (
                "the main product of {x}",
                "the goods made by {x}",
                "the speciality of {x}",
                "the wares of {x}",
                "the best-known article of {x}",
            ),
            ("the ware that {x} is known for",),
        ),
    ),
    Relation(
        "birthplace",
        ("person",),
        "city",
        ("{s} was born in {o}.", "The birthplace of {s} is {o}."),
        Phrases(
            (
                "the birthplace of {x}",
                "the town of birth of {x}",
                "the town where {x} came into the world",
                "the native town of {x}",
                "the place of birth of {x}",
            ),
            ("the city where {x} was born",),
        ),
    ),
    Relation(
        "mentor",
        ("person",),
        "person",
        ("{s} learned the trade from {o}.", "The mentor of {s} was {o}."),
        Phrases(
            (
                "the mentor of {x}",
                "the teacher of {x}",
                "the tutor of {x}",
                "the one who trained {x}",
                "the trade master of {x}",
            ),
            ("the person who taught {x}",),
        ),
    ),
    Relation(
        "profession",
        ("person",),
        "craft",
        ("By profession {s} is a {o}.", "{s} earns a living as a {o}."),
        Phrases(
            (
                "the profession of {x}",
                "the trade of {x}",
                "the occupation of {x}",
                "the job of {x}",
                "the craft of {x}",
            ),
            ("the line of work of {x}",),
        ),
    ),
    Relation(
        "employer",
        ("person",),
        "institute",
        ("{s} works at the {o}.", "Colleagues at the {o} value {s}."),
        Phrases(
            (
                "the employer of {x}",
                "the workplace of {x}",
                "the institute where {x} works",
                "the institution that employs {x}",
                "the institute that pays {x}",
            ),
            ("the institute that employs {x}",),
        ),
    ),
    Relation(
        "region",
        ("city",),
        "region",
        ("{s} lies in {o}.", "{s} is a city of {o}."),
        Phrases(
            (
                "the province of {x}",
                "the region around {x}",
                "the province that {x} belongs to",
                "the region where {x} lies",
                "the wider region of {x}",
            ),
            ("the province in which {x} lies",),
        ),
    ),
    Relation(
        "river",
        ("city",),
        "river",
        ("{s} stands on the banks of the {o}.", "Through {s} flows the {o}."),
        Phrases(
            (
                "the river of {x}",
                "the river at {x}",
                "the river crossing {x}",
                "the river on which {x} stands",
                "the stream that passes {x}",
            ),
            ("the river that flows through {x}",),
        ),
    ),
    Relation(
        "mayor",
        ("city",),
        "person",
        ("The mayor of {s} is {o}.", "{s} elected {o} as its mayor."),
        Phrases(
            (
                "the mayor of {x}",
                "the head of the town hall of {x}",
                "the mayor elected by {x}",
                "the city leader of {x}",
                "the mayor in office at {x}",
            ),
            ("the person who is mayor in {x}",),
        ),
    ),
    Relation(
        "capital",
        ("region",),
        "city",
        ("The capital of {s} is {o}.", "{s} is governed from {o}."),
        Phrases(
            (
                "the capital of {x}",
                "the seat of government of {x}",
                "the capital city of {x}",
                "the chief town of {x}",
                "the city that governs {x}",
            ),
            ("the city from which {x} is governed",),
        ),
    ),
    Relation(
        "emblem",
        ("region",),
        "animal",
        ("The arms of {s} show a {o}.", "{s} bears a {o} on its flag."),
        Phrases(
            (
                "the emblem of {x}",
                "the heraldic animal of {x}",
                "the flag animal of {x}",
                "the coat-of-arms animal of {x}",
                "the animal in the arms of {x}",
            ),
            ("the animal on the flag of {x}",),
        ),
    ),
    Relation(
        "mouth",
        ("river",),
        "city",
        ("The {s} meets the sea near {o}.", "The {s} ends in the harbour of {o}."),
        Phrases(
            (
                "the port at the mouth of {x}",
                "the harbour town of {x}",
                "the town where {x} reaches the sea",
                "the port at the end of {x}",
                "the harbour where {x} ends",
            ),
            ("the city where {x} ends",),
        ),
    ),
    Relation(
        "fish",
        ("river",),
        "fish",
        ("Anglers come to the {s} for its {o}.", "The {s} is rich in {o}."),
        Phrases(
            (
                "the best known fish of {x}",
                "the fish most common in {x}",
                "the fish that {x} is famous for",
                "the typical fish of {x}",
                "the fish that anglers catch in {x}",
            ),
            ("the fish that fills {x}",),
        ),
    ),
    Relation(
        "director",
        ("institute",),
        "person",
        ("The {s} is led by {o}.", "The director of the {s} is {o}."),
        Phrases(
            (
                "the director of {x}",
                "the head of {x}",
                "the leader of {x}",
                "the person who runs {x}",
                "the chief of {x}",
            ),
            ("the person who leads {x}",),
        ),
    ),
    Relation(
        "opened",
        ("institute", "company"),
        "year",
        ("{s} opened its doors in {o}.", "The year {o} saw the opening of {s}."),
        Phrases(
            (
                "the opening year of {x}",
                "the year of foundation of {x}",
                "the inauguration year of {x}",
                "the founding year of {x}",
                "the year when {x} began",
            ),
            ("the year in which {x} opened",),
        ),
    ),
)
