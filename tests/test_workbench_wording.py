"""Phrases: what is said can be read back, and the splits stay apart."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.workbench.descriptions import DESCRIPTIONS
from orchestra_graph.workbench.relations import RELATIONS
from orchestra_graph.workbench.tasks import FAMILIES, algebra, calculus, number_theory, records, steps
from orchestra_graph.workbench.wishes import preference_phrases
from orchestra_graph.workbench.wording import SPLITS, Phrases, Split

PHRASES = Phrases(train=("the {r} of {x}", "{x}: its {r}"), held_out=("{r}, as {x} has it ({x})",))

EVERYWHERE = [
    *(phrases for phrases in DESCRIPTIONS.values()),
    *(relation.asks for relation in RELATIONS),
    *(kind.asks for kind in records.KINDS.values()),
    *(algorithm.asks for algorithm in (*steps.STEPS, *steps.FINALS)),
    *calculus._ASKS.values(),
    *number_theory._ASKS.values(),
    *(family.frames for family in FAMILIES.values()),
    algebra.Algebra.joins,
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


def test_no_train_wording_shares_five_words_in_a_row_with_a_held_out_one() -> None:
    """Nor does a description that is put together from parts; a slot counts as a word."""
    held_out = {run for phrases in EVERYWHERE for text in phrases.held_out for run in runs_of_five(text)}
    texts = [text for phrases in EVERYWHERE for text in phrases.train]
    texts += [d.assemble(Random(seed)) for d in DESCRIPTIONS.values() for seed in range(300)]
    assert [text for text in texts if not held_out.isdisjoint(runs_of_five(text))] == []


def runs_of_five(text: str) -> set[tuple[str, ...]]:
    """Five words in a row; of a shorter text, the whole."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def test_preference_texts_are_many_and_told_apart() -> None:
    texts = [text for phrases in preference_phrases() for split in SPLITS for text in phrases.of(split)]
    assert len(set(texts)) == len(texts)
    assert min(len(phrases.train) for phrases in preference_phrases()) >= 16
