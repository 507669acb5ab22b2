"""The policy gradient step: online against replay and against TRL, and training that is killed and goes on."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.batch import Batch, make_batch, make_best, make_explored
from orchestra_training.datasets.build import build
from orchestra_training.datasets.source import logs_of
from orchestra_training.datasets.write import Kind
from orchestra_training.filters import FilterReport
from orchestra_training.groups import collect
from orchestra_training.rows import rows_of
from orchestra_training.trainers.recipe import StopTable, read_recipe

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from tests.training.coin import make_coin

pytestmark = pytest.mark.slow

START = "from orchestra_graph.cli import main; main()"
KINDS: tuple[Kind, ...] = ("sft", "dpo", "kto", "replay")
MANY = ["rollout.tasks=5", "rollout.size=6"]
EXACT = 1e-5
"""Relative L2 distance of gradients that count as equal."""
ROUNDING = 1e-6
"""Of all weights of a coin together, in single precision."""

RECIPE = """# orchestra train {kind} --recipe {kind}.toml
kind = "{kind}"
output = "{output}"
seed = 3
model = {{ path = "{model}", dtype = "float32" }}
{parts}

[trainer]
max_steps = 2
save_steps = 1
learning_rate = 1e-3
report_to = "none"
activation_checkpointing = false
disable_tqdm = true
"""

ROLLED = """tasks = {{ options = {{ budget = {{ turns = 3 }} }} }}
rollout = {{ tasks = 3, size = 4, protocol = "scan", max_tokens = 1, log = "{log}" }}"""
LOGGED = 'data = {{ path = "{data}" }}'
PARTS = {
    "sft": LOGGED,
    "dpo": LOGGED,
    "kto": LOGGED,
    "replay": LOGGED + "\nrollout = {{ tasks = 5 }}",
    "rejection": ROLLED,
    "explore": ROLLED.replace("size = 4", "size = 2, explorers = 2"),
    "grpo": ROLLED + "\nreward = {{ floor = 0.01 }}",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coin")
    make_coin(folder)
    return folder


def written(folder: Path, model: Path, kind: str, **places: Path) -> Path:
    path = folder / f"{kind}.toml"
    names = {"output": folder / kind, "log": folder / "runs.jsonl", "data": folder / f"{kind}-data", **places}
    path.write_text(RECIPE.format(kind=kind, model=model, output=names["output"], parts=PARTS[kind].format(**names)))
    return path


def gradient(trainer: Any) -> Any:
    """The gradient of the first step."""
    import torch  # noqa: PLC0415

    trainer.training_step(trainer.model, None)
    grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    return torch.cat(grads) if grads else torch.zeros(1)


def first_step(train: Any, folder: Path, model: Path, kind: str) -> tuple[Path, Any, Any]:
    """A trainer in a folder of its own, and the gradient of its first step.

    What a coin says depends on which rollouts meet in a batch. Rows that cancel each other out prove nothing: then
    another seed is taken.
    """
    for seed in range(3, 13):
        place = folder / str(seed)
        place.mkdir()
        trainer = train(read_recipe(written(place, model, kind), changes=[*MANY, f"seed={seed}"]))
        found = gradient(trainer)
        if found.norm() > 0.3:
            return place, trainer, found
    raise AssertionError("ten batches of rollouts taught nothing")


def distance(one: Any, other: Any) -> float:
    return float((one - other).norm() / other.norm())


def test_a_vllm_that_the_trainer_lacks_is_named_before_anything_is_loaded(tmp_path: Path, model: Path) -> None:
    from orchestra_training.trainers.grpo import train  # noqa: PLC0415

    recipe = read_recipe(written(tmp_path, model, "grpo"), changes=["trainer.use_vllm=true"])
    with pytest.raises(MissingError, match=r"vllm beside the trainer is missing; fix: .*\[serve,train\]"):
        train(recipe)


def test_grpo_trains_and_tells(tmp_path: Path, model: Path) -> None:
    from orchestra_training.trainers.run import run  # noqa: PLC0415

    done = run(read_recipe(written(tmp_path, model, "grpo"), kind="grpo"))
    assert done.steps == 2
    for name in ("reward", "reward/cost", "success", "dollars", "malformed", "filtered/groups"):
        assert name in done.figures, name
    for part in ("generation", "tools", "reward", "update"):
        assert done.figures[f"seconds/{part}"] >= 0, part
    assert moved(model, done.model) > 0
    runs = list(read_runs(tmp_path / "runs.jsonl"))
    assert [run.policy and run.policy.step for run in runs] == [0] * 12 + [1] * 12
    assert all(run.verdict is not None and run.captures for run in runs)
    told = {(run.policy and run.policy.name, run.tokenizer) for run in runs}
    assert told == {("grpo", str(model))}, "trainings of one model share its tokenizer, and a data set"


def test_rollouts_are_sampled_and_trained_at_the_temperature_of_the_recipe(tmp_path: Path, model: Path) -> None:
    import torch  # noqa: PLC0415
    from orchestra_training.trainers.grpo import train  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    trainer = train(read_recipe(written(tmp_path, model, "grpo"), changes=["rollout.temperature=0.5"]))
    gradient(trainer)
    assert trainer.temperature == 0.5
    plain = AutoModelForCausalLM.from_pretrained(model)
    rows = [row for run in read_runs(tmp_path / "runs.jsonl") for row in rows_of(run)]
    assert len(rows) > 12
    for row in rows:
        scores = torch.log_softmax(plain(torch.tensor([row.prompt_ids])).logits[0, -1] / 0.5, dim=-1)
        assert row.logprobs is not None
        assert row.logprobs[0] == pytest.approx(scores[row.completion_ids[0]].item(), abs=1e-4)


def test_rollouts_are_sampled_without_dropout(tmp_path: Path, model: Path) -> None:
    import torch  # noqa: PLC0415
    from orchestra_training.trainers.grpo import train  # noqa: PLC0415

    trainer = train(read_recipe(written(tmp_path, model, "grpo")))
    policy = trainer.model
    head = policy.lm_head
    policy.lm_head = torch.nn.Sequential(torch.nn.Dropout(0.5), head)
    trainer.training_step(policy, None)
    assert policy.training
    policy.lm_head = head
    captures = [capture for run in read_runs(tmp_path / "runs.jsonl") for capture in run.captures.values()]
    for capture in captures[:8]:
        with torch.no_grad():
            scores = torch.log_softmax(policy(torch.tensor([capture.prompt_token_ids])).logits[0, -1], dim=-1)
        assert capture.logprobs == pytest.approx([float(scores[token]) for token in capture.token_ids], abs=1e-4)


def test_groups_of_a_training_that_was_started_again_are_groups_of_their_own(tmp_path: Path, model: Path) -> None:
    """Steps behind the last checkpoint are rolled out again, by other weights of the same step."""
    from orchestra_training.trainers.grpo import train  # noqa: PLC0415

    recipe = read_recipe(written(tmp_path, model, "grpo"))
    for _ in range(2):
        train(recipe)._draw(0)
    runs = list(read_runs(tmp_path / "runs.jsonl"))
    assert [len(group.run_ids) for group in collect(runs, FilterReport())] == [4] * 6
    assert len(steps_logged(tmp_path / "runs.jsonl")) == 3, "the tasks are the same"


@dataclass(frozen=True)
class Step:
    """A step of online GRPO on the first batch, and the log of its rollouts."""

    folder: Path
    gradient: Any
    passes: list[dict[str, Any]]


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Step:
    from orchestra_training.trainers import grpo  # noqa: PLC0415

    folder, trainer, found = first_step(grpo.train, tmp_path_factory.mktemp("online"), model, "grpo")
    assert trainer._parts is not None
    for kind in KINDS:
        build(kind, logs_of(folder / "runs.jsonl"), folder / f"{kind}-data")
    return Step(folder, found, trainer._parts[0])


def replayed(online: Step, model: Path, *changes: str) -> Any:
    from orchestra_training.trainers import replay  # noqa: PLC0415

    return replay.train(read_recipe(written(online.folder, model, "replay"), changes=changes))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # TRL's DPO and KTO
@pytest.mark.parametrize("kind", KINDS)
def test_a_log_trains_by_every_kind(online: Step, model: Path, kind: Kind) -> None:
    from orchestra_training.trainers.run import run  # noqa: PLC0415

    done = run(read_recipe(written(online.folder, model, kind)))
    assert done.steps == 2
    assert moved(model, done.model) > 0


@pytest.mark.parametrize(("kind", "make"), [("rejection", make_best), ("explore", make_explored)])
def test_better_runs_and_words_are_imitated(
    kind: str, make: Callable[[Sequence[Trajectory]], Batch], tmp_path: Path, model: Path
) -> None:
    """The gradient is that of the mean negative log likelihood of what is better, by its weight."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    train = import_module(f"orchestra_training.trainers.{kind}").train
    place, _, found = first_step(train, tmp_path, model, kind)
    best = make(list(read_runs(place / "runs.jsonl")))
    assert 0 < best.trajectories <= 5
    plain = AutoModelForCausalLM.from_pretrained(model)
    for weighed in best.rows:
        ids = torch.tensor([weighed.row.prompt_ids + weighed.row.completion_ids])
        scores = torch.log_softmax(plain(ids).logits[0, -2], dim=-1)
        (-weighed.weight * scores[ids[0, -1]] / best.trajectories).backward()
    assert distance(found, torch.cat([p.grad.flatten() for p in plain.parameters()])) <= EXACT


def test_replay_gives_the_gradient_of_the_online_step(online: Step, model: Path) -> None:
    assert distance(gradient(replayed(online, model)), online.gradient) <= EXACT


def test_stored_logprobs_are_those_of_the_trainer(online: Step, model: Path) -> None:
    trainer = replayed(online, model)
    without = [{name: value for name, value in one.items() if "old" not in name} for one in online.passes]
    trainer._parts, trainer.state.global_step, trainer.num_iterations = [without], 1, 2  # in the middle of a batch
    assert distance(gradient(trainer), online.gradient) <= EXACT


def test_passes_add_up(online: Step, model: Path) -> None:
    longest = max(one["prompt_ids"].shape[1] + one["completion_ids"].shape[1] for one in online.passes)
    cut = replayed(online, model, f"tokens_per_pass={2 * longest}")
    assert distance(gradient(cut), online.gradient) <= EXACT
    assert len(cut._parts[0]) > len(online.passes)
    assert all(one["prompt_ids"].numel() + one["completion_ids"].numel() <= 2 * longest for one in cut._parts[0])


def test_rows_alike_may_be_computed_apart(online: Step, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestra_training.trainers import policy  # noqa: PLC0415

    monkeypatch.setattr(policy, "merged", lambda rows: rows)
    apart = replayed(online, model)
    assert distance(gradient(apart), online.gradient) <= EXACT
    rows = [sum(len(one["advantages"]) for one in passes) for passes in (apart._parts[0], online.passes)]
    assert rows[1] < rows[0]


def test_minibatches_add_up(online: Step, model: Path) -> None:
    """Each is an equal share of the rows, and stands for the whole batch."""
    from orchestra_training.trainers import grpo  # noqa: PLC0415

    changes = [*MANY, "minibatches=3", "trainer.max_steps=6", "trainer.save_steps=6", "trainer.num_iterations=2"]
    trainer = grpo.train(read_recipe(written(online.folder, model, "grpo"), changes=changes))
    batch = make_batch(list(read_runs(online.folder / "runs.jsonl")), floor=0.01)
    drawn: list[int] = []

    def draw(number: int) -> tuple[Batch, dict[str, float]]:
        drawn.append(number)
        return batch, {}

    trainer._draw = draw
    for steps in (1, 2):  # all of the batch is used twice
        for _ in range(3):
            found = gradient(trainer)  # adds to that of the steps before
            trainer.state.global_step += 1
        assert distance(found / 3, steps * online.gradient) <= EXACT
    assert drawn == [0]
    assert trainer._parts is not None
    shares = [sum(len(one["advantages"]) for one in part) for part in trainer._parts]
    assert max(shares) - min(shares) <= 1 < min(shares)
    gradient(trainer)
    assert drawn == [0, 1]


def test_more_passes_than_trajectories_add_up(online: Step, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestra_training.trainers import policy  # noqa: PLC0415
    from orchestra_training.trainers.data import read_data  # noqa: PLC0415
    from orchestra_training.trainers.replay import COLUMNS  # noqa: PLC0415

    monkeypatch.setattr(policy, "merged", lambda rows: rows)
    cut = replayed(online, model, "tokens_per_pass=1")
    assert distance(gradient(cut), online.gradient) <= EXACT
    runs = read_data(read_recipe(written(online.folder, model, "replay")), COLUMNS)["run_id"]
    assert len(cut._parts[0]) == len(runs) > len(set(runs))


def test_two_processes_learn_what_one_learns(online: Step, model: Path) -> None:
    """Each computes a share of the trajectories, in passes with other numbers of rows than the other's."""
    alone, together = (trained_by(count, online.folder, model) for count in (1, 2))
    assert moved(alone, together) <= 1e-4 * moved(model, alone)


def trained_by(count: int, folder: Path, model: Path) -> Path:
    """The model after a step of replay against its gradient, in so many processes."""
    step = ["optim=sgd", "learning_rate=1.0", "lr_scheduler_type=constant", "max_grad_norm=0", "max_steps=1"]
    sets = ["tokens_per_pass=2000", f"output={folder / f'by-{count}'}", "trainer.use_cpu=true"]
    command = [sys.executable, "-c", START, "train", "replay", "--recipe", str(written(folder, model, "replay"))]
    for option in [*sets, *(f"trainer.{one}" for one in step)]:
        command += ["--set", option]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * count, errors
    return folder / f"by-{count}" / "model"


def test_scores_of_completions_are_those_of_trl(online: Step, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestra_training.trainers import models  # noqa: PLC0415

    monkeypatch.setattr(models, "SMALL", 0)
    assert distance(gradient(replayed(online, model)), online.gradient) <= EXACT


def test_lessons_are_learnt_as_trl_does(online: Step, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights after two steps, and the same share of tokens that were right."""
    from orchestra_training.trainers import models  # noqa: PLC0415
    from orchestra_training.trainers.run import run  # noqa: PLC0415

    def trained(name: str) -> Any:
        # Adam steps by the sign of a gradient, which rounding decides where it is nearly 0.
        plain = ["trainer.optim=sgd", "trainer.learning_rate=0.1", "trainer.gradient_accumulation_steps=2"]
        recipe = written(online.folder, model, "sft")
        return run(read_recipe(recipe, changes=[f"output={online.folder / name}", *plain]))

    ours = trained("sft-ours")
    monkeypatch.setattr(models, "SMALL", 0)
    theirs = trained("sft-trl")
    assert "entropy" in theirs.figures
    assert "entropy" not in ours.figures, "TRL's own loss was computed"
    assert moved(ours.model, theirs.model) < max(1e-3 * moved(model, theirs.model), ROUNDING)
    for name in ("loss", "grad_norm", "mean_token_accuracy"):
        assert ours.figures[name] == pytest.approx(theirs.figures[name], rel=1e-4), name


@pytest.mark.parametrize(("shares", "stops"), [([0.9, 0.9, 0.9], True), ([0.9, 0.5, 0.9], False), ([1.0, 1.0], False)])
def test_training_stops_when_most_groups_teach_nothing(shares: list[float], stops: bool) -> None:
    from orchestra_training.trainers.grpo import StopWhenFiltered  # noqa: PLC0415  (imports torch)
    from transformers import TrainerControl, TrainerState  # noqa: PLC0415

    state = TrainerState(log_history=[{"loss": 0.0}, *({"filtered/groups": share} for share in shares)])
    control = TrainerControl()
    StopWhenFiltered(StopTable(filtered=0.8, window=3)).on_log(None, state, control)
    assert control.should_training_stop == stops


def test_killed_and_resumed_it_draws_the_same_tasks(tmp_path: Path, model: Path) -> None:
    from orchestra_training.trainers.run import run  # noqa: PLC0415

    recipes = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        recipes[name] = written(tmp_path / name, model, "grpo")
    four = ["trainer.max_steps=4"]
    command = [sys.executable, "-c", START, "train", "grpo", "--recipe", str(recipes["killed"]), "--set", four[0]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        checkpoint = tmp_path / "killed" / "grpo" / "checkpoint-2" / "trainer_state.json"
        deadline = time.monotonic() + 100
        while not checkpoint.exists() and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert checkpoint.exists()
    with pytest.raises(ConfigError, match="--resume"):
        run(read_recipe(recipes["killed"], changes=four))
    whole = run(read_recipe(recipes["whole"], changes=four))
    resumed = run(read_recipe(recipes["killed"], changes=four), resume=True)
    assert (resumed.steps, resumed.figures["learning_rate"]) == (whole.steps, whole.figures["learning_rate"])
    drawn = [steps_logged(tmp_path / name / "runs.jsonl") for name in ("whole", "killed")]
    assert {step for step, _ in drawn[0]} == {0, 1, 2, 3}
    assert drawn[0] == drawn[1]
    assert 0.5 < moved(model, resumed.model) / moved(model, whole.model) < 2


def steps_logged(log: Path) -> set[tuple[int, str]]:
    """Step and question of each rollout."""
    return {(run.seeds["step"], run.task.question) for run in read_runs(log)}


def moved(before: Path, after: Path) -> float:
    """Distance between the weights of two models."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (before, after)]
    pairs = zip(*(model.parameters() for model in models), strict=True)
    return math.sqrt(sum(float((p - q).detach().square().sum()) for p, q in pairs))


def test_a_group_that_a_lap_ends_and_the_next_begins_with_counts_twice() -> None:
    from orchestra_training.trainers.replay import Replay  # noqa: PLC0415  (imports torch)

    rows = [
        {
            **{"prompt_ids": [1], "completion_ids": [2], "mask": [1], "logprobs": [-0.5], "turns": ["t"]},
            **{"group": f"g{n // 2}", "run_id": f"r{n}", "reward": 1.0, "advantage": 1.0, "policy_tokens": 1},
        }
        for n in range(6)
    ]
    draw = Replay(Rows(rows), tasks=2, seed=0)
    batches = [draw(number)[0] for number in range(30)]
    assert {(batch.trajectories, len(batch.rows)) for batch in batches} == {(4, 4)}
    assert any(len({one.row.run_id for one in batch.rows}) == 2 for batch in batches)


class Rows(list[dict[str, Any]]):
    """A data set, as far as `Replay` reads it."""

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)
