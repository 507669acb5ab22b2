"""Recipes: what a training does, as TOML. The first line of each is the command that runs it.

    # orchestra train grpo --recipe my_grpo.toml
    kind = "grpo"
    output = "runs/tiny-grpo"
    model = { path = "runs/tiny-sft/model", dtype = "float32" }
    [rollout]
    tasks = 16
    size = 16
    [trainer]                       # TRL's own configuration, by its names
    learning_rate = 1e-4
    max_steps = 200

A wrong recipe gives one error that names every problem with its line; so does one that states what its kind of training
does not read. Paths are relative to the working directory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from orchestra_graph.errors import ConfigError
from orchestra_graph.toml_lines import KeyLines, KeyPath
from orchestra_training.reward import RewardName

Kind = Literal["sft", "rejection", "dpo", "kto", "grpo", "explore", "replay"]

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelTable(_Table):
    """The model that is trained."""

    path: str
    """A folder that `save_pretrained` wrote, or a name on the Hugging Face hub."""
    random: bool = False
    """Start from random weights: only the configuration is read."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: str | None = None
    """Implementation of the attention, by transformers' names."""


class LoraTable(_Table):
    """Low-rank adapters in place of all weights. Checkpoints hold them alone; the trained model has them merged."""

    rank: Positive = 32
    alpha: Positive = 64
    dropout: Share = 0.0
    targets: str | tuple[str, ...] = "all-linear"


class MuonTable(_Table):
    """Muon for the matrices of the layers; embeddings and norms stay with `[trainer]`'s AdamW."""

    learning_rate: Annotated[float, Field(gt=0)]


class TasksTable(_Table):
    """What rollouts are about."""

    source: str = "workbench"
    """`workbench`, `logged` (of a data set), or `module:name` of a `TaskSource` of your own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its keyword arguments."""


class RolloutTable(_Table):
    """How rollouts are carried out."""

    tasks: Positive = 16
    """Tasks of a batch."""
    size: Annotated[int, Field(ge=2)] = 8
    """Rollouts of a task: the group that they are compared in."""
    explorers: Annotated[int, Field(ge=0)] = 0
    """Of `explore`, by the trainer's own weights in process: rollouts of a task beside its group, each with one word
    that the policy would hardly have written (`orchestra_training.exploration`)."""
    concurrent: Positive = 1024
    """Rollouts at a time in one process."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes beside the trainer's that carry them out; 0 leaves them to the trainer's own."""
    protocol: str = "conversation"
    """`conversation`, `scan`, or `module:name` of a protocol or of what makes one; repair must be off."""
    max_tokens: Positive = 8000
    """Of a reply."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the sampling, at which the policy is trained. One that serves greedily learns more below 1: at 1 it learns to
    call dear tools because they forgive the slips of sampling."""
    max_malformed: Positive = 1
    """Malformed replies in a row that end a rollout."""
    base_url: str | None = None
    """A vLLM server that decides; without one the trainer's own weights do, in process. With `use_vllm = true` in
    `[trainer]` it is given the weights before each batch."""
    model: str | None = None
    """What that server calls the model; by default the model's path."""
    log: Path | None = None
    """Run log that keeps the rollouts."""


class RewardTable(_Table):
    """What a run earns, and which groups are worth learning from."""

    kind: RewardName = "guarded"
    scale: Literal["group", "none"] = "group"
    """Whether advantages are divided by the group's deviation."""
    thrift: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the user's weights of cost and latency, which stay at most 1: sampling makes what is dear look better
    than it is."""
    prefer: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the user's weights of preferred tools: in full a dear one is called also where it is of no use."""
    charge: Annotated[float, Field(ge=0)] = 0.0
    """What a typical call of the dearest tool takes from what a run earns, solved or failed, for a user who weighs cost
    with 1; other calls by their dollars. Where all runs of a group pay for that tool, `kind` alone charges nothing."""
    floor: Annotated[float, Field(ge=0)] | None = None
    """Least deviation of the rewards of a group that is trained on; by default that of `FLOORS`."""


class StopTable(_Table):
    """When training stops before its last step."""

    filtered: Share = 1.0
    """Share of groups left out above which it stops, as a mean over `window` steps; 1 never stops."""
    window: Positive = 10


class DataTable(_Table):
    """What is learnt from, where nothing is rolled out."""

    path: Path
    """A data set (a folder, `*.parquet` or `*.jsonl`); `orchestra data build` writes them."""


class Recipe(_Table):
    """One training."""

    kind: Kind
    output: Path
    """Folder of checkpoints, figures and the trained model."""
    seed: int = 0
    model: ModelTable
    lora: LoraTable | None = None
    muon: MuonTable | None = None
    """For `sft` of all weights, in one process."""
    data: DataTable | None = None
    tasks: TasksTable = TasksTable()
    rollout: RolloutTable = RolloutTable()
    reward: RewardTable = RewardTable()
    stop: StopTable = StopTable()
    tokens_per_pass: Positive = 32_768
    """Tokens of one forward and backward pass of `replay` and of `ONLINE` kinds, padding among them."""
    minibatches: Positive = 1
    """Steps that a batch of rollouts is cut into, each on a share of its rows; `num_iterations` in `[trainer]` says how
    often all of them are taken."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """TRL's configuration of this kind of trainer, by its own names."""
    accelerate: dict[str, Any] = Field(default_factory=dict)
    """Accelerate's configuration, by its own names: how several processes train together. Empty for one process."""
    _source: str = PrivateAttr(default="recipe")
    _lines: KeyLines | None = PrivateAttr(default=None)

    def error(self, path: KeyPath, text: str) -> ConfigError:
        """An error about a key of the recipe, with its line."""
        line = "" if self._lines is None else f"line {self._lines.line(path)}: "
        return ConfigError(f"{self._source}: {line}{'.'.join(map(str, path))}{text}")


RECIPES: Final = Path(__file__).parents[1] / "recipes"
"""Those that come with the package."""

_SHARDED: Final = ("FSDP", "DEEPSPEED")
_EVERY: Final = ("kind", "output", "seed", "model", "lora", "trainer", "accelerate")
_PASSES: Final = ("tokens_per_pass", "minibatches")
_REWARD: Final = ("reward.kind", "reward.thrift", "reward.prefer", "reward.charge")
_USED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "sft": ("data", "muon"),
    "dpo": ("data",),
    "kto": ("data",),
    "replay": ("data", "rollout.tasks", "tokens_per_pass"),
    "rejection": ("tasks", "rollout", *_REWARD, "stop", *_PASSES),
    "explore": ("tasks", "rollout", *_REWARD, *_PASSES),
    "grpo": ("tasks", "rollout", "reward", "stop", *_PASSES),
}
"""What each kind reads beside what every kind does: tables, or single keys of one."""
_NEEDS_DATA: Final = ("sft", "dpo", "kto", "replay")
ONLINE: Final = ("rejection", "grpo", "explore")
"""Kinds that learn from their own rollouts."""


def find_recipe(named: str) -> Path:
    """The file of a recipe.

    Args:
        named: A file, or the name of a recipe of the package, for example `tiny_sft`.

    Raises:
        ConfigError: It is neither.
    """
    if (path := Path(named)).is_file():
        return path
    known = {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}
    if named not in known:
        raise ConfigError(
            f"--recipe {named}: no such file; expected one, or a recipe of the package: {', '.join(known)}"
        )
    return known[named]


def read_recipe(path: Path, *, changes: Sequence[str] = (), kind: str | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: The file.
        changes: `key=value` with dotted keys and values as TOML writes them; a value that is no TOML is a text.
        kind: Which it must be.

    Raises:
        ConfigError: It cannot be read, or is wrong; lists every problem with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a recipe in TOML") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; expected TOML") from error
    for change in changes:
        _change(data, change)
    lines = KeyLines(text)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = [_told(detail, lines) for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join([f"{path}: {len(problems)} wrong", *sorted(problems)])) from error
    recipe._source, recipe._lines = str(path), lines
    if kind is not None and recipe.kind != kind:
        raise recipe.error(("kind",), f' = "{recipe.kind}"; expected "{kind}", as the command says')
    if recipe.kind in _NEEDS_DATA and recipe.data is None:
        raise recipe.error(("data",), f': missing; expected [data] path = "..." for {recipe.kind}')
    if unused := list(_unused(recipe)):
        told = f"not used by {recipe.kind}, which reads {', '.join(_USED[recipe.kind])}; fix: leave it out"
        problems = [f"  line {lines.line(key)}: {'.'.join(map(str, key))}: {told}" for key in unused]
        raise ConfigError("\n".join([f"{path}: {len(unused)} wrong", *problems]))
    if recipe.muon and (recipe.lora or recipe.accelerate):
        raise recipe.error(("muon",), ": expected without lora and accelerate; fix: leave it out")
    if recipe.lora and (sharded := recipe.accelerate.get("distributed_type")) in _SHARDED:
        fix = 'fix: distributed_type = "MULTI_GPU", or all weights'
        raise recipe.error(("lora",), f": adapters of a model that {sharded} shards cannot be merged into it; {fix}")
    return recipe


def _unused(recipe: Recipe) -> Iterator[KeyPath]:
    """Keys that the recipe states and its kind does not read: passed over in silence they would mislead."""
    used = _USED[recipe.kind]
    for name in sorted(recipe.model_fields_set.difference(_EVERY, used)):
        table = getattr(recipe, name)
        keys = sorted(table.model_fields_set) if isinstance(table, _Table) else []
        yield from ((name, key) for key in keys if f"{name}.{key}" not in used)
        if not keys:
            yield (name,)


def check_server(recipe: Recipe) -> None:
    """Refuse rollouts that a server would decide with other weights than the trainer's.

    Raises:
        ConfigError: The server that is asked is not the one that is given the weights.
    """
    if recipe.kind not in ONLINE:
        return
    uses, mode = recipe.trainer.get("use_vllm", False), recipe.trainer.get("vllm_mode", "colocate")
    if uses and (mode == "server") != (recipe.rollout.base_url is not None):
        raise recipe.error(
            ("trainer", "vllm_mode"), f' = "{mode}"; rollout.base_url names the server, and only a server'
        )
    if recipe.rollout.base_url is not None and not uses:
        told = "without trainer.use_vllm = true: the server would keep its first weights"
        raise recipe.error(
            ("rollout", "base_url"), f" {told}; rollouts of other weights than the trainer's are for replay"
        )


def _told(detail: Mapping[str, Any], lines: KeyLines) -> str:
    where: KeyPath = tuple(detail["loc"])
    name = ".".join(map(str, where))
    value = "" if detail["type"] in ("missing", "extra_forbidden") else f" = {detail['input']!r:.60}"
    message = "unknown key" if detail["type"] == "extra_forbidden" else detail["msg"]
    return f"  line {lines.line(where)}: {name}{value}: {message}"


def _change(data: dict[str, Any], change: str) -> None:
    key, sign, value = change.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {change!r}; expected key=value, for example trainer.learning_rate=1e-4")
    *tables, last = key.strip().split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {change!r}: {table} is no table")
    try:
        data[last] = tomllib.loads(f"value = {value}")["value"]
    except ValueError:
        data[last] = value.strip()
