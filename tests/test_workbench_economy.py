"""The economy: what a router can earn here, measured on held-out tasks.

The experts are called in plain loops, without a graph. Bars: the oracle costs at most a fifth of the strongest expert a
task and solves 97%; the strongest expert with search and a retry leaves at least 12% unsolved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest

from orchestra_graph.meter import Meter
from orchestra_graph.tools.base import Finding, Request
from orchestra_graph.workbench import SKILLS, Task, Workbench, plan

N = 210
BENCH = Workbench()


@dataclass(frozen=True)
class Played:
    solved: float
    dollars: float
    """A task."""
    seconds: float
    """Modelled, a task."""


@cache
def tasks() -> list[Task]:
    return BENCH.tasks("held_out", N)


async def play(choose: Callable[[Task], list[str]]) -> Played:
    runs = [await play_one(task, choose(task)) for task in tasks()]
    return Played(*(sum(column) / N for column in zip(*runs, strict=True)))


async def play_one(task: Task, steps: list[str]) -> tuple[bool, float, float]:
    """Call the tools in order until one answers."""
    world = BENCH.world(task)
    tools = {tool.spec.name: tool for tool in BENCH.tools(world)}
    evidence: list[Finding] = []
    answer, dollars, seconds = None, 0.0, 0.0
    for name in steps:
        meter = Meter(task.id, name, tools[name].spec, price_of=lambda spec, _: spec.price)
        with meter.attempt():
            result = await tools[name].run(Request({}, task.question, tuple(evidence)))
        dollars += sum(charge["dollars"] for charge in meter.charges.values())
        seconds += sum(charge["seconds"] for charge in meter.charges.values())
        evidence.append(Finding(name, "expert", {}, result.content))
        if result.answer is not None:
            answer = result.answer
            break
    return await BENCH.verdict(task, answer, world), dollars, seconds


@pytest.mark.slow
async def test_the_gap_between_the_oracle_and_the_strongest_expert() -> None:
    oracle = await play(lambda task: plan(task.question, BENCH.catalog) or [])
    large = await play(lambda _: ["large"])
    helped = await play(lambda _: ["search", "large", "search", "large"])
    assert oracle.solved >= 0.97
    assert oracle.dollars <= large.dollars / 5
    assert 0.6 < large.solved < helped.solved <= 0.88
    assert oracle.seconds < large.seconds < helped.seconds


@pytest.mark.slow
async def test_no_other_expert_comes_near_the_strongest() -> None:
    others = {name: await play(lambda _, name=name: [name]) for name in ("small", "math")}  # type: ignore[misc]
    assert 0.1 < others["small"].solved < 0.35
    assert 0.4 < others["math"].solved < 0.6


def test_the_catalog_names_every_expert_and_large_costs_most() -> None:
    catalog = BENCH.catalog
    assert catalog.tools.keys() == SKILLS.keys()
    assert all(spec.description and spec.latency.p50 for spec in catalog.tools.values())
    assert all(spec.terminal == (name not in ("search", "runner")) for name, spec in catalog.tools.items())
    prices = {n: s.price.dollars(input_tokens=200, output_tokens=60, calls=1) for n, s in catalog.tools.items()}
    assert max(prices, key=lambda name: prices[name]) == "large"
    assert prices["large"] > 4 * sorted(prices.values())[-2]


@pytest.mark.parametrize("name", ["large", "small"])
async def test_a_run_costs_the_same_when_it_is_repeated(name: str) -> None:
    task = BENCH.tasks("held_out", 2)[1]
    first, second = [await play_one(task, [name]) for _ in range(2)]
    assert first[:2] == second[:2]
