"""The knowledge base: facts about made-up people, places and companies, written up as documents that only search opens.

All of it is drawn from one seed. Each thing has one document; a question over several hops needs one document a hop.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from orchestra_graph.workbench.names import unique_names
from orchestra_graph.workbench.wording import Phrases, pattern_of

COUNTS = {"company": 70, "person": 150, "city": 60, "region": 25, "river": 30, "institute": 45}
"""Documents of each kind."""

DOCUMENTS_PER_SEARCH = 3

_KIND_NAMES = {
    "company": "{} Works",
    "person": "{} {}",
    "city": "{}",
    "region": "{} Province",
    "river": "River {}",
    "institute": "{} Institute",
}
_VALUES = {
    "craft": ("glassblower", "surveyor", "botanist", "clockmaker", "cartographer", "translator", "geologist", "weaver"),
    "ware": ("copper kettles", "rain barometers", "paper lanterns", "cargo sledges", "violin strings", "field tents"),
    "animal": ("grey heron", "red lynx", "mountain hare", "black stork", "river otter", "white badger"),
    "fish": ("silver bream", "marble trout", "blue perch", "golden tench", "spined loach"),
    "year": tuple(str(year) for year in range(1702, 1990)),
}


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
        Phrases(("the founder of {x}", "the one who started {x}"), ("the person who founded {x}",)),
    ),
    Relation(
        "seat",
        ("company", "institute"),
        "city",
        ("{s} has its seat in {o}.", "The headquarters of {s} stand in {o}."),
        Phrases(("the seat of {x}", "the home city of {x}"), ("the city that houses {x}",)),
    ),
    Relation(
        "product",
        ("company",),
        "ware",
        ("{s} is known for its {o}.", "The workshops of {s} turn out {o}."),
        Phrases(("the main product of {x}", "the goods made by {x}"), ("the ware that {x} is known for",)),
    ),
    Relation(
        "birthplace",
        ("person",),
        "city",
        ("{s} was born in {o}.", "The birthplace of {s} is {o}."),
        Phrases(("the birthplace of {x}", "the town of birth of {x}"), ("the city where {x} was born",)),
    ),
    Relation(
        "mentor",
        ("person",),
        "person",
        ("{s} learned the trade from {o}.", "The mentor of {s} was {o}."),
        Phrases(("the mentor of {x}", "the teacher of {x}"), ("the person who taught {x}",)),
    ),
    Relation(
        "profession",
        ("person",),
        "craft",
        ("By profession {s} is a {o}.", "{s} earns a living as a {o}."),
        Phrases(("the profession of {x}", "the trade of {x}"), ("the line of work of {x}",)),
    ),
    Relation(
        "employer",
        ("person",),
        "institute",
        ("{s} works at the {o}.", "Colleagues at the {o} value {s}."),
        Phrases(("the employer of {x}", "the workplace of {x}"), ("the institute that employs {x}",)),
    ),
    Relation(
        "region",
        ("city",),
        "region",
        ("{s} lies in {o}.", "{s} is a city of {o}."),
        Phrases(("the province of {x}", "the region around {x}"), ("the province in which {x} lies",)),
    ),
    Relation(
        "river",
        ("city",),
        "river",
        ("{s} stands on the banks of the {o}.", "Through {s} flows the {o}."),
        Phrases(("the river of {x}", "the river at {x}"), ("the river that flows through {x}",)),
    ),
    Relation(
        "mayor",
        ("city",),
        "person",
        ("The mayor of {s} is {o}.", "{s} elected {o} as its mayor."),
        Phrases(("the mayor of {x}", "the head of the town hall of {x}"), ("the person who is mayor in {x}",)),
    ),
    Relation(
        "capital",
        ("region",),
        "city",
        ("The capital of {s} is {o}.", "{s} is governed from {o}."),
        Phrases(("the capital of {x}", "the seat of government of {x}"), ("the city from which {x} is governed",)),
    ),
    Relation(
        "emblem",
        ("region",),
        "animal",
        ("The arms of {s} show a {o}.", "{s} bears a {o} on its flag."),
        Phrases(("the emblem of {x}", "the heraldic animal of {x}"), ("the animal on the flag of {x}",)),
    ),
    Relation(
        "mouth",
        ("river",),
        "city",
        ("The {s} meets the sea near {o}.", "The {s} ends in the harbour of {o}."),
        Phrases(("the port at the mouth of {x}", "the harbour town of {x}"), ("the city where {x} ends",)),
    ),
    Relation(
        "fish",
        ("river",),
        "fish",
        ("Anglers come to the {s} for its {o}.", "The {s} is rich in {o}."),
        Phrases(("the best known fish of {x}", "the fish most common in {x}"), ("the fish that fills {x}",)),
    ),
    Relation(
        "director",
        ("institute",),
        "person",
        ("The {s} is led by {o}.", "The director of the {s} is {o}."),
        Phrases(("the director of {x}", "the head of {x}"), ("the person who leads {x}",)),
    ),
    Relation(
        "opened",
        ("institute", "company"),
        "year",
        ("{s} opened its doors in {o}.", "The year {o} saw the opening of {s}."),
        Phrases(("the opening year of {x}", "the year of foundation of {x}"), ("the year in which {x} opened",)),
    ),
)

_INTRODUCTIONS = {
    "company": "{s} is a company of some fame.",
    "person": "{s} is a public figure.",
    "city": "{s} is a town with an old market.",
    "region": "{s} is a province of hills and lakes.",
    "river": "The {s} rises in the northern hills.",
    "institute": "The {s} is a place of learning.",
}
_HEADING = re.compile(r"^## (.+)\n(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """One document."""

    title: str
    text: str


class KnowledgeBase:
    """Facts, the documents that tell them, and a BM25 index over the documents.

    Args:
        seed: Gives names and facts.
    """

    def __init__(self, seed: int) -> None:
        rng = Random(f"knowledge/{seed}")
        self.things = _things(rng)
        self.facts = _facts(self.things, rng)
        self.documents = tuple(self._write(kind, name, rng) for kind, names in self.things.items() for name in names)
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._lock = threading.Lock()
        weakref.finalize(self, self._connection.close)
        with self._connection:
            self._connection.execute("CREATE VIRTUAL TABLE documents USING fts5(title, text)")
            rows = [(document.title, document.text) for document in self.documents]
            self._connection.executemany("INSERT INTO documents VALUES (?, ?)", rows)

    def search(self, query: str, *, limit: int = DOCUMENTS_PER_SEARCH) -> list[Document]:
        """Best documents for a query by BM25, a word in the title counting four times.

        Args:
            query: Plain words; any of them may match.
            limit: Documents at most.
        """
        words = [f'"{word}"' for word in re.findall(r"\w+", query)]
        if not words:
            return []
        sql = "SELECT title, text FROM documents WHERE documents MATCH ? ORDER BY bm25(documents, 4, 1), title LIMIT ?"
        with self._lock:
            rows = self._connection.execute(sql, (" OR ".join(words), limit)).fetchall()
        return [Document(*row) for row in rows]

    def follow(self, start: str, relations: tuple[str, ...]) -> str:
        """Where a chain of relations leads."""
        thing = start
        for relation in relations:
            thing = self.facts[thing, relation]
        return thing

    def _write(self, kind: str, name: str, rng: Random) -> Document:
        told = [relation for relation in RELATIONS if kind in relation.subjects]
        rng.shuffle(told)
        sentences = [rng.choice(r.sentences).format(s=name, o=self.facts[name, r.name]) for r in told]
        return Document(name, " ".join([_INTRODUCTIONS[kind].format(s=name), *sentences]))


def render(documents: list[Document]) -> str:
    """Documents as a search returns them."""
    return "\n\n".join(f"## {document.title}\n{document.text}" for document in documents) or "No document found."


def read_documents(text: str) -> Iterator[Document]:
    """The documents in a text of `render`."""
    return (Document(*match.groups()) for match in _HEADING.finditer(text))


def find_fact(document: Document, relation: str) -> str | None:
    """Read one fact about a document's own subject out of its text; None if it does not tell it."""
    sentences = re.split(r"(?<=\.) ", document.text)
    for template in _sentences(relation):
        pattern = pattern_of(template.replace("{s}", document.title))
        for sentence in sentences:
            match = pattern.fullmatch(sentence)
            if match:
                return match["o"]
    return None


@cache
def _sentences(name: str) -> tuple[str, ...]:
    return next(relation.sentences for relation in RELATIONS if relation.name == name)


def _things(rng: Random) -> dict[str, list[str]]:
    names = unique_names(rng)
    return {
        kind: [shape.format(next(names), next(names)) for _ in range(COUNTS[kind])]
        for kind, shape in _KIND_NAMES.items()
    }


def _facts(things: dict[str, list[str]], rng: Random) -> dict[tuple[str, str], str]:
    facts: dict[tuple[str, str], str] = {}
    for relation in RELATIONS:
        objects = things.get(relation.object) or _VALUES[relation.object]
        for kind in relation.subjects:
            for name in things[kind]:
                facts[name, relation.name] = rng.choice([o for o in objects if o != name])
    return facts
