"""Phrases: what is said can be read back, and the splits stay apart."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.workbench.descriptions import DESCRIPTIONS
from orchestra_graph.workbench.knowledge import RELATIONS
from orchestra_graph.workbench.skills import SKILLS
from orchestra_graph.workbench.tasks import algorithms, calculus, number_theory, records
from orchestra_graph.workbench.wishes import preference_phrases
from orchestra_graph.workbench.wording import SPLITS, Phrases, Split

PHRASES = Phrases(train=("the {r} of {x}", "{x}: its {r}"), held_out=("{r}, as {x} has it ({x})",))

EVERYWHERE = [
    *(phrases for phrases in DESCRIPTIONS.values()),
    *(relation.asks for relation in RELATIONS),
    *(kind.asks for kind in records.KINDS.values()),
    *(algorithm.asks for algorithm in (*algorithms.STEPS, *algorithms.FINALS)),
    *calculus._ASKS.values(),
    *number_theory._ASKS.values(),
    *preference_phrases(),
]


@given(st.integers(), st.sampled_from(SPLITS), st.text("abc de", min_size=1), st.text("fgh", min_size=1))
def test_what_is_said_can_be_read_back(seed: int, split: Split, x: str, r: str) -> None:
    text = PHRASES.draw(Random(seed), split, x=x, r=r)
    assert {"x": x, "r": r} in list(PHRASES.matches(text))


def test_another_text_is_not_read() -> None:
    assert list(PHRASES.matches("its of x")) == []
    assert list(PHRASES.matches("seat, as A has it (B)")) == []


@pytest.mark.parametrize("phrases", EVERYWHERE)
def test_no_wording_is_in_both_splits(phrases: Phrases) -> None:
    assert phrases.train
    assert phrases.held_out
    assert set(phrases.train).isdisjoint(phrases.held_out)


def test_each_expert_has_at_least_four_descriptions_of_its_own() -> None:
    assert DESCRIPTIONS.keys() == SKILLS.keys()
    texts = [text for phrases in DESCRIPTIONS.values() for split in SPLITS for text in phrases.of(split)]
    assert len(set(texts)) == len(texts) >= 4 * len(SKILLS)
    assert min(len(p.train) + len(p.held_out) for p in DESCRIPTIONS.values()) >= 4


def test_preference_texts_are_many_and_told_apart() -> None:
    texts = [text for phrases in preference_phrases() for split in SPLITS for text in phrases.of(split)]
    assert len(set(texts)) == len(texts)
    assert min(len(phrases.train) for phrases in preference_phrases()) >= 4
