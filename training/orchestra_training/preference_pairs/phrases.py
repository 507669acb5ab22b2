"""What people say when they state preferences, by meaning, strength and tone; each in two splits that share nothing.

The sentences of the workbench are among them, in the split that they have there: a wording that is held out from a
policy's training is held out everywhere. `{tool}` is a name, several names or the words for a group of tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from orchestra_graph.workbench.wishes import AVOID, PREFER, WISHES
from orchestra_graph.workbench.wording import Phrases

Tone = Literal["plain", "polite", "casual", "terse"]
TONES: Final[tuple[Tone, ...]] = ("plain", "polite", "casual", "terse")

Tones = Mapping[Tone, Phrases]


@dataclass(frozen=True)
class Wish:
    """One meaning: what matters beside the tools."""

    weights: Mapping[str, float]
    """Accuracy, cost and latency."""
    said: Tones


_CHEAP, _FAST, _RIGHT, _CHEAP_AND_FAST = (Wish(weights, {"plain": phrases}) for phrases, weights in WISHES)


def _in_all_tones(plain: Wish, polite: Phrases, casual: Phrases, terse: Phrases) -> Wish:
    return Wish(plain.weights, {**plain.said, "polite": polite, "casual": casual, "terse": terse})


def _wish(accuracy: float, cost: float, latency: float, *said: Phrases) -> Wish:
    """A meaning with its sentences in the order of `TONES`."""
    return Wish({"accuracy": accuracy, "cost": cost, "latency": latency}, dict(zip(TONES, said, strict=True)))


GENERAL: Final[Mapping[str, Wish]] = {
    "cheap": _in_all_tones(
        _CHEAP,
        Phrases(
            (
                "Would you mind keeping the costs to a minimum?",
                "I would be grateful for the most economical route, however long it takes.",
                "Kindly choose whatever burdens our budget least.",
            ),
            ("If I may ask, let this be done at the lowest possible expense.",),
        ),
        Phrases(
            (
                "I'm broke this month, so go easy on the wallet.",
                "Honestly, do it on a shoestring.",
                "Don't blow any money on this one, I can hang around.",
            ),
            ("Skint here, so pinch those pennies!",),
        ),
        Phrases(("Minimum cost.", "Cheapest option, time irrelevant.", "Save money."), ("Lowest spend only.",)),
    ),
    "rather cheap": _wish(
        1.0,
        0.6,
        0.1,
        Phrases(
            (
                "All else being equal, I prefer the less costly way.",
                "A little thrift would be welcome.",
                "Keep half an eye on the price.",
            ),
            ("Economise a bit where it does no harm.",),
        ),
        Phrases(
            (
                "It would be nice if this did not become too expensive.",
                "Please be somewhat mindful of what things cost.",
            ),
            ("May I suggest a modest outlay where the choice is open?",),
        ),
        Phrases(
            ("No need to splash out, but don't be stingy either.", "Try not to go crazy with the spending, okay?"),
            ("Don't get too fancy with my cash.",),
        ),
        Phrases(("Moderate cost, please.", "Somewhat price-sensitive."), ("Mild thrift.",)),
    ),
    "fast": _in_all_tones(
        _FAST,
        Phrases(
            (
                "Could I have this at your very earliest convenience? The price does not matter.",
                "I would appreciate an immediate answer.",
                "May I ask for the utmost haste?",
            ),
            ("Kindly do not let a single second go to waste.",),
        ),
        Phrases(
            (
                "Chop chop, I've got a train to catch!",
                "Need it like yesterday, whatever the price tag.",
                "Come on, snappy please, they're staring at me.",
            ),
            ("Step on it, will you?",),
        ),
        Phrases(("Urgent.", "Fastest option, cost irrelevant.", "Answer now."), ("Top speed.",)),
    ),
    "rather fast": _wish(
        1.0,
        0.4,
        0.4,
        Phrases(
            (
                "I would rather not wait long, though it is no emergency.",
                "A prompt answer would be good.",
                "It should not drag on.",
            ),
            ("Some haste is welcome, within reason.",),
        ),
        Phrases(
            ("If it can be arranged without trouble, a swift reply would be kind.", "Please do not take overly long."),
            ("A timely response would be much obliged.",),
        ),
        Phrases(
            ("No mad rush, but don't fall asleep on it.", "Pretty soon would be cool."),
            ("Don't dawdle too much, alright?",),
        ),
        Phrases(("Reasonably quick.", "Moderate wait acceptable."), ("Brisk pace.",)),
    ),
    "right": _in_all_tones(
        _RIGHT,
        Phrases(
            (
                "I would ask you to spare no effort in getting this correct.",
                "Please allow yourself all the time and means that certainty requires.",
            ),
            ("Your most reliable answer is what I would kindly request.",),
        ),
        Phrases(
            (
                "Don't mess this up, I don't care what it costs.",
                "Throw everything you've got at it, it just has to be correct.",
            ),
            ("This one really can't be wrong, so go all out.",),
        ),
        Phrases(("Correctness above all.", "Accuracy only.", "No errors."), ("Must be exact.",)),
    ),
    "cheap and fast": _in_all_tones(
        _CHEAP_AND_FAST,
        Phrases(
            (
                "Might this be settled both inexpensively and without delay?",
                "I should be glad of an answer that is neither slow nor costly.",
            ),
            ("A speedy and economical solution would be appreciated.",),
        ),
        Phrases(
            ("Quick and dirty is fine, just don't make it pricey.", "Make it snappy and don't burn my cash."),
            ("Zip through it on the cheap.",),
        ),
        Phrases(("Low cost, low latency.", "Cheap. Fast."), ("Minimise both bill and delay.",)),
    ),
    "right, and cheap": _wish(
        1.0,
        0.8,
        0.0,
        Phrases(
            (
                "It has to be correct at a small price, and I have all day.",
                "Find the answer that is sure and costs least; time plays no role.",
            ),
            ("Certain first, thrifty second, and never mind the clock.",),
        ),
        Phrases(
            (
                "I kindly ask for a dependable result on a modest budget; there is no rush at all.",
                "Please be thorough, patient and frugal.",
            ),
            ("Reliability and economy are what I hope for, at any pace you like.",),
        ),
        Phrases(
            ("Nail it without spending much, I've got ages.", "Get it right for peanuts, take as long as you want."),
            ("Do a proper job on pocket money, no rush.",),
        ),
        Phrases(("Correct and cheap, time irrelevant.", "Accuracy, then cost."), ("Exact, low spend, any duration.",)),
    ),
    "right, and fast": _wish(
        1.0,
        0.0,
        0.8,
        Phrases(
            (
                "I need a reliable answer in no time, and money is no object.",
                "Both precision and pace count; the bill does not.",
            ),
            ("Sure and swift, please; the company pays.",),
        ),
        Phrases(
            (
                "Would you be so good as to answer both correctly and promptly? Expenses are covered.",
                "I depend on a sound reply within minutes, so please use whatever means you need.",
            ),
            ("Kindly be exact and expeditious; funds are ample.",),
        ),
        Phrases(
            ("Spot on and super quick, I'm paying whatever.", "Right answer, right now, hang the expense."),
            ("Boss is waiting and wants it perfect, so throw money at it.",),
        ),
        Phrases(("Accurate and fast, cost irrelevant.", "Precision, speed."), ("Exact, instant, any price.",)),
    ),
}

Stance = Literal["prefer", "avoid"]
Strength = Literal["strong", "mild"]
STRENGTHS: Final[Mapping[Strength, float]] = {"strong": 1.0, "mild": 0.4}
"""Weight of a tool that is preferred or avoided."""

ONE_TOOL: Final[Mapping[Stance, Phrases]] = {"prefer": PREFER, "avoid": AVOID}
"""The workbench's: strong, plain, and about a single tool."""

TOOLS: Final[Mapping[tuple[Stance, Strength], Tones]] = {
    ("prefer", "strong"): {
        "plain": Phrases(
            ("Rely on {tool} as far as possible.", "This should be done with {tool}.", "Turn to {tool} first."),
            ("Give {tool} priority over the others.",),
        ),
        "polite": Phrases(
            ("Please work with {tool}.", "I would be glad if you called on {tool}."),
            ("Would you kindly entrust this to {tool}?",),
        ),
        "casual": Phrases(("Go with {tool}, always.", "I'm a big fan of {tool}."), ("Just hit up {tool}, okay?",)),
        "terse": Phrases(("Preferably {tool}.", "Use {tool}."), ("Via {tool}.",)),
    },
    ("prefer", "mild"): {
        "plain": Phrases(
            ("I have a slight preference for {tool}.", "Where two ways are equally good, take {tool}."),
            ("In case of doubt lean towards {tool}.",),
        ),
        "polite": Phrases(
            ("If it makes no difference, I would like to see {tool} at work.", "You might consider {tool}."),
            ("Perhaps {tool} could be given a chance?",),
        ),
        "casual": Phrases(
            ("Maybe try {tool}, no big deal though.", "Kinda like {tool}, but up to you."),
            ("Wouldn't hurt to ping {tool}.",),
        ),
        "terse": Phrases(("Ideally {tool}.", "Tie-break: {tool}."), ("If equal, {tool}.",)),
    },
    ("avoid", "strong"): {
        "plain": Phrases(
            ("Do it without the help of {tool}.", "I do not want {tool} to be asked.", "Keep this away from {tool}."),
            ("Nothing of this is any business of {tool}.",),
        ),
        "polite": Phrases(
            ("Please refrain from using {tool}.", "I must ask you not to involve {tool}."),
            ("Kindly spare me {tool}.",),
        ),
        "casual": Phrases(("Hands off {tool}!", "No way I'm touching {tool}."), ("Ugh, keep me clear of {tool}.",)),
        "terse": Phrases(("Not {tool}.", "Exclude {tool}."), ("Minus {tool}.",)),
    },
    ("avoid", "mild"): {
        "plain": Phrases(
            ("Take {tool} only if there is no better way.", "I am not too fond of {tool}."),
            ("Treat {tool} as a last resort.",),
        ),
        "polite": Phrases(
            ("If possible, I would prefer to do without {tool}.", "Please be sparing with {tool}."),
            ("Might we get by with little of {tool}?",),
        ),
        "casual": Phrases(
            ("Not super keen on {tool}, but fine if you must.", "Could live without {tool}, tbh."),
            ("Meh, {tool} only when all else flops.",),
        ),
        "terse": Phrases(("Rather not {tool}.", "Limit {tool}."), ("Sparingly: {tool}.",)),
    },
}

PRIVATE: Final = Phrases(
    (
        "My data is confidential and must stay on my own servers, so avoid API calls.",
        "We have plenty of GPUs and secrets to keep: nothing may go to outside services.",
        "For reasons of privacy only our own machines should see this, no cloud provider.",
    ),
    (
        "These are patients' records: process them in house and send nothing to a vendor.",
        "Under our contract no third party may learn of this; the hardware in the basement will do.",
    ),
)
"""Own machines are preferred and all others avoided, as in the example of arXiv 2511.21689, section 3.3."""

GROUPS: Final[Mapping[str, Phrases]] = {
    "own": Phrases(
        ("my own servers", "the tools on our own machines", "what we host ourselves"),
        ("our in-house systems", "the computers in our basement"),
    ),
    "outside": Phrases(
        ("outside APIs", "cloud providers", "services of other companies"),
        ("third-party vendors", "anything beyond our firewall"),
    ),
    "search": Phrases(("the search tools", "everything that searches", "searches"), ("retrieval", "look-ups")),
    "code": Phrases(
        ("the code tools", "whatever runs programs", "programming tools"), ("scripts", "computation by code")
    ),
    "free": Phrases(
        ("the free tools", "tools that cost nothing", "whatever is free of charge"), ("the ones without a price tag",)
    ),
    "dearest": Phrases(
        ("the most expensive tool", "the priciest of the tools", "whichever tool costs most"),
        ("the dearest name on the list",),
    ),
    "provider": Phrases(
        ("models from {provider}", "anything made by {provider}", "the {provider} models"),
        ("whatever {provider} sells",),
    ),
}
"""Words for the groups of `orchestra_training.preference_pairs.tool_groups`."""


def all_phrases() -> list[Phrases]:
    """Every set of sentences and of words for tools, by meaning and tone."""
    return [
        *(phrases for wish in GENERAL.values() for phrases in wish.said.values()),
        *ONE_TOOL.values(),
        *(phrases for tones in TOOLS.values() for phrases in tones.values()),
        PRIVATE,
        *GROUPS.values(),
    ]
