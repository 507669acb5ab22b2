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
from orchestra_graph.workbench.relations import RELATIONS
from orchestra_graph.workbench.wording import pattern_of

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
