"""Episodes for training: a task, and a catalog and a user that nobody has seen before.

Names, descriptions, prices, latencies, order and choice of tools are drawn anew, so that a policy has to read the
catalog. The tools of at least one plan that solves the task are always among them. What is to stay as the fixed catalog
has it can be said.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal

from orchestra_graph.catalog import Catalog, Latency, Price, ToolSpec
from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench.descriptions import DESCRIPTIONS
from orchestra_graph.workbench.names import unique_names
from orchestra_graph.workbench.oracle import plan, solutions
from orchestra_graph.workbench.task import Task
from orchestra_graph.workbench.wishes import WishKind, draw_preferences, wish_for
from orchestra_graph.workbench.wording import Split

Aspect = Literal["tools", "prices", "names", "wishes"]
ASPECTS: Final[tuple[Aspect, ...]] = ("tools", "prices", "names", "wishes")
"""What is drawn: which tools, in which order; prices and latencies; names and descriptions; preferences."""

KEPT = 0.6
"""Chance of a tool that the chosen plan does not need."""
PRICE_SPREAD = 10.0
"""Prices are multiplied by a factor between 1 / this and this, evenly on a log scale."""
LATENCY_SPREAD = 3.0
FLAT_SHARE = 0.2
"""Chance that a tool is paid by the call instead of by the token."""
TYPICAL_TOKENS = (200, 60)
"""Tokens in and out of a usual call, at which a flat price equals the one by tokens."""


@dataclass(frozen=True)
class Episode:
    """One training instance."""

    task: Task
    catalog: Catalog
    identity: Mapping[str, str]
    """For each name in the catalog, which expert of `SKILLS` it is. Not for the policy."""
    preferences: Preferences


def draw_episode(task: Task, catalog: Catalog, rng: Random, *, vary: Collection[Aspect] = ASPECTS) -> Episode:
    """Draw a catalog and preferences for a task.

    Args:
        task: The task; its split is the split of all texts.
        catalog: The fixed catalog, with a line for each expert.
        rng: The only source of chance.
        vary: What is drawn; the rest is as in the fixed catalog, and nobody has a wish.
    """
    experts = list(catalog.tools)
    if "tools" in vary:
        needed = rng.choice(solutions(task.question))
        experts = [name for name in experts if name in needed or rng.random() < KEPT]
        rng.shuffle(experts)
    names = experts
    if "names" in vary:
        names = [name.lower() for name, _ in zip(unique_names(rng), experts, strict=False)]
    specs = [_vary(catalog.tools[e], name, task.split, rng, vary) for e, name in zip(experts, names, strict=True)]
    return Episode(
        task=task,
        catalog=Catalog.of(specs, router=catalog.router),
        identity=dict(zip(names, experts, strict=True)),
        preferences=draw_preferences(rng, task.split, names) if "wishes" in vary else Preferences(),
    )


def with_wish(episode: Episode, rng: Random, kind: WishKind) -> Episode | None:
    """The episode with one wish, if it counts.

    To avoid a tool counts where the best plan of a user without a wish would call it and another plan does not; to
    prefer one counts where that plan would not call it and another does; `cheap` and `fast` count where they lead to
    different plans. Other wishes always count.

    Args:
        episode: Its own preferences are dropped.
        rng: The only source of chance.
        kind: What is wished for.

    Returns:
        None where no such wish counts.
    """
    if kind in ("cheap", "fast") and len({_plan(episode, wish_for(rng, "train", w)) for w in ("cheap", "fast")}) == 1:
        return None
    tools = [""] if kind not in ("prefer", "avoid") else list(episode.catalog.tools)
    rng.shuffle(tools)
    before = _plan(episode, Preferences())
    for tool in tools:
        wish = wish_for(rng, episode.task.split, kind, tool)
        after = _plan(episode, wish)
        if not tool or ((tool in before) == (kind == "avoid") and (tool in after) == (kind == "prefer")):
            return replace(episode, preferences=wish)
    return None


def _plan(episode: Episode, preferences: Preferences) -> tuple[str, ...]:
    found = plan(episode.task.question, episode.catalog, identity=episode.identity, preferences=preferences)
    return tuple(found or ())


def _vary(spec: ToolSpec, name: str, split: Split, rng: Random, vary: Collection[Aspect]) -> ToolSpec:
    changes: dict[str, object] = {"fallback": ()}
    slower = _factor(rng, LATENCY_SPREAD) if "prices" in vary else 1.0
    if "names" in vary:
        changes |= {"name": name, "description": DESCRIPTIONS[spec.name].draw(rng, split)}
    if "prices" in vary:
        latency = Latency(p50=_round(spec.latency.p50 * slower), p95=_round(spec.latency.p95 * slower))
        changes |= {"price": _vary_price(spec.price, rng), "latency": latency}
    return spec.model_copy(update=changes)


def _vary_price(price: Price, rng: Random) -> Price:
    factor = _factor(rng, PRICE_SPREAD)
    if rng.random() < FLAT_SHARE:
        sent, wrote = TYPICAL_TOKENS
        return Price(per_call=_round(factor * price.dollars(input_tokens=sent, output_tokens=wrote, calls=1)))
    return Price(
        input=_round(price.input * factor),
        output=_round(price.output * factor),
        per_call=_round(price.per_call * factor),
    )


def _factor(rng: Random, spread: float) -> float:
    return math.exp(rng.uniform(-math.log(spread), math.log(spread)))


def _round(value: float) -> float:
    """Three significant digits, as a price list has them."""
    return float(f"{value:.3g}")
