"""Other ways to describe each expert, for `Workbench.sample`; the fixed catalog has its own in TOML.

A train description is one of the `blurbs` in `wordings/experts`, or put together: a role from there, from the
`vocabulary` some skills, perhaps limits and a note, in one of the layouts below. Held-out descriptions are all
hand-written, and share no run of five words with a train one, so that success on them means that a policy reads for
meaning. Who wrote the files in `wordings/experts` had not seen them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from orchestra_graph.workbench.vocabulary import PARTS, Parts
from orchestra_graph.workbench.wording import Phrases, Split, written

HAND_WRITTEN = 0.6
"""Share of train descriptions that are whole blurbs."""
NOTED = 0.6
"""Share of the others that end with a note."""

_WITH_LIMITS = (
    "{role}. {skills}. Not for {limits}.",
    "{role} for {skills}. Leave {limits} to others.",
    "{role}: {skills}. Out of scope: {limits}.",
    "{role}. Good at {skills}. Bad at {limits}.",
    "Strengths: {skills}. Weaknesses: {limits}. {role}.",
    "I am {a_role}. Ask me for {skills}, but not for {limits}.",
    "{skills}: that is what this {role} does. It is no use for {limits}.",
    "{role}. Use it for {skills}. Avoid it for {limits}.",
    "{a_role} that can be trusted with {skills} and that fails at {limits}.",
    "{role}. Pros: {skills}. Cons: {limits}.",
    "{role} | does {skills} | does not do {limits}",
    "Do not send it {limits}. What it can do: {skills}. {role}.",
    "Meet your new {role}! It takes on {skills}. Just keep {limits} away from it.",
    "This {role} is recommended for {skills} and unsuited to {limits}.",
    "{role}. Capabilities - {skills}. Limitations - {limits}.",
    "We built {a_role}. It covers {skills}. It does not cover {limits}.",
    "{a_role}. What for? {skills}. What not? {limits}.",
    "Wrong place for {limits}. This is {a_role} for {skills}.",
)
_WITHOUT_LIMITS = (
    "{role} for {skills}.",
    "{role}: {skills}.",
    "{skills} ({role}).",
    "{role}. Specialities: {skills}.",
    "Your {role}, whenever you need {skills}.",
    "I am {a_role} and I am glad to help with {skills}.",
    "Call this {role} for {skills}.",
    "{skills}, done by {a_role}.",
    "{a_role} whose work is {skills}.",
    "{a_role} that offers {skills}.",
    "{role} - {skills}",
    "Topics: {skills}. Type: {role}.",
)
_ANDS = (", {} and ", ", {}, and ", "; {}; ", ", {}, ", " / {} / ", ", {} as well as ")
_ORS = (", {} or ", ", {}, or ", "; {}; ", ", {}, ", " / {} / ")
_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


@dataclass(frozen=True)
class Description(Phrases):
    """Ways to describe one expert; `train` are the blurbs."""

    roles: tuple[str, ...]
    parts: Parts

    def draw(self, rng: Random, split: Split, **slots: object) -> str:
        """A text of the split, for train often a new one; there are no slots."""
        if split == "train" and rng.random() >= HAND_WRITTEN:
            return self.assemble(rng)
        return super().draw(rng, split, **slots)

    def assemble(self, rng: Random) -> str:
        """Put a train description together."""
        limited = rng.random() < 0.6
        role = rng.choice(self.roles)
        text = rng.choice(_WITH_LIMITS if limited else _WITHOUT_LIMITS).format(
            role=role,
            a_role=f"{'an' if role[0].lower() in 'aeiou' else 'a'} {role}",
            skills=_some(self.parts.skills, _ANDS, rng, most=5),
            limits=_some(self.parts.limits, _ORS, rng, most=3),
        )
        if rng.random() < NOTED:
            note = rng.choice(self.parts.notes)
            text = f"{note} {text}" if rng.random() < 0.25 else f"{text.rstrip('.')}. {note}"
        return _START.sub(lambda match: match[0].upper(), text)


def _some(things: Sequence[Sequence[str]], joins: Sequence[str], rng: Random, *, most: int) -> str:
    """Some of the things in random order, each in one of its wordings, as a list within a sentence."""
    chosen = rng.sample(things, rng.randint(min(2, len(things)), min(most, len(things))))
    *first, last = (rng.choice(wordings) for wordings in chosen)
    between, _, before_last = rng.choice(joins).partition("{}")
    return before_last.join((between.join(first), last)) if first else last


_HELD_OUT = {
    "large": (
        "Big flagship model that is good at nearly everything, second derivatives included. Very long numbers, "
        "many-step jobs and facts without sources are beyond it.",
        "Broad expert of the highest class. Trust it with hard single problems, not with twenty-digit products or "
        "five record changes.",
    ),
    "small": (
        "Compact model with little depth: easy maths, easy code, one hop of reading. Good at stating a result that "
        "lies in the evidence.",
        "Entry-level generalist. Ask it simple things only, or let it report the output of code that was run.",
    ),
    "math": (
        "Expert for formulas: algebra, calculus, number theory, long-hand arithmetic. Declines every other field.",
        "A mathematician. Give it equations, integrals, factorizations or sums, and nothing else.",
    ),
    "coder": (
        "A software engineer for single functions, from simple filters to dynamic programming. Only for code.",
        "Turns a specification into a Python function, however many steps it has.",
    ),
    "runner": (
        "Computes by executing code: sums, equations, primes. Brings the printed result as evidence only.",
        "A calculator that programs itself. Exact, but a generalist or mathematician must give the final answer.",
    ),
    "reader": (
        "Extracts and connects facts from retrieved text, chains of three included. Without text it is at a loss.",
        "A careful reader. Put the documents before it and it follows the trail to the answer.",
    ),
    "search": (
        "Retrieves background documents, three at a time, following the trail by one step with every call.",
        "Opens the only way to the facts of the knowledge base: looks up what is still missing.",
    ),
    "clerk": (
        "Makes individual edits in the customer database, a pair with each call. No 'every customer who' requests.",
        "Office assistant for single changes of customers and orders; call it anew after every second change.",
    ),
    "analyst": (
        "Senior database worker. Any number of record changes in one go, also for all that meet a condition.",
        "Writes and runs SQL on customers and orders; suited for requests about many records.",
    ),
}

DESCRIPTIONS: dict[str, Description] = {
    expert: Description(
        train=tuple(written(f"experts/{expert}")["blurbs"]),
        held_out=held_out,
        roles=tuple(written(f"experts/{expert}")["roles"]),
        parts=PARTS[expert],
    )
    for expert, held_out in _HELD_OUT.items()
}
"""By the names of `SKILLS`."""
