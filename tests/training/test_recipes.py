"""Each recipe that ships is whole: a dry run builds everything but the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestra_training.reward import Measures, proportional
from orchestra_training.trainers.recipe import RECIPES, RewardTable, find_recipe, read_recipe
from typer.testing import CliRunner

from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences
from orchestra_graph.serving import random_weights
from tests.commands import Orchestra, complaint
from tests.commands import orchestra as orchestra
from tests.training.coin import make_coin

ROOT = Path(__file__).parents[2]
PATHS = sorted(RECIPES.glob("*.toml"))
TOKENIZER = ROOT / "tests" / "data" / "tokenizer" / "tokenizer.json"

# TRL asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ROW: dict[str, Any] = {
    "input_ids": [5, 6, 7],
    "labels": [-100, -100, 7],
    "prompt_ids": [5, 6],
    "completion_ids": [7],
    "chosen_ids": [7],
    "rejected_ids": [8],
    "label": True,
    "mask": [1],
    "logprobs": [-0.5],
    "advantage": 1.0,
    "policy_tokens": 1,
    "reward": 1.0,
    "run_id": "r",
    "group": "g",
    "turns": ["t"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configurations and tokenizers: of Qwen3-8B's shape, and of a tiny router."""
    folder = tmp_path_factory.mktemp("models")
    random_weights.make(folder / "8b", TOKENIZER, shape="8b")
    make_coin(folder / "coin")
    return {"qwen3": folder / "8b", "tiny": folder / "coin"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datasets import Dataset  # noqa: PLC0415  (takes seconds)

    folder = tmp_path_factory.mktemp("data")
    Dataset.from_list([ROW] * 8).to_parquet(folder / "train.parquet")
    return folder


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_command(path: Path) -> None:
    kind = read_recipe(path).kind
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# orchestra train {kind} --recipe {path.stem}"
    assert find_recipe(path.stem) == find_recipe(str(path)) == path


def test_a_recipe_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"tiny_stf: no such file.* qwen3_8b_sft, .*, tiny_sft$"):
        find_recipe("tiny_stf")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_dry_run_builds_everything_but_the_weights(
    path: Path, models: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestra_training.trainers.dry_run import dry_run  # noqa: PLC0415  (imports torch)

    monkeypatch.chdir(tmp_path)
    changes = [f"model.path={models[path.stem.partition('_')[0]]}", "trainer.report_to=none"]
    recipe = read_recipe(path)
    if recipe.data is not None:
        changes.append(f"data.path={data}")
    told = "\n".join(dry_run(read_recipe(path, changes=changes)))
    assert "parameters" in told
    if path.stem.startswith("qwen3"):
        assert "8,190,735,360" in told or ("trained" in told and recipe.lora is not None)
    if recipe.rollout.explorers:
        assert f" x {recipe.rollout.size} and {recipe.rollout.explorers} explorers a batch" in told
    if recipe.accelerate:
        assert f"accelerate: {recipe.accelerate['num_processes']} processes" in told
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "trainer.learning_rat=1",
            'line 25: trainer.learning_rat: no field of TRL.s GRPOConfig; did you mean "learning_r',
        ),
        ("trainer.beta=0.1", "trainer.beta: set by the grpo trainer itself"),
        ("trainer.max_steps=0", "trainer.max_steps = 0; expected the number of steps"),
        ("trainer.num_iterations=4", "trainer.save_steps = 10; expected a multiple of num_iterations = 4"),
        ("trainer.use_vllm=false", "rollout.base_url without trainer.use_vllm = true"),
        ("rollout.protocol=nothing:Here", "No module named 'nothing'"),
        ("accelerate.fsdp=3", "accelerate: "),
        ("trainer.vllm_mode=colocate", 'trainer.vllm_mode = "colocate"; rollout.base_url names the server'),
    ],
)
def test_what_does_not_fit_is_told(change: str, told: str, models: dict[str, Path], tmp_path: Path) -> None:
    from orchestra_training.trainers.dry_run import dry_run  # noqa: PLC0415  (imports torch)

    path = find_recipe("qwen3_8b_8gpu")
    changes = [f"model.path={models['qwen3']}", "trainer.report_to=none", f"output={tmp_path}", change]
    with pytest.raises(ConfigError, match=told):
        list(dry_run(read_recipe(path, changes=changes)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_8b_8gpu", "qwen3_8b_rejection"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("use_vllm=false", r"rollout\.base_url without trainer\.use_vllm = true"),
        ("vllm_mode=colocate", r'trainer\.vllm_mode = "colocate"; rollout\.base_url names the server'),
    ],
)
def test_a_server_that_would_not_get_the_weights_is_refused_before_anything_is_loaded(
    name: str, change: str, told: str, tmp_path: Path
) -> None:
    from orchestra_training.trainers.run import run  # noqa: PLC0415  (imports torch)

    server = "rollout.base_url=http://localhost:1/v1"
    changes = [f"output={tmp_path}", f"model.path={tmp_path / 'none'}", server, f"trainer.{change}"]
    with pytest.raises(ConfigError, match=told):
        run(read_recipe(find_recipe(name), changes=changes))


def test_a_dry_run_resumes_nothing(orchestra: Orchestra) -> None:
    done = orchestra("train", "grpo", "--recipe", "qwen3_8b_1gpu", "--dry-run", "--resume")
    assert done.code == 2 and "--resume beside --dry-run, which trains nothing" in complaint(done.err)


@pytest.mark.slow
def test_the_command_tells_what_a_training_would_be(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestra_graph.cli import app  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    changes = ["--set", f"model.path={models['qwen3']}", "--set", "trainer.report_to=none"]
    done = CliRunner().invoke(app, ["train", "grpo", "--recipe", "qwen3_8b_1gpu", "--dry-run", *changes])
    assert done.exit_code == 0, done.output
    assert f"recipe: {find_recipe('qwen3_8b_1gpu')}" in done.stdout
    assert "rollouts: 8 tasks x 8 a batch, protocol conversation" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_server_that_is_asked_is_given_the_weights() -> None:
    from orchestra_training.trainers.grpo import policy_config  # noqa: PLC0415  (imports torch)

    def config(*changes: str) -> Any:
        recipe = read_recipe(find_recipe("qwen3_8b_16gpu"), changes=["rollout.base_url=http://first:8000/v1", *changes])
        return policy_config(recipe, weights=False)

    assert config().vllm_server_base_url == "http://first:8000"
    with pytest.raises(ConfigError, match=r"trainer\.vllm_server_base_url: set by the grpo trainer itself"):
        config("trainer.vllm_server_base_url=http://second:8000")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        *((f"{name}=1", rf"trainer\.{name}: set by the grpo trainer itself") for name in ("top_p", "top_k", "min_p")),
        ("repetition_penalty=1.3", r"trainer\.repetition_penalty: set by the grpo trainer itself"),
        ("generation_kwargs={top_p = 0.5}", r"trainer\.generation_kwargs: set by the grpo trainer itself"),
        (
            "vllm_structured_outputs_regex=yes",
            r"trainer\.vllm_structured_outputs_regex: set by the grpo trainer itself",
        ),
        ("scale_rewards=none", r"trainer\.scale_rewards: .* leave it out; .* in \[reward\], as scale"),
        ("mask_truncated_completions=true", r"trainer\.mask_truncated_completions: TRL's scoring is not used"),
    ],
)
def test_neither_bent_sampling_nor_what_would_do_nothing_is_taken(change: str, told: str) -> None:
    from orchestra_training.trainers.grpo import policy_config  # noqa: PLC0415  (imports torch)

    recipe = read_recipe(find_recipe("tiny_grpo"), changes=[f"trainer.{change}"])
    with pytest.raises(ConfigError, match=told):
        policy_config(recipe, weights=False)


def test_no_checkpoint_falls_between_minibatches() -> None:
    from orchestra_training.trainers.grpo import policy_config  # noqa: PLC0415  (imports torch)

    changes = ["minibatches=3", "trainer.num_iterations=2", "trainer.save_steps=6", "trainer.max_steps=8"]
    with pytest.raises(
        ConfigError, match="max_steps = 8; expected a multiple of num_iterations = 2 times minibatches = 3"
    ):
        policy_config(read_recipe(find_recipe("tiny_grpo"), changes=changes), weights=False)


@pytest.mark.parametrize(
    ("steps", "every", "told"),
    [
        (10, 4, r"trainer\.max_steps = 10; expected a multiple of num_iterations = 4"),  # a checkpoint comes last
        (40, 0.1, None),
        (60, 0.1, r"trainer\.save_steps = 0\.1, 6 of 60 steps; expected a multiple of num_iterations = 4"),
    ],
)
def test_no_checkpoint_falls_into_a_batch(steps: int, every: float, told: str | None) -> None:
    from orchestra_training.trainers.grpo import policy_config  # noqa: PLC0415  (imports torch)

    changes = ["trainer.num_iterations=4", f"trainer.max_steps={steps}", f"trainer.save_steps={every}"]
    recipe = read_recipe(find_recipe("tiny_grpo"), changes=changes)
    if told is None:
        policy_config(recipe, weights=False)
        return
    with pytest.raises(ConfigError, match=told):
        policy_config(recipe, weights=False)


def test_sharded_training_does_not_round_what_is_clipped() -> None:
    import torch  # noqa: PLC0415  (takes seconds)
    from accelerate.utils import FullyShardedDataParallelPlugin  # noqa: PLC0415
    from orchestra_training.trainers.policy import _keep_exact  # noqa: PLC0415

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.set_mixed_precision("bf16")
    _keep_exact(plugin)
    policy: Any = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)


def test_thrift_raises_what_cost_and_latency_count_to_no_more_than_the_outcome() -> None:
    from orchestra_training.trainers.grpo import reward_of  # noqa: PLC0415  (imports torch)

    group = [Measures(solved=True, earned=True, dollars=dollars, seconds=9.0) for dollars in (0.01, 0.03)]
    asked = Preferences(cost=0.4, latency=0.1)
    for thrift, cost, latency in ((1.0, 0.4, 0.1), (2.0, 0.8, 0.2), (4.0, 1.0, 0.4)):
        told = reward_of(RewardTable(kind="proportional", thrift=thrift))(group, asked)
        weights = {"cost": cost, "latency": latency}
        assert told == proportional(group, Preferences.model_validate(weights))


def test_preferred_tools_can_count_less() -> None:
    from orchestra_training.trainers.grpo import reward_of  # noqa: PLC0415  (imports torch)

    group = [Measures(solved=True, earned=True, chosen=chosen) for chosen in ({}, {"large": 2})]
    told = reward_of(RewardTable(kind="proportional", prefer=0.5))(group, Preferences(prefer={"large": 1.0}))
    assert told == proportional(group, Preferences(prefer={"large": 0.5}))
    assert told[1] > told[0]


def test_dollars_can_be_charged_by_the_price_of_the_dearest_tool_to_failed_runs_too() -> None:
    from orchestra_training.trainers.grpo import reward_of  # noqa: PLC0415  (imports torch)

    group = [
        Measures(solved=solved, earned=solved, dollars=dollars, relative_dollars=100 * dollars)
        for solved, dollars in ((True, 0.01), (True, 0.01), (False, 0.02), (False, 0.0))
    ]
    asked = Preferences(cost=0.4)
    first, second, failed, gave_up = reward_of(RewardTable(kind="proportional", charge=0.5))(group, asked)
    assert first == second == proportional(group, asked)[0] - 0.5 * 0.4
    assert (failed, gave_up) == (-0.5 * 0.4 * 2, 0.0)
    free = Preferences(cost=0)
    assert reward_of(RewardTable(kind="proportional", charge=0.5))(group, free) == proportional(group, free)
