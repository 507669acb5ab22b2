"""The weights of a model with adapters as vLLM needs them: merged, while the model itself stays as it is.

TRL merges the adapters into the model, and takes them out again behind the last weight. In bfloat16 that is not exact:
each time leaves the frozen weights a little different, and adapters are learnt for a model that nobody has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import Tensor


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Each weight of the model below the adapters, under the name that it has there.

    Args:
        model: A `PeftModel` with LoRA adapters, whole on this device.
    """
    below = model.get_base_model()
    adapted = {
        f"{name}.base_layer.weight": layer for name, layer in below.named_modules() if isinstance(layer, LoraLayer)
    }
    for name, weight in below.named_parameters():
        if model.prefix in name:
            continue
        layer = adapted.get(name)
        deltas = [] if layer is None else [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
        merged = (weight.data + sum(deltas)).to(weight.dtype) if deltas else weight.data
        yield name.replace(".base_layer", ""), merged
