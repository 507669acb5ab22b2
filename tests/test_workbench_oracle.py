"""The oracle's plans: what it knows, what it takes into account, and how it runs in the graph."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage

from orchestra_graph.catalog import Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench import Oracle, Workbench, plan, solutions

BENCH = Workbench()
CATALOG = BENCH.catalog


def question(identity: str) -> str:
    return BENCH.task(identity).question


@pytest.mark.parametrize(
    ("identity", "steps"),
    [
        ("arithmetic/train/1/1", ["small"]),
        ("arithmetic/train/5/1", ["runner", "small"]),
        ("calculus/train/5/1", ["large"]),
        ("programming/train/5/1", ["coder"]),
        ("lookup/train/5/1", ["search", "search", "search", "reader"]),
        ("records/train/3/1", ["clerk", "clerk"]),
        ("records/train/5/1", ["analyst"]),
    ],
)
def test_the_cheapest_plan_of_the_fixed_catalog(identity: str, steps: list[str]) -> None:
    assert plan(question(identity), CATALOG) == steps


def test_prices_change_the_plan() -> None:
    asked = question("records/train/3/1")
    assert plan(asked, CATALOG.reprice({"clerk": Price(per_call=1.0)})) == ["analyst"]
    free = CATALOG.reprice({"large": Price()})
    assert plan(asked, free, preferences=Preferences(latency=0)) == ["large"]


def test_preferences_change_the_plan() -> None:
    asked = question("programming/train/3/1")
    assert plan(asked, CATALOG) == ["coder"]
    assert plan(asked, CATALOG, preferences=Preferences(avoid={"coder": 1.0})) == ["large"]
    assert plan(asked, CATALOG, preferences=Preferences(prefer={"large": 1.0})) == ["large"]
    changes = question("records/train/2/1")
    in_a_hurry = CATALOG.with_measured_latency({"analyst": [0.1] * 20})
    assert plan(changes, in_a_hurry, preferences=Preferences(cost=0, latency=1)) == ["analyst"]


def test_other_names_and_fewer_tools() -> None:
    asked = question("lookup/train/1/1")
    renamed = CATALOG.rename({"search": "alpha", "reader": "beta", "small": "gamma"})
    identity = {"alpha": "search", "beta": "reader", "gamma": "small"}
    steps = plan(asked, renamed, identity=identity)
    assert steps is not None
    assert steps[0] == "alpha"
    assert plan(asked, CATALOG.restrict(["reader", "large"])) is None


def test_a_question_from_elsewhere_has_no_plan() -> None:
    assert solutions("Who is who?") == []
    assert plan("Who is who?", CATALOG) is None


async def test_it_runs_as_a_router() -> None:
    for task in BENCH.tasks("held_out", 14, seed=2):
        world = BENCH.world(task)
        graph = create_orchestrator(Oracle(), BENCH.tools(world), catalog=CATALOG, fallback=None).compile()
        result = await graph.ainvoke({"messages": [HumanMessage(task.question)]})
        assert await BENCH.verdict(task, result["answer"], world), task


async def test_it_runs_an_episode_and_reads_its_preferences() -> None:
    for index in range(10):
        episode = BENCH.sample(4, index)
        world = BENCH.world(episode.task)
        tools = BENCH.tools(world, catalog=episode.catalog, identity=episode.identity)
        graph = create_orchestrator(
            Oracle(identity=episode.identity),
            tools,
            catalog=episode.catalog,
            preferences=episode.preferences,
            fallback=None,
        ).compile()
        result = await graph.ainvoke({"messages": [HumanMessage(episode.task.question)]})
        steps = plan(episode.task.question, episode.catalog, identity=episode.identity, preferences=episode.preferences)
        called = [call["tool"] for turn in result["turns"].values() for call in turn["decision"]["calls"]]
        assert called == steps
        assert await BENCH.verdict(episode.task, result["answer"], world)
