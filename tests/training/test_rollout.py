from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from httpx import ConnectError
from langchain_core.exceptions import ContextOverflowError
from orchestra_training.batch import make_batch
from orchestra_training.filters import FilterReport
from orchestra_training.groups import collect
from orchestra_training.metrics import LABELS
from orchestra_training.reward import guarded
from orchestra_training.rollout import Actor, Place, Rollouts, RolloutTask, WorkbenchTasks, find_tasks
from orchestra_training.rollout.workers import Outfit, RolloutError, Workers, _Link
from orchestra_training.trainers.online import Online
from orchestra_training.verdicts import exact

from orchestra_graph.captures import CapturedMessage
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.runlog.record import Policy, Trajectory, Verdict
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.expert import Expert
from tests.training.coin import local_router, make_coin, tokenizer
from tests.training.runs import run

RIGHT = ScriptedRouter([("expert", {})], stateless=True)


class Sums:
    """Tasks of one's own: a rollout of the task with index 1 breaks as `breaks` says."""

    def __init__(self, breaks: str = "") -> None:
        self.breaks = breaks

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        def open_place() -> Place:
            if self.breaks == "place" and index == 1:
                raise OSError("no such database")
            return Place(tools=[self.expert(index)], verdict=verdict)

        async def verdict(answer: str | None) -> Verdict:
            if self.breaks == "verdict" and index == 1:
                raise ValueError("the judge is out")
            return exact(answer or "", "42")

        return RolloutTask(
            id=f"sum/{step}/{index}",
            question=f"What is {42 - index} + {index}?",
            open=open_place,
            preferences=Preferences(cost=0.9),
            budget=Budget(turns=3),
        )

    def expert(self, index: int) -> Expert:
        delay = 60.0 if self.breaks == "deadline" and index == 1 else 0.0
        model = ScriptedExpert("<answer>42</answer>", delay=delay)
        return Expert(name="expert", description="Adds.", model=model, terminal=True)


def actor(router: Any = RIGHT, protocol: Any = None) -> Actor:
    return Actor(
        router=router, protocol=protocol or ConversationProtocol(repair=False), policy=Policy(name="p", step=7)
    )


def batch(tasks: Any, router: Any = RIGHT, **options: Any) -> list[Trajectory]:
    rollouts = Rollouts(tasks=tasks, seed=5, size=3, **options)
    return asyncio.run(rollouts.batch(actor(router), 2, range(2)))


def test_a_group_has_everything_in_common() -> None:
    runs = batch(Sums())
    assert [(run.group_id, run.rollout) for run in runs] == [(f"5/2/{n}", m) for n in range(2) for m in range(3)]
    assert {run.purpose for run in runs} == {"train"}
    assert {run.policy for run in runs} == {Policy(name="p", step=7)}
    assert runs[0].seeds == {"seed": 5, "step": 2, "index": 0}
    assert runs[0].preferences == Preferences(cost=0.9)
    assert runs[0].budget == Budget(turns=3)
    assert [run.verdict and run.verdict.outcome for run in runs] == [1.0] * 6
    groups = collect(runs, FilterReport())
    assert [len(group.run_ids) for group in groups] == [3, 3]


@pytest.mark.parametrize(
    ("breaks", "told"),
    [("place", "OSError: no such database"), ("verdict", "ValueError: the judge is out"), ("deadline", "TimeoutError")],
)
def test_what_breaks_is_a_trajectory_without_a_verdict(breaks: str, told: str) -> None:
    runs = batch(Sums(breaks), deadline=1.0)
    assert [run.verdict is None for run in runs] == [False] * 3 + [True] * 3
    broken = runs[3]
    assert (broken.ended, broken.error) == ("failed", told)
    assert (broken.group_id, broken.rollout, broken.purpose, broken.task.id) == ("5/2/1", 0, "train", "sum/2/1")
    report = FilterReport()
    assert [len(group.run_ids) for group in collect(runs, report)] == [3]
    assert report.counts == {("unjudged", "no_verdict"): 3}


class Crowd:
    """Tasks whose places tell how many of them are open at a time."""

    def __init__(self) -> None:
        self.open = self.most = 0

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        def open_place() -> Place:
            self.open += 1
            self.most = max(self.most, self.open)
            return Place(tools=[Sums().expert(index)], verdict=verdict)

        async def verdict(answer: str | None) -> Verdict:
            self.open -= 1
            return exact(answer or "", "42")

        return RolloutTask(id=f"{step}/{index}", question="What is 40 + 2?", open=open_place)


@pytest.mark.parametrize("parts", [[None, None], [range(2), range(2, 3)]], ids=["groups", "parts of groups"])
def test_no_more_rollouts_run_at_a_time_than_are_wanted(parts: list[Any]) -> None:
    tasks = Crowd()
    rollouts = Rollouts(tasks=tasks, size=3, concurrent=2)

    async def work() -> list[list[Trajectory]]:
        """As a worker does, which is given parts of groups."""
        return await asyncio.gather(*(rollouts.group(actor(), 0, index, part) for index, part in enumerate(parts)))

    runs = [run for group in asyncio.run(work()) for run in group]
    assert all(run.verdict is not None and run.verdict.outcome == 1.0 for run in runs)
    assert tasks.most == 2


def test_a_policy_that_cannot_be_reached_has_not_failed() -> None:
    def reply(messages: Any) -> Any:
        raise ConnectError("connection refused")

    runs = batch(Sums(), ScriptedRouter(reply, stateless=True))
    assert {(run.ended, run.verdict) for run in runs} == {("failed", None)}
    assert "connection refused" in (runs[0].error or "")


def test_a_judge_that_cannot_tell_of_most_rollouts_stops_the_training() -> None:
    async def roll(number: int, indexes: Any) -> list[Trajectory]:
        untold = {"outcome": None, "by": "judge", "reason": "status 401"}
        return [run("a"), run("b", verdict=untold), run("c", verdict=untold)]

    draw = Online(roll, tasks=1, make=make_batch, reward=guarded)
    with pytest.raises(RolloutError, match="2 of 3 rollouts broke; the first: no outcome by judge: status 401"):
        draw(0)


@pytest.mark.parametrize(("first", "outcome"), [(False, 0.0), (True, None)])
def test_a_rollout_that_outgrows_what_the_policy_reads_is_judged_if_it_began(
    first: bool, outcome: float | None
) -> None:
    def reply(messages: Any) -> Any:
        if first or len(messages) > 2:
            raise ContextOverflowError("a prompt of 30,000 tokens")
        return CapturedMessage(
            content="no call", capture={"prompt_token_ids": [1], "token_ids": [2], "logprobs": [-0.5]}
        )

    router = ScriptedRouter(reply, stateless=True)
    place = actor(router).having(Policy(name="p", step=7))
    patient = dataclasses.replace(place, max_malformed=3)
    [run] = asyncio.run(Rollouts(tasks=Sums(), seed=5, size=1).batch(patient, 2, [0]))
    assert (run.ended, run.verdict and run.verdict.outcome) == ("failed", outcome)
    assert "30,000" in (run.error or "")


def test_a_prompt_that_is_too_long_fails_alone() -> None:
    from orchestra_training.rollout.colocated import ColocatedEngine  # noqa: PLC0415  (imports torch)

    class Generation:
        """Refuses all where one prompt is too long, as vLLM does."""

        max_model_length = 8

        def generate(self, prompts: list[list[int]], **others: Any) -> Any:
            assert all(len(prompt) < 8 for prompt in prompts)
            return None, [[7]] * len(prompts), [[[-0.5]]] * len(prompts), None

    engine = ColocatedEngine(None, pad=0)
    engine.generation = Generation()

    async def ask() -> list[Any]:
        asked = (engine.complete([1] * count, max_tokens=4, temperature=1.0) for count in (7, 8, 3))
        return await asyncio.gather(*asked, return_exceptions=True)

    short, long, other = asyncio.run(ask())
    assert (short, other, engine.written) == (([7], [-0.5]), ([7], [-0.5]), 2)
    assert isinstance(long, ContextOverflowError)


def test_no_fallback_decides_and_nothing_is_mended() -> None:
    written = ScriptedRouter(['<tool_call>{"name": "expert", "arguments": {}}</tool_call>'], stateless=True)
    (run, *_) = batch(Sums(), written)
    assert [turn["decision"]["by"] for turn in run.turns] == ["router"]
    assert run.stopped_by == "router"
    assert not run.turns[0]["decision"]["calls"]


def test_tasks_follow_from_seed_step_and_index() -> None:
    one, other = WorkbenchTasks(), WorkbenchTasks()
    for place in [(0, 0, 0), (0, 1, 0), (1, 0, 3)]:
        first, second = one(*place), other(*place)
        assert (first.question, first.catalog, first.preferences) == (
            second.question,
            second.catalog,
            second.preferences,
        )
    assert len({one(*place).question for place in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]}) == 4


@pytest.mark.parametrize("name", ["nowhere", ":Tasks", "nowhere:Tasks", "orchestra_training.rollout.task:Nothing"])
def test_tasks_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        find_tasks(name)


def test_tasks_of_ones_own_are_found_by_name() -> None:
    tasks = find_tasks("tests.training.test_rollout:Sums", {"breaks": "place"})
    assert tasks(0, 0, 4).question == "What is 38 + 4?"


@pytest.mark.slow
def test_a_model_in_process_decides_on_the_workbench(tmp_path: Path) -> None:
    router = local_router(make_coin(tmp_path))
    rollouts = Rollouts(tasks=WorkbenchTasks(budget={"turns": 4}), size=4)
    runs = asyncio.run(rollouts.batch(actor(router, ScanProtocol()), 0, range(3)))
    assert [run.verdict is not None for run in runs] == [True] * 12
    captures = [capture for run in runs for capture in run.captures.values()]
    assert all(len(c.token_ids) == len(c.logprobs or ()) == 1 and c.prompt_token_ids for c in captures)
    assert router.engine.batches < len(captures), "concurrent rollouts share forward passes"
    assert router.engine.written == len(captures)
    labels = (runs[0].task.model_extra or {})[LABELS]
    assert runs[0].catalog is not None
    assert set(runs[0].catalog.tools) == set(labels)


@pytest.mark.slow
def test_a_prompt_is_computed_once_until_the_weights_change(tmp_path: Path) -> None:
    import torch  # noqa: PLC0415  (takes seconds)

    model = make_coin(tmp_path)
    engine = local_router(model).engine

    async def ask(prompts: list[list[int]]) -> list[Any]:
        return await asyncio.gather(*(engine.complete(p, max_tokens=1, temperature=1.0) for p in prompts))

    first = asyncio.run(ask([[5, 6, 7]] * 40 + [[5, 6]]))
    assert engine.batches == 1
    chosen = {tuple(tokens) for tokens, _ in first[:40]}
    assert len(chosen) == 2, "each request draws for itself"
    words = {tokenizer().token_to_id(word) for word in ("take", "skip")}
    assert {token for (token,) in chosen} == words
    asyncio.run(ask([[5, 6], [5, 6, 7]]))
    assert engine.batches == 1
    with torch.no_grad():
        model.lm_head.weight[:, 0] = -model.lm_head.weight[:, 0]
    engine.weights_changed()
    ((token,), _), *_ = asyncio.run(ask([[5, 6]]))
    assert token not in words


def outfit(tasks: str = "workbench", **options: Any) -> Outfit:
    from orchestra_training.tiny.model import TEMPLATE  # noqa: PLC0415  (imports torch)

    speech = {"tokenizer": tokenizer().to_str(), "chat_template": TEMPLATE}
    limits = {"options": {"budget": {"turns": 3}}}
    return Outfit(tasks=tasks, protocol="scan", session="s", size=4, max_tokens=1, **{**speech, **limits, **options})


@pytest.mark.slow
def test_workers_do_what_one_process_does(tmp_path: Path) -> None:
    engine = local_router(make_coin(tmp_path)).engine
    workers = Workers(outfit(), engine, 2)
    policy = Policy(name="coin", step=7)
    try:
        for step in range(2):
            here = asyncio.run(outfit().rollouts().batch(outfit().actor(engine).having(policy), step, range(3)))
            before = engine.written
            there = asyncio.run(workers.batch(policy, step, range(3)))
            for name in ("group_id", "rollout", "seeds", "preferences", "catalog", "policy", "purpose"):
                assert [getattr(run, name) for run in there] == [getattr(run, name) for run in here], name
            assert all(run.verdict is not None for run in there)
            assert engine.written - before == sum(len(run.captures) for run in there)
    finally:
        workers.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "told"), [("Breaks", "KeyError: 'no such task'"), ("Exits", "a rollout worker ended with exit code 3")]
)
def test_a_worker_that_cannot_go_on_stops_the_batch(name: str, told: str) -> None:
    workers = Workers(outfit(tasks=f"tests.training.test_rollout:{name}", options={}), None, 1)
    try:
        with pytest.raises(RolloutError, match=told):
            asyncio.run(workers.batch(Policy(name="coin"), 0, range(2)))
        assert multiprocessing.active_children() == []
    finally:
        workers.close()


class Breaks:
    """A source without tasks."""

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        raise KeyError("no such task")


class Exits:
    """A source that ends its process."""

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        os._exit(3)


def test_messages_larger_than_the_pipe_that_cross_each_other_arrive() -> None:
    ours, theirs = multiprocessing.Pipe()
    done: list[Any] = []

    class Engine:
        async def complete(self, prompt: Any, *, max_tokens: int, temperature: float, explore: bool = False) -> Any:
            time.sleep(0.2)  # meanwhile the worker's next message fills the pipe
            return [1] * 500_000, [-0.5] * 500_000

    async def train() -> None:
        link = _Link(ours, None)
        link.attach(Engine())
        await link.group(Policy(name="p"), 0, 0, range(1))
        link.detach()

    def work() -> None:
        theirs.recv()
        theirs.send(("ask", [(0, [1], 1, 1.0, False)]))
        time.sleep(0.1)
        theirs.send(("ask", [(1, [1] * 500_000, 1, 1.0, False)]))
        done.extend(number for _ in range(2) for number, _ in theirs.recv()[1])
        theirs.send(("done", 0, 0, [], None))

    ends = [threading.Thread(target=end, daemon=True) for end in (lambda: asyncio.run(train()), work)]
    for end in ends:
        end.start()
    for end in ends:
        end.join(20)
    assert not any(end.is_alive() for end in ends)
    assert sorted(done) == [0, 1]
