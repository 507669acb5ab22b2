"""Episodes for training: a task, and a catalog and a user that nobody has seen before.

Names, descriptions, prices, latencies, order and choice of tools are drawn anew, so that a policy has to read the
catalog. The tools of at least one plan that solves the task are always among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from orchestra_graph.catalog import Catalog, Latency, Price, ToolSpec
from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench.descriptions import DESCRIPTIONS
from orchestra_graph.workbench.names import unique_names
from orchestra_graph.workbench.oracle import solutions
from orchestra_graph.workbench.task import Task
from orchestra_graph.workbench.wishes import draw_preferences
from orchestra_graph.workbench.wording import Split

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


def draw_episode(task: Task, catalog: Catalog, rng: Random) -> Episode:
    """Draw a catalog and preferences for a task.

    Args:
        task: The task; its split is the split of all texts.
        catalog: The fixed catalog, with a line for each expert.
        rng: The only source of chance.
    """
    needed = rng.choice(solutions(task.question))
    experts = [name for name in catalog.tools if name in needed or rng.random() < KEPT]
    rng.shuffle(experts)
    names = [name.lower() for name, _ in zip(unique_names(rng), experts, strict=False)]
    specs = [_vary(catalog.tools[e], name, task.split, rng) for e, name in zip(experts, names, strict=True)]
    return Episode(
        task=task,
        catalog=Catalog.of(specs, router=catalog.router),
        identity=dict(zip(names, experts, strict=True)),
        preferences=draw_preferences(rng, task.split, names),
    )


def _vary(spec: ToolSpec, name: str, split: Split, rng: Random) -> ToolSpec:
    slower = _factor(rng, LATENCY_SPREAD)
    changes = {
        "name": name,
        "description": DESCRIPTIONS[spec.name].draw(rng, split),
        "price": _vary_price(spec.price, rng),
        "latency": Latency(p50=_round(spec.latency.p50 * slower), p95=_round(spec.latency.p95 * slower)),
        "fallback": (),
    }
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
