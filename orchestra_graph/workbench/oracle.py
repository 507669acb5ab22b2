"""The oracle: knows every expert's true limits, and finds the plan that solves a question at the least cost.

A bound on what routing can reach, and a teacher for a router's first lessons: wherever a run stands, also after calls
that no plan holds, it knows what is left to do. It reads the question as experts do; it does not see the right answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pydantic import Field

from orchestra_graph.catalog import Catalog, Price
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Preferences, thrift
from orchestra_graph.protocols.table import Line
from orchestra_graph.routers.base import Choice, ProgramRouter, Scene
from orchestra_graph.routers.programs import give_up
from orchestra_graph.text import estimate_tokens
from orchestra_graph.workbench.experts import last_output
from orchestra_graph.workbench.skills import SKILLS
from orchestra_graph.workbench.tasks import read, within
from orchestra_graph.workbench.tasks.records import changes_made

Plan = tuple[str, ...]
"""Experts to call, in order, by the names of `SKILLS`."""

RETRIES = 3

ABOUT = 0.03
"""Plans whose worth differs by less are about as good: prices are estimated."""

PROMPT_TOKENS = 65
"""A role's system text and the headings of a prompt."""
REPLY_TOKENS = {"programming": 220, "calculus": 40}
"""What an expert writes, by family; about 25 for others."""
EVIDENCE_TOKENS = {"search": 155, "runner": 40}
"""What a call adds to the evidence; about 20 for others."""


@dataclass(frozen=True)
class Step:
    """A call that brought a result."""

    expert: str
    """By the names of `SKILLS`."""
    content: str


@dataclass(frozen=True)
class Offer:
    """What a tool costs and takes."""

    price: Price
    seconds: float


def solutions(question: str) -> list[Plan]:
    """Every plan without a spare call that answers the question rightly; empty for a question from elsewhere."""
    found = read(question)
    if found is None:
        return []
    family, problem = found
    sizes = family.sizes(problem)
    plans: list[Plan] = []
    for expert, skill in SKILLS.items():
        limits = skill.limits.get(family.name)
        if limits is None or not within(sizes, limits):
            continue
        if expert == "runner":
            plans += [(expert, reader) for reader, other in SKILLS.items() if other.quotes]
            continue
        documents = ("search",) * sizes.get("hops", 0)
        turns = math.ceil(sizes.get("changes", 1) / limits.get("per_call", 1))
        plans.append((*documents, *(expert,) * turns))
    return plans


def steps_left(steps: Plan, question: str, done: Sequence[Step]) -> Plan:
    """What of a plan is still to be done after other calls, whoever made them.

    Args:
        steps: One of `solutions`.
        question: Text of the task.
        done: Calls that brought a result.
    """
    found = read(question)
    if found is None:
        return steps
    sizes = found[0].sizes(found[1])
    searches = sum(step.expert == "search" for step in done)
    documents = steps.count("search")
    left = steps[min(searches, documents) :]
    if left[0] == "runner" and last_output([step.content for step in done]) is not None:
        left = left[1:]
    if "changes" in sizes:
        made = max((changes_made(step.content) for step in done), default=0)
        per_call = SKILLS[left[-1]].limits["records"].get("per_call", sizes["changes"])
        left = left[: math.ceil((sizes["changes"] - made) / per_call)]
    return left


def plan(
    question: str,
    catalog: Catalog,
    *,
    identity: Mapping[str, str] | None = None,
    preferences: Preferences | None = None,
) -> list[str] | None:
    """The best plan with the tools of a catalog.

    Args:
        question: Text of a task.
        catalog: Tools, prices, latencies.
        identity: For each name in the catalog, which expert of `SKILLS` it is; by default its own name.
        preferences: Weights; by default cost counts more than time.

    Returns:
        Names in the catalog, in the order of the calls; None where these tools cannot solve it.
    """
    offers = {name: Offer(spec.price, spec.latency.p50) for name, spec in catalog.tools.items()}
    return choose_plan(question, offers, identity or {}, preferences or Preferences())


def choose_plan(
    question: str,
    offers: Mapping[str, Offer],
    identity: Mapping[str, str],
    preferences: Preferences,
    done: Sequence[Step] = (),
) -> list[str] | None:
    """As `plan`, with the tools as offers by name, and of each plan what is left after the calls in `done`."""
    plans = plans_left(question, offers, identity, done)
    if not plans:
        return None
    used = _names_of(done, offers, identity)
    dollars, seconds = _normalised([p.dollars for p in plans]), _normalised([p.seconds for p in plans])
    losses = [
        preferences.cost * d + preferences.latency * s - _wishes([*used, *p.calls], preferences)
        for d, s, p in zip(dollars, seconds, plans, strict=True)
    ]
    # On equal terms the cheaper plan wins, then the one listed first.
    return plans[min(range(len(plans)), key=lambda i: (losses[i], plans[i].dollars, plans[i].seconds))].calls


@dataclass(frozen=True)
class Priced:
    """What is left to do of a plan."""

    calls: list[str]
    """Names in the catalog."""
    dollars: float
    seconds: float


def plans_left(
    question: str, offers: Mapping[str, Offer], identity: Mapping[str, str], done: Sequence[Step] = ()
) -> list[Priced]:
    """What is left to do of every plan that these tools allow, with what it will about cost.

    Args:
        question: Text of the task.
        offers: The tools by name.
        identity: For each name, which expert it is; by default its own name.
        done: Calls that brought a result.
    """
    names = _by_expert(offers, identity)
    found = read(question)
    if found is None:
        return []
    whole = [p for p in solutions(question) if all(expert in names for expert in p)]
    plans = []
    for left in (steps_left(steps, question, done) for steps in whole):
        calls = [names[expert] for expert in left]
        if calls:
            plans.append(Priced(calls, *_estimate(question, found[0].name, left, [offers[name] for name in calls])))
    return plans


def good_calls(
    question: str,
    offers: Mapping[str, Offer],
    identity: Mapping[str, str],
    preferences: Preferences,
    done: Sequence[Step],
    left: Spent,
) -> set[str]:
    """The tools with which a plan begins that is about as good as the best one.

    Args:
        question: Text of the task.
        offers: The tools by name.
        identity: For each name, which expert it is; by default its own name.
        preferences: Weights.
        done: Calls that brought a result.
        left: What may still be spent. Plans within it go before others.

    Returns:
        Names; none where no plan is left.
    """
    plans = plans_left(question, offers, identity, done)
    fitting = [
        p for p in plans if len(p.calls) <= left.turns and p.dollars <= left.dollars and p.seconds <= left.seconds
    ]
    plans = fitting or plans
    if not plans:
        return set()
    used = _names_of(done, offers, identity)
    dollars, seconds = fmean(p.dollars for p in plans), fmean(p.seconds for p in plans)
    worths = [
        preferences.cost * thrift(dollars, p.dollars)
        + preferences.latency * thrift(seconds, p.seconds)
        + _wishes([*used, *p.calls], preferences)
        for p in plans
    ]
    return {p.calls[0] for p, worth in zip(plans, worths, strict=True) if worth >= max(worths) - ABOUT}


class Oracle(ProgramRouter):
    """Follows the best plan; where there is none, it gives up at once."""

    identity: Mapping[str, str] = Field(default_factory=dict)
    """For each name in the catalog, which expert it is; by default its own name."""

    def choose(self, scene: Scene) -> Choice:
        """The next call of the plan; one that failed is repeated, up to three times in a run."""
        steps = self.left_to_do(scene)
        if not steps or sum(past.error for past in scene.past) > RETRIES:
            return give_up(scene)
        return Choice(steps[0], f"left to do: {' -> '.join(steps)}")

    def left_to_do(self, scene: Scene) -> list[str] | None:
        """The calls of the best plan from here on; None where these tools cannot solve it."""
        offers = {line.name: Offer(_price(line), line.seconds) for line in scene.lines}
        done = [Step(self.identity.get(past.tool, past.tool), past.content) for past in scene.past if not past.error]
        return choose_plan(scene.question, offers, self.identity, scene.preferences, done)


def _estimate(question: str, family: str, steps: Plan, offers: Sequence[Offer]) -> tuple[float, float]:
    """Dollars and seconds of a plan, dollars to within a factor of about two: enough to rank plans."""
    dollars = seconds = 0.0
    tokens = PROMPT_TOKENS + estimate_tokens(question)
    for expert, offer in zip(steps, offers, strict=True):
        reply = 4 if expert == "search" else REPLY_TOKENS.get(family, 25)
        dollars += offer.price.dollars(input_tokens=tokens, output_tokens=reply, calls=1, seconds=offer.seconds)
        seconds += offer.seconds
        tokens += EVIDENCE_TOKENS.get(expert, 20)
    return dollars, seconds


def _by_expert(offers: Iterable[str], identity: Mapping[str, str]) -> dict[str, str]:
    return {identity.get(name, name): name for name in offers}


def _names_of(done: Sequence[Step], offers: Iterable[str], identity: Mapping[str, str]) -> list[str]:
    names = _by_expert(offers, identity)
    return [names[step.expert] for step in done if step.expert in names]


def _normalised(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def _wishes(calls: list[str], preferences: Preferences) -> float:
    """Weight of the preferred tools that a plan calls, less that of those to avoid."""
    used = set(calls)
    return sum(preferences.prefer.get(name, 0.0) - preferences.avoid.get(name, 0.0) for name in sorted(used))


def _price(line: Line) -> Price:
    return Price(input=line.input, output=line.output, per_call=line.per_call, per_second=line.per_second)
