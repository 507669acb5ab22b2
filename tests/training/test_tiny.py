"""How the tiny router comes about: demonstrations, lessons, tasks, and the card that it is published with."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer
from orchestra_training.tiny.demonstrate import BY_CHANCE, LADDER, TOO_EARLY, demonstrate, draw
from orchestra_training.tiny.demonstrate import main as demonstrate_main
from orchestra_training.tiny.lessons import lessons_of
from orchestra_training.tiny.tasks import LadderTasks, PreferringTasks, draw_budget

from orchestra_graph.catalog import Catalog, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.ledger import Spent
from orchestra_graph.preferences import Preferences
from orchestra_graph.protocols.scan import SKIP, TAKE, in_order
from orchestra_graph.routers.base import Choice, ProgramRouter, Scene
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.workbench import Workbench
from orchestra_graph.workbench.oracle import Offer, Step, good_calls, plans_left

BENCH = Workbench()
ALL = Spent(math.inf, math.inf, 50)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations of every rung with every share of mistakes."""
    path = tmp_path_factory.mktemp("tiny") / "demonstrations.jsonl"
    asyncio.run(demonstrate(BENCH, RunLog(path), 3, range(36)))
    return path


@pytest.fixture(scope="module")
def runs(log: Path) -> list[Trajectory]:
    return list(read_runs(log))


def test_demonstrations_are_for_training_and_can_be_drawn_again(runs: list[Trajectory]) -> None:
    assert len(runs) == 36
    for run in runs:
        assert run.purpose == "train"
        episode, budget = draw(BENCH, run.seeds["seed"], run.seeds["index"])
        assert (run.task.id, run.task.question) == (episode.task.id, episode.task.question)
        assert run.budget == budget
        assert run.catalog is not None
        assert run.catalog.tools == episode.catalog.tools


def test_some_calls_are_mistakes(runs: list[Trajectory]) -> None:
    reasons = [turn["decision"]["reason"] for run in runs for turn in run.turns]
    assert BY_CHANCE in reasons and TOO_EARLY in reasons
    assert sum(reason.startswith("left to do") for reason in reasons) > len(reasons) / 3


def test_after_the_answer_was_asked_for_too_early_a_run_goes_back_for_what_was_missing(runs: list[Trajectory]) -> None:
    reasons = [[turn["decision"]["reason"] for turn in run.turns] for run in runs]
    after = [reason for told in reasons if TOO_EARLY in told for reason in told[told.index(TOO_EARLY) + 1 :]]
    assert any(reason.startswith("left to do") and " -> " in reason for reason in after)


class Taught(ProgramRouter):
    """Calls the first line that a lesson says to take."""

    identity: dict[str, str]
    catalog: Catalog
    left: Spent

    def choose(self, scene: Scene) -> Choice:
        offers = {name: Offer(spec.price, spec.latency.p50) for name, spec in self.catalog.tools.items()}
        done = [Step(self.identity[past.tool], past.content) for past in scene.past]
        good = good_calls(scene.question, offers, self.identity, scene.preferences, done, self.left)
        first = next(spec.name for spec in in_order(self.catalog, scene.preferences) if spec.name in good)
        return Choice(first, "a lesson says so")


async def test_who_takes_the_first_line_that_the_lessons_say_solves_every_task() -> None:
    for index in range(24):
        episode = BENCH.sample(11, index)
        world = BENCH.world(episode.task)
        graph = create_orchestrator(
            Taught(identity=dict(episode.identity), catalog=episode.catalog, left=ALL),
            BENCH.tools(world, catalog=episode.catalog, identity=episode.identity),
            catalog=episode.catalog,
            preferences=episode.preferences,
            fallback=None,
        ).compile()
        result = await graph.ainvoke({"messages": [("user", episode.task.question)]})
        assert await BENCH.verdict(episode.task, result["answer"], world), episode.task.id


def test_lessons_are_of_every_line_of_every_turn_from_which_a_plan_leads_on(runs: list[Trajectory]) -> None:
    for run in runs:
        lessons = list(lessons_of(run))
        assert run.catalog is not None
        asked = Counter(lesson.turn for lesson in lessons)
        open_lines = len(run.catalog.tools) - len(run.preferences.avoid)
        # Once, and where a limit of turns makes another tool the good one, once more.
        assert asked[0] in ((open_lines, 2 * open_lines) if open_lines > 1 else (0,))
        assert {lesson.word for lesson in lessons} <= {TAKE, SKIP}
        assert all(lesson.prompt.startswith(("Task: ", "Task of ")) for lesson in lessons)
    words = Counter(lesson.word for run in runs for lesson in lessons_of(run))
    assert words[SKIP] > words[TAKE] > 0


def test_where_few_turns_are_left_another_tool_is_the_good_one(runs: list[Trajectory]) -> None:
    hurried = 0
    for run in runs:
        here = [lesson for lesson in lessons_of(run) if lesson.turn == 0]
        plain, few = here[: len(here) // 2], here[len(here) // 2 :]
        if not re.search(r"\bturns [123]$", here[-1].prompt, re.MULTILINE) or run.budget.turns <= 3:
            continue
        hurried += 1
        assert [re.sub(r"\nturns \d+", "", lesson.prompt) for lesson in few] == [
            re.sub(r"\nturns \d+", "", lesson.prompt) for lesson in plain
        ]
        assert [lesson.word for lesson in few] != [lesson.word for lesson in plain]
        assert TAKE in {lesson.word for lesson in few}
    assert 0 < hurried < len(runs) / 2


def test_a_run_from_elsewhere_teaches_nothing(runs: list[Trajectory]) -> None:
    asked = runs[0].task.model_copy(update={"question": "Who is who?"})
    assert list(lessons_of(runs[0].model_copy(update={"task": asked}))) == []
    assert list(lessons_of(runs[0].model_copy(update={"catalog": None}))) == []


def test_a_plan_that_the_budget_pays_for_goes_before_a_better_one() -> None:
    question = BENCH.task("arithmetic/train/3/1").question
    offers = {name: Offer(spec.price, spec.latency.p50) for name, spec in BENCH.catalog.tools.items()}
    steps = {len(p.calls): p.calls for p in plans_left(question, offers, {})}
    assert set(steps) == {1, 2}
    free = offers | {name: Offer(Price(), 0.0) for name in steps[2]}
    wish = Preferences(prefer={steps[2][0]: 1.0})
    assert good_calls(question, free, {}, wish, (), ALL) == {steps[2][0]}
    assert steps[2][0] not in good_calls(question, free, {}, wish, (), replace(ALL, turns=1))
    # Where nothing fits, the best plan is still the best.
    assert good_calls(question, offers, {}, wish, (), replace(ALL, turns=1, seconds=0.0)) == {steps[2][0]}


def test_tasks_follow_from_seed_step_and_index_on_every_rung() -> None:
    tasks, again = LadderTasks(), LadderTasks()
    drawn = [tasks(5, step, index) for step in range(2) for index in range(8)]
    assert [task.id for task in drawn] == [again(5, step, index).id for step in range(2) for index in range(8)]
    assert len({task.id for task in drawn}) == len(drawn)
    fixed = [task for place, task in enumerate(drawn) if place % len(LADDER) == 0]
    assert all(task.catalog is not None and set(task.catalog.tools) == set(BENCH.catalog.tools) for task in fixed)


def test_half_of_the_tasks_to_explore_are_for_users_who_prefer_a_tool() -> None:
    tasks, again, plain = PreferringTasks(), PreferringTasks(), LadderTasks()
    preferred = set()
    for index in range(16):
        task, other = tasks(3, 1, index), plain(3, 1, index)
        assert task.preferences == again(3, 1, index).preferences
        assert replace(task, preferences=other.preferences, open=other.open) == other
        if index % 8 < 4:
            assert task.catalog is not None
            (tool,) = task.preferences.prefer
            assert in_order(task.catalog, task.preferences)[0].name == tool, "it is the first to be asked about"
            preferred.add(task.labels[tool])
        else:
            assert task.preferences == other.preferences
    assert len(preferred) > 3


def test_some_budgets_bind_and_others_are_free() -> None:
    budgets = [draw_budget(Random(n), BENCH.catalog) for n in range(400)]
    free = sum(budget.turns == 50 and budget.dollars == budget.seconds == float("inf") for budget in budgets)
    assert 0.35 < free / len(budgets) < 0.75
    assert any(budget.turns == 1 for budget in budgets)
    assert min(budget.dollars for budget in budgets) < 0.001


def test_demonstrations_are_not_logged_twice(log: Path) -> None:
    held = log.read_bytes()
    with pytest.raises(typer.BadParameter, match="is there already; fix: remove it, or name another"):
        demonstrate_main(log, runs=1)
    assert log.read_bytes() == held


@pytest.mark.slow
def test_lessons_say_take_and_skip_behind_what_the_router_reads(
    log: Path, runs: list[Trajectory], tmp_path: Path
) -> None:
    from datasets import load_dataset  # noqa: PLC0415  (seconds)
    from orchestra_training.tiny.prepare import main  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    main(log, tmp_path, seeds=2)
    tokenizer = Tokenizer.from_file(str(tmp_path / "base-0" / "tokenizer.json"))
    rows: Any = load_dataset("parquet", data_dir=str(tmp_path / "lessons"), split="train", cache_dir=str(tmp_path))
    said = [tokenizer.decode([row["input_ids"][-1]]) for row in rows]
    assert set(said) == {TAKE, SKIP}
    for row in rows:
        assert row["labels"] == [-100] * (len(row["input_ids"]) - 1) + row["input_ids"][-1:]
        text = tokenizer.decode(row["input_ids"], skip_special_tokens=False)
        assert text.startswith(("Task: ", "Task of "))
        assert text.endswith(("<|choose|>take", "<|choose|>skip"))
    counts = Counter(said)
    told = json.loads((tmp_path / "prepared.json").read_text())
    assert told == {"runs": len(runs), "lessons": len(rows), "take": counts[TAKE]}
    weights = [(tmp_path / f"base-{seed}" / "model.safetensors").read_bytes() for seed in range(2)]
    assert weights[0] != weights[1]


@pytest.mark.slow
def test_a_router_is_published_with_a_card_of_its_own_figures(tmp_path: Path) -> None:
    from orchestra_training.tiny.publish import main  # noqa: PLC0415

    from orchestra_graph.routers.bundled import WORDS, tiny_folder, tiny_router  # noqa: PLC0415
    from orchestra_graph.routers.local import LocalRouter  # noqa: PLC0415

    stage = tmp_path / "my-sft"
    stage.mkdir()
    history = [{"loss": 6.0}, {"loss": 0.25}, {"train_loss": 1.0, "train_runtime": 3.0}]
    (stage / "trainer_state.json").write_text(
        json.dumps({"global_step": 1234, "epoch": 1.9744, "log_history": history})
    )
    bounded = {"value": 0.91, "low": 0.9, "high": 0.92}
    names = ("success", "utility", "dollars", "seconds", "turns", "priciest_share", "malformed_share")
    members = [dict.fromkeys(names, share) for share in (0.93, 0.89)]
    mute = {**dict.fromkeys(names, bounded), "priciest_share": {"value": None, "low": None, "high": None}}
    figures = {
        "units": 77,
        "routers": {"tiny": {**dict.fromkeys(names, bounded), "members": members}, "mute": {**mute, "members": []}},
        "pairs": {"tiny": {"rules": {"utility": {"difference": bounded}}}},
    }
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(json.dumps({"reference": {"policy": "rules"}, "conditions": {"unseen": figures}}))
    (tmp_path / "base-0").mkdir()
    (tmp_path / "base-0" / WORDS).write_text("word\n")
    (tmp_path / "prepared.json").write_text(json.dumps({"runs": 2000, "lessons": 40_000, "take": 10_000}))
    main(tiny_folder(), evaluation=[evaluation], stage=[stage], prepared=tmp_path, member=0, to=tmp_path / "other")
    assert "| tiny (shipped) | 0.930 | 0.930 |" in (tmp_path / "other" / "README.md").read_text()
    main(tiny_folder(), evaluation=[evaluation], stage=[stage], prepared=tmp_path, member=1, to=tmp_path / "published")
    card = (tmp_path / "published" / "README.md").read_text()
    assert "- demonstrations: 2,000 runs, which gave 40,000 lessons, 25% of them `take`\n" in card
    assert "- `my-sft`: 1,234 steps, 78,976 lessons read, loss 6 -> 0.25\n" in card
    assert "### unseen, 77 tasks" in card
    assert "| tiny | 0.910 [0.900, 0.920] |" in card
    assert "| mute | 0.910 [0.900, 0.920] | 0.910 [0.900, 0.920] | 0.91000 | 0.9 | 0.9 | - | 91.0% |" in card
    assert "with three training seeds; measured here: 2." in card
    assert "| tiny (shipped) | 0.890 | 0.890 |" in card
    assert "| unseen | utility, less that of rules | 0.91 [0.9, 0.92] | above 0 | passed |" in card
    assert LocalRouter.from_folder(tmp_path / "published").chat_template == tiny_router().chat_template
