"""Preferences of users, as a sentence and as weights."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench.wording import Phrases, Split

NO_WISH = 0.2
"""Share of users who say nothing: the default weights."""

WISHES: tuple[tuple[Phrases, dict[str, float]], ...] = (
    (
        Phrases(
            (
                "Keep it as cheap as you can.",
                "Money is tight: spend as little as possible, even if it takes longer.",
                "This is a low-budget job, so please save on cost.",
                "I would rather wait than pay more.",
            ),
            ("Every cent counts here.", "Please pick the least expensive way."),
        ),
        {"accuracy": 0.8, "cost": 1.0, "latency": 0.0},
    ),
    (
        Phrases(
            (
                "I am in a hurry, so answer as fast as you can.",
                "Speed matters most; cost is no issue.",
                "Please be quick about it.",
                "I need this within seconds, whatever it costs.",
            ),
            ("Time is short, do not keep me waiting.", "The sooner the better, at any price."),
        ),
        {"accuracy": 0.8, "cost": 0.1, "latency": 1.0},
    ),
    (
        Phrases(
            (
                "It has to be right, whatever it costs.",
                "Accuracy comes first; take your time.",
                "A wrong answer would be very bad, so be careful.",
                "Only correctness matters to me.",
            ),
            ("Get this right, no matter the effort.", "I cannot afford a mistake here."),
        ),
        {"accuracy": 1.0, "cost": 0.0, "latency": 0.0},
    ),
    (
        Phrases(
            (
                "Cheap and quick would be best.",
                "Do not spend much, and do not take long.",
                "Keep both the bill and the wait small.",
                "I mind the money as much as the time.",
            ),
            ("Frugal and fast, please.", "Neither cost nor time should get out of hand."),
        ),
        {"accuracy": 0.8, "cost": 0.6, "latency": 0.6},
    ),
)

AVOID = Phrases(
    (
        "Please do not use {tool}.",
        "Stay away from {tool} if you can.",
        "We do not trust {tool} with our data.",
        "Avoid {tool}.",
    ),
    ("Leave {tool} out of this.", "I would not like {tool} to see this question."),
)
PREFER = Phrases(
    (
        "Use {tool} where you can.",
        "I like to work with {tool}.",
        "We pay for {tool} anyway, so make use of it.",
        "Prefer {tool}.",
    ),
    ("If possible let {tool} handle it.", "{tool} is my favourite, ask it first."),
)


def draw_preferences(rng: Random, split: Split, tools: Sequence[str]) -> Preferences:
    """Draw a pair of sentence and weights.

    Args:
        rng: The only source of chance.
        split: Which sentences.
        tools: Names that a wish may be about.
    """
    if rng.random() < NO_WISH:
        return Preferences()
    phrases, weights = rng.choice(WISHES)
    sentences = [phrases.draw(rng, split)]
    prefer: dict[str, float] = {}
    avoid: dict[str, float] = {}
    kind = rng.choice(("none", "avoid", "prefer"))
    if kind != "none":
        tool = rng.choice(tools)
        (avoid if kind == "avoid" else prefer)[tool] = 1.0
        sentences.append((AVOID if kind == "avoid" else PREFER).draw(rng, split, tool=tool))
    if kind != "none" and rng.random() < 0.5:
        sentences, weights = sentences[1:], {}
    return Preferences.model_validate({**weights, "prefer": prefer, "avoid": avoid, "text": " ".join(sentences)})


def preference_phrases() -> list[Phrases]:
    """All sentences, by meaning."""
    return [*(phrases for phrases, _ in WISHES), AVOID, PREFER]
