"""Loads what a recipe names: model, tokenizer, adapters, and TRL's configuration."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed
from transformers.utils import find_adapter_config_file

from orchestra_training.trainers.recipe import LoraTable, Recipe

OURS: Final = ("output_dir", "seed", "data_seed")
"""Fields of TRL's configurations that follow from the recipe."""


SMALL: Final = 64_000_000
"""Scores that are computed at once: 256 MB in single precision."""


def fits(rows: int, columns: int, model: Any) -> bool:
    """Whether all scores of so many tokens fit in memory, each over the whole vocabulary.

    TRL computes them in pieces, on a CPU those of every token that is only read as well.
    """
    return rows * columns * int(model.config.get_text_config().vocab_size) <= SMALL


def load_tokenizer(recipe: Recipe) -> Any:
    """The model's tokenizer.

    Raises:
        ConfigError: There is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    except (OSError, ValueError) as error:
        raise recipe.error(("model", "path"), f" = {recipe.model.path!r}: no tokenizer: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(recipe: Recipe, *, weights: bool = True) -> Any:
    """The model; without weights its tensors have shapes and no values.

    Raises:
        ConfigError: It cannot be loaded, or is no whole model.
    """
    table = recipe.model
    options: dict[str, Any] = {"dtype": getattr(torch, table.dtype)}
    if table.attention is not None:
        options["attn_implementation"] = table.attention
    try:
        _refuse_adapters(table.path)
        if not weights or table.random:
            config = AutoConfig.from_pretrained(table.path)
            set_seed(recipe.seed)
            with torch.device("cpu" if weights else "meta"):
                return AutoModelForCausalLM.from_config(config, **options)
        return AutoModelForCausalLM.from_pretrained(table.path, **options)
    except (OSError, ValueError) as error:
        raise recipe.error(("model", "path"), f" = {table.path!r}: no model: {error}") from error


def _refuse_adapters(path: str) -> None:
    """Transformers would load them under a name that new adapters then take, and what they had learnt would be lost."""
    if find_adapter_config_file(path) is not None:
        raise ValueError(
            "it holds adapters alone, as checkpoints with [lora] do; expected a whole model; fix: name the folder "
            "`model` that the training wrote at its end, or merge them: peft's merge_and_unload()"
        )


def lora_config(table: LoraTable | None) -> Any:
    """PEFT's configuration, or None."""
    if table is None:
        return None
    from peft import LoraConfig  # noqa: PLC0415  (takes seconds, and few recipes need it)

    targets = table.targets if isinstance(table.targets, str) else list(table.targets)
    return LoraConfig(
        r=table.rank, lora_alpha=table.alpha, lora_dropout=table.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )


def trainer_config(
    recipe: Recipe, config: type, *, defaults: Mapping[str, Any] | None = None, weights: bool = True, **fixed: Any
) -> Any:
    """TRL's configuration: our defaults, the recipe's `[trainer]`, and what the kind of trainer fixes.

    Args:
        recipe: The recipe.
        config: Class of the configuration.
        defaults: Of this kind of trainer.
        weights: Whether the model has values, or only shapes.
        **fixed: Values that the recipe cannot change.

    Raises:
        ConfigError: The recipe names a field that does not exist or is fixed, or TRL refuses a value.
    """
    known = {field.name for field in dataclasses.fields(config)}
    for name in recipe.trainer:
        if name in fixed or name in OURS:
            raise recipe.error(("trainer", name), f": set by the {recipe.kind} trainer itself; leave it out")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise recipe.error(("trainer", name), f": no field of TRL's {config.__name__}{hint}")
    if not weights:  # tensors without values cannot be moved
        config = dataclasses.dataclass(
            type(config.__name__, (config,), {"place_model_on_device": property(lambda self: False)})
        )
    usual: dict[str, Any] = {
        "report_to": ["trackio"],
        "project": "orchestra",
        "run_name": recipe.output.name,
        "logging_steps": 1,
        "bf16": recipe.model.dtype == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "save_total_limit": 2,
    }
    ours = {"output_dir": str(recipe.output), "seed": recipe.seed}
    try:
        made = config(**{**usual, **(defaults or {}), **recipe.trainer, **fixed, **ours})
    except (TypeError, ValueError, ImportError) as error:
        raise recipe.error(("trainer",), f": {error}") from error
    # A process trains on one GPU. Of several that one process sees, transformers would make a `DataParallel`, with a
    # batch for each.
    made._n_gpu = min(made.n_gpu, 1)
    return made


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a reply."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    found = [ends] if isinstance(ends, int) else list(ends or [])
    return sorted({*found, tokenizer.eos_token_id} - {None})
