"""Descriptions: many for training, true to the skills, and strangers to the held-out ones."""

from __future__ import annotations

import re
from random import Random

import pytest

from orchestra_graph.workbench.descriptions import DESCRIPTIONS
from orchestra_graph.workbench.skills import SKILLS
from orchestra_graph.workbench.vocabulary import PARTS

DRAWS = 400


def drawn(expert: str) -> list[str]:
    return [DESCRIPTIONS[expert].draw(Random(seed), "train") for seed in range(DRAWS)]


def test_every_expert_has_blurbs_and_parts() -> None:
    assert DESCRIPTIONS.keys() == SKILLS.keys() == PARTS.keys()
    texts = [text for phrases in DESCRIPTIONS.values() for text in (*phrases.train, *phrases.held_out)]
    assert len(set(texts)) == len(texts)
    assert min(len(description.train) for description in DESCRIPTIONS.values()) >= 100


@pytest.mark.parametrize("expert", SKILLS)
def test_train_descriptions_hardly_ever_repeat_unless_they_are_blurbs(expert: str) -> None:
    texts = drawn(expert)
    new = [text for text in texts if text not in DESCRIPTIONS[expert].train]
    assert len(texts) - len(new) > 0.5 * len(texts)
    assert len(set(new)) > 0.97 * len(new) > 0.3 * len(texts)


@pytest.mark.parametrize("expert", SKILLS)
def test_a_description_reads_as_text(expert: str) -> None:
    for text in drawn(expert):
        assert re.fullmatch(r"[A-Z0-9].*[.!a-z0-9)]", text)
        assert not re.search(r"[{}]|\s\s|\s[.,;:]|[.,;:]{2}", text), text


@pytest.mark.parametrize("expert", SKILLS)
def test_an_assembled_description_says_what_it_describes(expert: str) -> None:
    parts = PARTS[expert]
    for seed in range(DRAWS):
        text = DESCRIPTIONS[expert].assemble(Random(seed)).lower()
        assert any(role.lower() in text for role in DESCRIPTIONS[expert].roles)
        told = [any(skill.lower() in text for skill in wordings) for wordings in parts.skills]
        assert sum(told) >= 2, text
