"""A policy for tests: a Qwen3 of a few thousand parameters that says `take` or `skip` with even chances, untaught."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from orchestra_graph.protocols.scan import SKIP, TAKE
from orchestra_graph.workbench import Workbench

SURE = 2.0
"""Weight that makes other words about e^20 times less probable."""


def make_coin(folder: Path) -> Any:
    """Write the model's folder, and return the model."""
    import torch  # noqa: PLC0415  (takes seconds)
    from orchestra_training.tiny.model import TinyShape, make  # noqa: PLC0415
    from transformers import Qwen3ForCausalLM  # noqa: PLC0415

    shape = TinyShape(vocabulary=512, hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, inner=64)
    model = make(folder, tokenizer(), shape, seed=0)
    model.config.tie_word_embeddings = False
    torch.manual_seed(0)
    coin = Qwen3ForCausalLM(model.config)
    with torch.no_grad():
        # The first number of every hidden state is large and the same: what the head's rows hold for it decides.
        coin.model.embed_tokens.weight[:, 0] = 10.0
        coin.lm_head.weight[:, 0] = -SURE
        coin.lm_head.weight[[tokenizer().token_to_id(word) for word in (TAKE, SKIP)], 0] = SURE
    coin.generation_config = model.generation_config
    coin.save_pretrained(folder)
    return coin


@cache
def tokenizer() -> Any:
    """Learnt from a few questions."""
    from orchestra_training.tiny.model import train_tokenizer  # noqa: PLC0415  (imports torch)

    return train_tokenizer((task.question for task in Workbench().tasks("train", 50)), 512)


def local_router(model: Any) -> Any:
    """The model as a router that samples."""
    from orchestra_training.rollout.kept import KeptEngine  # noqa: PLC0415  (imports torch)
    from orchestra_training.tiny.model import TEMPLATE  # noqa: PLC0415

    from orchestra_graph.routers.local import LocalRouter  # noqa: PLC0415

    engine = KeptEngine(model, pad=0, ends=[1])
    return LocalRouter(
        engine=engine, tokenizer=tokenizer(), chat_template=TEMPLATE, temperature=1.0, max_tokens=1, name="coin"
    )
