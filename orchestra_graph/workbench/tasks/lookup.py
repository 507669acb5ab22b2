"""Look-ups of one to three hops in the knowledge base, which only search opens.

Size: `hops`, the documents that have to be joined. An expert whose limit is lower stops half-way and answers with the
thing that it reached; without the documents no expert answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from orchestra_graph.workbench.knowledge import Document, KnowledgeBase, find_fact, read_documents
from orchestra_graph.workbench.relations import RELATIONS
from orchestra_graph.workbench.tasks.base import Desk, Family, Sizes, Working
from orchestra_graph.workbench.wording import Phrases, Split, phrases
from orchestra_graph.workbench.world import World

HOPS = {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}
"""Hops by difficulty."""

_NAME = re.compile(r"[A-Z]\w*( [A-Z]\w*)*")
_BY_NAME = {relation.name: relation for relation in RELATIONS}


@dataclass(frozen=True)
class Chain:
    """Where to start, and the relations to follow."""

    start: str
    relations: tuple[str, ...]


class Lookup(Family[Chain]):
    """The answer is a name, a year or a word."""

    name: ClassVar[str] = "lookup"
    frames: ClassVar[Phrases] = phrases(
        "lookup",
        "frames",
        "Do you know {ask}?",
        "Which name or word stands for {ask}?",
        "Our records team asks for {ask}.",
    )

    def draw(self, rng: Random, difficulty: int, world: World) -> Chain:
        """A path through the facts that passes no thing twice."""
        while True:
            kind = rng.choice(list(world.knowledge.things))
            start = rng.choice(world.knowledge.things[kind])
            chain = Chain(start, _walk(rng, kind, HOPS[difficulty]))
            passed = _path(world.knowledge, chain)
            if len(set(passed)) == len(passed):
                return chain

    def phrase(self, problem: Chain, rng: Random, split: Split) -> str:
        """For example `the mayor of the birthplace of Ada Brun`."""
        text = problem.start
        for relation in problem.relations:
            text = _BY_NAME[relation].asks.draw(rng, split, x=text)
        return text

    def parse(self, ask: str) -> Chain | None:
        """One or more relations around a name."""
        chain = _read_chain(ask)
        return chain if chain is not None and chain.relations else None

    def sizes(self, problem: Chain) -> Sizes:
        """Number of relations."""
        return {"hops": len(problem.relations)}

    def title(self, problem: Chain) -> str:
        """For example `look-up, 2 hops`."""
        hops = len(problem.relations)
        return f"look-up, {hops} hop{'s' * (hops > 1)}"

    def solve(self, problem: Chain, limits: Sizes, desk: Desk) -> Working:
        """Follow the chain through the documents of the evidence, as far as the expert can."""
        within_reach = Chain(problem.start, problem.relations[: limits["hops"]])
        passed = follow(within_reach, desk.evidence)
        steps = [f"{r} of {a}: {b}" for r, a, b in zip(problem.relations, passed, passed[1:], strict=False)]
        if len(passed) <= len(within_reach.relations):
            missing = problem.relations[len(passed) - 1]
            return Working("\n".join([*steps, f"No document before me tells the {missing} of {passed[-1]}."]))
        return Working("\n".join(steps), passed[-1])

    def reference(self, problem: Chain, world: World) -> str:
        """Where the facts lead."""
        return _path(world.knowledge, problem)[-1]

    async def check(self, problem: Chain, answer: str, world: World) -> bool:
        """The same name, ignoring case, spaces around it and a final full stop."""
        return answer.strip().rstrip(".").casefold() == self.reference(problem, world).casefold()


def _read_chain(text: str) -> Chain | None:
    if _NAME.fullmatch(text):
        return Chain(text, ())
    for relation in RELATIONS:
        for slots in relation.asks.matches(text):
            inner = _read_chain(slots["x"])
            if inner is not None:
                return Chain(inner.start, (*inner.relations, relation.name))
    return None


def follow(chain: Chain, evidence: Iterable[str]) -> list[str]:
    """Things reached with the documents in the evidence, the start first; fewer than the chain's if one is missing."""
    documents = {document.title: document for text in evidence for document in read_documents(text)}
    passed = [chain.start]
    for relation in chain.relations:
        found = find_fact(documents.get(passed[-1], Document(passed[-1], "")), relation)
        if found is None:
            break
        passed.append(found)
    return passed


def _walk(rng: Random, kind: str, hops: int) -> tuple[str, ...]:
    """Relations that can follow each other, all but the last leading to a thing."""
    things = {subject for relation in RELATIONS for subject in relation.subjects}
    relations: list[str] = []
    for left in range(hops, 0, -1):
        relation = rng.choice([r for r in RELATIONS if kind in r.subjects and (left == 1 or r.object in things)])
        relations.append(relation.name)
        kind = relation.object
    return tuple(relations)


def _path(knowledge: KnowledgeBase, chain: Chain) -> list[str]:
    """Every thing on the way, the start and the answer included."""
    passed = [chain.start]
    for relation in chain.relations:
        passed.append(knowledge.facts[passed[-1], relation])
    return passed
