"""Preferences of users, as a sentence and as weights."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, Literal

from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench.wording import Phrases, Split

NO_WISH = 0.2
"""Share of users who say nothing: the default weights."""

WishKind = Literal["cheap", "fast", "accurate", "balanced", "prefer", "avoid"]
"""What a user may want. The last two are about a tool."""

WEIGHTED: Final[tuple[WishKind, ...]] = ("cheap", "fast", "accurate", "balanced")
"""Wishes that are about no tool, in the order of their sentences."""

WISHES: tuple[tuple[Phrases, dict[str, float]], ...] = (
    (
        Phrases(
            (
                "Keep it as cheap as you can.",
                "Money is tight: spend as little as possible, even if it takes longer.",
                "This is a low-budget job, so please save on cost.",
                "I would rather wait than pay more.",
                "Spend as little as you can.",
                "My budget is nearly used up, so go for the cheapest way.",
                "Cost is what counts for me; time does not.",
                "Please mind the bill.",
                "Choose inexpensive tools, even slow ones.",
                "No need to rush, but do keep the price down.",
                "I am paying out of my own pocket, so stay frugal.",
                "Watch every penny.",
                "The lowest price wins.",
                "Economy mode, please.",
                "Save money wherever you can; I have plenty of time.",
                "Use the low-priced options unless they are useless.",
                "Be thrifty.",
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
                "Quick, please; I do not mind the price.",
                "Time is short: take the fastest route.",
                "I am waiting at the screen, so do not keep me long.",
                "Respond right away, money is no object.",
                "Low latency above all.",
                "As soon as possible.",
                "This is urgent.",
                "Fast tools only, please, even expensive ones.",
                "There is a deadline in a minute.",
                "Hurry up; the budget is generous.",
                "Speed first.",
                "I have no time to lose.",
                "Pick whatever responds soonest.",
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
                "Get it right; neither money nor time matters.",
                "I need a correct answer above all.",
                "Mistakes are not acceptable here.",
                "Use the best expert you have, at any price.",
                "Quality over cost and speed.",
                "Take as long as you need, but be sure.",
                "This goes into a contract, so no errors, please.",
                "Double-check everything; expense is secondary.",
                "Precision is all I ask for.",
                "Do not save on anything as long as the result is correct.",
                "Reliability is the one thing that counts.",
                "I can wait and I can pay, but I cannot be wrong.",
                "Only the right result is of any use to me.",
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
                "Make it fast and inexpensive.",
                "Low cost and low latency, please.",
                "Save both my time and my budget.",
                "Short on time and short on money.",
                "Be economical and swift.",
                "A fast answer at a small price, please.",
                "Neither slow nor expensive tools, please.",
                "Balance price and speed for me.",
                "I care about the cost and about the delay.",
                "Swift and thrifty, that is how I like it.",
                "Go easy on the budget and hurry.",
                "Spend little, and be done soon.",
                "Quick and frugal, if you can.",
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
        "Do not involve {tool}.",
        "No {tool}, please.",
        "Do not call {tool}.",
        "I had bad experiences with {tool}, so skip it.",
        "Anything but {tool}.",
        "Use something else than {tool}.",
        "Keep {tool} away from this job.",
        "{tool} is off limits where possible.",
        "Our policy speaks against {tool}.",
        "I would like to do without {tool}.",
        "Try to get by without {tool}.",
        "Skip {tool}.",
        "Refrain from calling {tool}.",
    ),
    ("Leave {tool} out of this.", "I would not like {tool} to see this question."),
)
PREFER = Phrases(
    (
        "Use {tool} where you can.",
        "I like to work with {tool}.",
        "We pay for {tool} anyway, so make use of it.",
        "Prefer {tool}.",
        "Please work with {tool} if possible.",
        "I am fond of {tool}.",
        "If {tool} can do it, let it.",
        "I trust {tool} most.",
        "Ask {tool} first.",
        "Give {tool} preference.",
        "Go with {tool} where it fits.",
        "We have good experience with {tool}.",
        "Let {tool} do the work.",
        "Our team likes {tool} best.",
        "I would be glad if {tool} did this.",
        "{tool} should be your first choice.",
        "Make {tool} your default.",
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


def wish_for(rng: Random, split: Split, kind: WishKind, tool: str = "") -> Preferences:
    """One wish, as a sentence and as weights.

    Args:
        rng: Chooses the sentence.
        split: Which sentences.
        kind: What is wished for.
        tool: Name of the tool that it is about.
    """
    if kind in WEIGHTED:
        phrases, weights = WISHES[WEIGHTED.index(kind)]
        return Preferences.model_validate({**weights, "text": phrases.draw(rng, split)})
    phrases = AVOID if kind == "avoid" else PREFER
    return Preferences.model_validate({kind: {tool: 1.0}, "text": phrases.draw(rng, split, tool=tool)})


def preference_phrases() -> list[Phrases]:
    """All sentences, by meaning."""
    return [*(phrases for phrases, _ in WISHES), AVOID, PREFER]
