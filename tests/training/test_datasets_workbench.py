"""Workbench runs, harvested, as data sets for a model that has not seen them: every figure against the log itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.datasets.build import Options, build
from orchestra_training.datasets.source import logs_of
from orchestra_training.datasets.write import Kind, read
from orchestra_training.harvest.gather import harvest
from orchestra_training.harvest.logs import LogSource
from orchestra_training.render import Renderer

from orchestra_graph import Cheapest, Random, RunLog
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.serving.random_weights import TEMPLATE
from orchestra_graph.workbench import Oracle, Workbench
from orchestra_graph.workbench.trial import try_router
from tests.training.test_render import TOKENIZER, tokenizer_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three routers did on the same tasks, harvested."""
    folder = tmp_path_factory.mktemp("workbench")
    log, bench = RunLog(folder / "runs.jsonl"), Workbench()
    tasks = bench.tasks("train", 20)
    for router in (Oracle(), Cheapest(), Random(seed=1)):
        asyncio.run(try_router(bench, router, tasks, run_log=log))
    harvest([LogSource(log.path)], folder / "data", test_share=0.25)
    return folder / "data"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    tokenizer = tokenizer_of(TOKENIZER, TEMPLATE.read_text(encoding="utf-8"), eos_token="<|im_end|>")
    return Renderer(tokenizer, ConversationProtocol(), name="chat")


@pytest.fixture(scope="module")
def runs(data: Path) -> dict[str, Trajectory]:
    return {run.run_id: run for run in logs_of(data, "train")}


def built(data: Path, kind: Kind, renderer: Renderer, to: Path, **options: Any) -> list[dict[str, Any]]:
    facts = build(kind, logs_of(data, "train"), to / kind, renderer=renderer, options=Options(**options))
    assert sum(facts["origins"].values()) == (0 if kind == "grpo" else facts["chosen"]["kept"])
    return list(read(to / kind / facts["file"]))


def outcome(run: Trajectory) -> float:
    assert run.verdict is not None and run.verdict.outcome is not None
    return run.verdict.outcome


def dollars(run: Trajectory) -> float:
    assert run.totals is not None
    return run.totals["dollars"]


def test_lessons_are_the_best_solution_of_each_task(
    data: Path, runs: dict[str, Trajectory], renderer: Renderer, tmp_path: Path
) -> None:
    rows = built(data, "sft", renderer, tmp_path)
    solved: dict[str | None, list[Trajectory]] = {}
    for run in runs.values():
        if outcome(run):
            solved.setdefault(run.task.id, []).append(run)
    taught = [runs[row["run_id"]] for row in rows]
    assert {run.task.id for run in taught} == set(solved) and len(taught) == len(solved) > 10
    for row, run in zip(rows, taught, strict=True):
        assert outcome(run) == 1
        text = renderer.decode([label for label in row["labels"] if label >= 0])
        assert text.count("<tool_call>") == text.count("<|im_end|>") == len(row["turns"])
    dearer = sum(dollars(run) > min(map(dollars, solved[run.task.id])) * 1.01 for run in taught)
    assert dearer <= len(taught) / 4, "cost weighs more than latency by default"


def test_pairs_part_after_what_both_runs_read(
    data: Path, runs: dict[str, Trajectory], renderer: Renderer, tmp_path: Path
) -> None:
    pairs = built(data, "dpo", renderer, tmp_path)
    assert len(pairs) > 5
    for pair in pairs:
        better, worse = runs[pair["chosen_run"]], runs[pair["rejected_run"]]
        assert better.task == worse.task and pair["chosen_reward"] >= pair["rejected_reward"] + 0.1
        read_by = [
            {tuple(capture.prompt_token_ids): capture.token_ids for capture in renderer.render(run).captures.values()}
            for run in (better, worse)
        ]
        assert [found[tuple(pair["prompt_ids"])] for found in read_by] == [pair["chosen_ids"], pair["rejected_ids"]]
        assert pair["chosen_ids"] != pair["rejected_ids"]


def test_replies_are_as_good_as_their_runs(
    data: Path, runs: dict[str, Trajectory], renderer: Renderer, tmp_path: Path
) -> None:
    rows = built(data, "kto", renderer, tmp_path)
    assert {row["label"] for row in rows} == {True, False}
    assert all(row["label"] == bool(outcome(runs[row["run_id"]])) for row in rows)


def test_no_task_that_tests_is_among_those_to_train_on(data: Path, renderer: Renderer, tmp_path: Path) -> None:
    rows = built(data, "grpo", renderer, tmp_path)
    tested = {run.task.question for run in logs_of(data, "test")}
    assert tested and not tested & {row["question"] for row in rows}
    assert len(rows) == 20 - len(tested) and all(row["runs"] == row["judged"] == 3 for row in rows)
