"""The experts: real work, limits that can be measured, modelled time, counted tokens."""

from __future__ import annotations

from itertools import product

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from orchestra_graph.catalog import Latency
from orchestra_graph.meter import Meter
from orchestra_graph.text import estimate_tokens
from orchestra_graph.tools.base import Finding, Request, Result, Tool
from orchestra_graph.tools.expert import prompt_text
from orchestra_graph.workbench import FAMILIES, SKILLS, Task, Workbench, World
from orchestra_graph.workbench.experts import Answerer, Prompt, modelled_seconds, read_prompt
from orchestra_graph.workbench.tasks import DIFFICULTIES, within

BENCH = Workbench()
SPECIALISTS = {
    "arithmetic": "math",
    "algebra": "math",
    "calculus": "math",
    "number_theory": "math",
    "programming": "coder",
    "lookup": "reader",
    "records": "analyst",
}
TOO_HARD_FOR_MATH = {("arithmetic", 5): ["runner", "small"], ("calculus", 5): ["large"]}


def tools_by_name(world: World) -> dict[str, Tool]:
    return {tool.spec.name: tool for tool in BENCH.tools(world)}


async def call(world: World, task: Task, *names: str) -> Result:
    """Call experts one after the other, each reading what came before; the last one's result."""
    tools, evidence = tools_by_name(world), list[Finding]()
    result = Result("")
    for name in names:
        result = await tools[name].run(Request({}, task.question, tuple(evidence)))
        evidence.append(Finding(name, "expert", {}, result.content))
    return result


async def solved(task: Task, *names: str) -> bool:
    world = BENCH.world(task)
    result = await call(world, task, *names)
    return await BENCH.verdict(task, result.answer, world)


@pytest.mark.parametrize(("family", "difficulty"), list(product(FAMILIES, DIFFICULTIES)))
async def test_the_specialist_of_a_family_solves_it(family: str, difficulty: int) -> None:
    task = BENCH.task(f"{family}/held_out/{difficulty}/7")
    searches = ["search"] * task.title.count("look-up") * {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}[difficulty]
    experts = TOO_HARD_FOR_MATH.get((family, difficulty), [SPECIALISTS[family]])
    assert await solved(task, *searches, *experts)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "programming"])
async def test_an_expert_solves_a_task_exactly_when_it_is_within_its_limits(family: str) -> None:
    kind, seen = FAMILIES[family], set()
    for task in BENCH.tasks("held_out", 50, families=(family,), seed=5):
        sizes = kind.sizes(kind.read(task.question))
        for name, skill in SKILLS.items():
            if name == "runner" or family not in skill.limits:
                continue
            calls = ["search"] * sizes.get("hops", 0) + [name] * (3 if name == "clerk" else 1)
            able = within(sizes, skill.limits[family])
            assert await solved(task, *calls) is able, (name, task)
            seen.add(able)
    assert seen == {True, False}


async def test_programs_are_right_exactly_within_the_limits() -> None:
    kind = FAMILIES["programming"]
    for task in BENCH.tasks("held_out", 5, families=("programming",), seed=5):
        for name in ("small", "large", "coder"):
            able = within(kind.sizes(kind.read(task.question)), SKILLS[name].limits["programming"])
            assert await solved(task, name) is able, (name, task)


@pytest.mark.parametrize("family", FAMILIES)
async def test_outside_its_field_an_expert_says_so_and_states_no_answer(family: str) -> None:
    task = BENCH.task(f"{family}/train/2/1")
    for name, skill in SKILLS.items():
        if family in skill.limits or name in ("search", "runner"):
            continue
        result = await call(BENCH.world(task), task, name)
        assert result.answer is None
        assert "outside my field" in result.content


async def test_nobody_answers_a_look_up_without_documents() -> None:
    for task in BENCH.tasks("train", 25, families=("lookup",)):
        for name in ("large", "small", "reader"):
            result = await call(BENCH.world(task), task, name)
            assert result.answer is None
            assert "No document before me tells" in result.content


async def test_one_search_opens_one_hop() -> None:
    task = BENCH.task("lookup/train/4/1")
    for searches in range(3):
        assert (await call(BENCH.world(task), task, *["search"] * searches, "reader")).answer is None
    assert await solved(task, "search", "search", "search", "reader")


@pytest.mark.parametrize("identity", ["arithmetic/train/5/1", "algebra/train/5/1", "number_theory/train/5/1"])
async def test_the_runner_computes_and_a_reader_of_its_output_answers(identity: str) -> None:
    task = BENCH.task(identity)
    assert (await call(BENCH.world(task), task, "runner")).answer is None
    assert not await solved(task, "small")
    assert await solved(task, "runner", "small")


async def test_a_runner_out_of_its_field_helps_nobody() -> None:
    task = BENCH.task("calculus/train/5/1")
    result = await call(BENCH.world(task), task, "runner")
    assert "No program of mine helps with this." in result.content
    assert await solved(task, "runner", "large")


async def test_the_clerk_makes_two_changes_a_call_and_goes_on_where_another_stopped() -> None:
    task = BENCH.task("records/train/3/1")
    first = await call(BENCH.world(task), task, "clerk")
    assert (first.answer, first.content) == (None, "Done: changes up to 2 of 3.")
    assert await solved(task, "clerk", "clerk")
    assert await solved(task, "clerk", "analyst")


async def test_the_large_model_forgets_changes_and_says_it_is_done() -> None:
    task = BENCH.task("records/train/5/1")
    world = BENCH.world(task)
    result = await call(world, task, "large")
    assert result.answer == "Done: changes up to 6 of 6."
    assert not await BENCH.verdict(task, result.answer, world)


async def test_a_question_from_elsewhere_gets_no_answer() -> None:
    task = BENCH.task("algebra/train/1/1")
    world = BENCH.world(task)
    for tool in BENCH.tools(world):
        result = await tool.run(Request({}, "Who is who?"))
        assert result.answer is None


def test_a_prompt_is_read_as_it_was_put_together() -> None:
    evidence = (
        Finding("search", "expert", {"q": "a {b}"}, "## A\nOne.\n\n## B\nTwo."),
        Finding("x-1", "code", {}, "```output\n[1] 2\n```"),
    )
    question = "What is\n\nthis?"
    for args in ({}, {"request": "Mind the step."}):
        prompt = read_prompt(prompt_text(Request(args, question, evidence)))
        assert prompt == Prompt(question, (evidence[0].content, evidence[1].content))
        assert read_prompt(prompt_text(Request(args, question))) == Prompt(question)
    assert read_prompt(" just this ") == Prompt("just this")


async def test_tokens_are_counted_and_time_is_modelled() -> None:
    task = BENCH.task("algebra/train/3/1")
    tool = tools_by_name(BENCH.world(task))["math"]
    meter = Meter("c", "math", tool.spec, price_of=lambda spec, _: spec.price)
    with meter.attempt():
        result = await tool.run(Request({}, task.question))
    (request,) = [charge for charge in meter.charges.values() if "input_tokens" in charge]
    assert request["output_tokens"] == estimate_tokens(result.content)
    assert request["input_tokens"] > estimate_tokens(task.question)
    assert 1 < request["seconds"] < 60
    assert request["dollars"] == pytest.approx(
        (request["input_tokens"] * tool.spec.price.input + request["output_tokens"] * tool.spec.price.output) / 1e6
    )


def test_modelled_time_has_the_median_and_the_tail_of_the_catalog() -> None:
    latency = Latency(p50=4, p95=12)
    seconds = sorted(modelled_seconds(latency, f"question {i}") for i in range(2000))
    assert seconds[1000] == pytest.approx(4, rel=0.1)
    assert seconds[1900] == pytest.approx(12, rel=0.15)
    assert modelled_seconds(latency, "a") == modelled_seconds(latency, "a") != modelled_seconds(latency, "b")
    assert modelled_seconds(Latency(p50=4), "a") == 4


def test_an_expert_is_an_ordinary_chat_model_without_a_meter() -> None:
    model = Answerer(latency=Latency(), skill=SKILLS["small"])
    reply = model.invoke([SystemMessage("Answer."), HumanMessage("Question:\nWhat is 2 * (3 + 4)?")])
    assert reply.text.endswith("<answer>14</answer>")
    assert reply.usage_metadata is not None
