"""Rollouts decided by a real vLLM, and the step that the trainer makes of them with the server's logprobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestra_training.datasets.build import build
from orchestra_training.datasets.source import logs_of
from orchestra_training.harvest.fidelity import fidelity
from orchestra_training.trainers.recipe import read_recipe

from orchestra_graph.runlog.read import read_runs
from tests.integration.serving import Served
from tests.training.test_train_policy import distance, gradient

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

CLOSE = 1e-3
"""Relative L2 distance of the step with the server's logprobs from the one with the trainer's own."""
EXACT = 1e-5

RECIPE = """# orchestra train {kind} --recipe {kind}.toml
kind = "{kind}"
output = "{folder}/{kind}"
model = {{ path = "{model}", dtype = "float32" }}
{parts}

[trainer]
max_steps = 1
report_to = "none"
activation_checkpointing = false
"""
PARTS = {
    "grpo": """tasks = {{ source = "tests.integration.parity:Parity" }}

[rollout]
tasks = 4
size = 4
protocol = "tests.integration.parity:AnyReply"
max_tokens = 24
base_url = "{url}"
model = "tiny"
log = "{folder}/runs.jsonl"
""",
    "replay": """data = {{ path = "{folder}/data" }}
rollout = {{ tasks = 4 }}
""",
}


def recipe(folder: Path, served: Served, kind: str) -> Any:
    path = folder / f"{kind}.toml"
    parts = PARTS[kind].format(folder=folder, url=served.base_url)
    path.write_text(RECIPE.format(kind=kind, folder=folder, model=served.model, parts=parts))
    return read_recipe(path)


def test_the_logprobs_of_the_server_give_the_step_of_the_trainer(served: Served, tmp_path: Path) -> None:
    from orchestra_training.trainers import grpo, replay  # noqa: PLC0415  (import torch)

    online = grpo.train(recipe(tmp_path, served, "grpo"))
    step = gradient(online)
    assert step.norm() > 0
    runs = list(read_runs(tmp_path / "runs.jsonl"))
    assert len(runs) == 16
    assert {fidelity(run).fidelity for run in runs} == {"exact"}
    assert all(run.verdict is not None for run in runs)

    own = grpo.train(recipe(tmp_path, served, "grpo"))
    own.uses_stored_logprobs = False
    passes = (online._parts or [[]])[0]
    own._parts = [[{name: tensor for name, tensor in one.items() if "old" not in name} for one in passes]]
    own.state.global_step, own.num_iterations = 1, 2  # in the middle of a batch: it draws nothing
    assert distance(step, gradient(own)) <= CLOSE

    build("replay", logs_of(tmp_path / "runs.jsonl"), tmp_path / "data")
    assert distance(gradient(replay.train(recipe(tmp_path, served, "replay"))), step) <= EXACT
