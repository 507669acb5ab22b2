"""Merged weights for vLLM: those that PEFT would merge, and a model that stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.coin import make_coin

pytestmark = [
    pytest.mark.slow,  # imports torch
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_weights_are_those_of_peft_and_leave_the_model_alone(tmp_path: Path, dtype: str) -> None:
    import torch  # noqa: PLC0415
    from orchestra_training.trainers.vllm_weights import merged_weights  # noqa: PLC0415
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(make_coin(tmp_path).to(getattr(torch, dtype)), config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    before = {name: weight.clone() for name, weight in model.named_parameters()}

    merged = {name: weight.clone() for name, weight in merged_weights(model)}

    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    expected = dict(model.merge_and_unload().named_parameters())
    assert merged.keys() == expected.keys()
    assert all(
        torch.equal(weight, expected[name]) and weight.dtype == expected[name].dtype for name, weight in merged.items()
    )
    frozen = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): weight for name, weight in before.items()
    }
    assert any(not torch.equal(weight, frozen[name]) for name, weight in merged.items())
