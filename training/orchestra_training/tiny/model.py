"""Makes the tiny router: its tokenizer, learnt from texts, and a Qwen3 with random weights, as a folder that
transformers, vLLM and `LocalRouter` read.

The vocabulary is bytes and what is frequent in the texts; digits stand alone, long numbers as their lengths (`#16`).
`take` and `skip` are tokens of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from orchestra_graph.protocols.scan import SKIP, TAKE

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
CHOOSE: Final = "<|choose|>"
"""Ends the prompt."""

CONTEXT: Final = 16_384
"""Tokens of the longest prompt, one a byte: what a server refuses would end the run."""
TEMPLATE: Final = (
    "{%- for message in messages -%}{{ message.content }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}" + CHOOSE + "{%- endif -%}"
)

_PIECES: Final = Regex(r"#\d+| ?[A-Za-z]+|\d| ?[^\sA-Za-z\d#]+|#|\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyShape:
    """Size of the model."""

    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    inner: int = 384


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn a byte-level BPE.

    Args:
        texts: What the router will read.
        vocabulary: Tokens in all.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, CHOOSE]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Only where it stands alone behind the prompt: a text that says "take" keeps its own pieces.
    tokenizer.add_tokens([AddedToken(word, normalized=False, single_word=True) for word in (TAKE, SKIP)])
    return tokenizer


def make(folder: Path, tokenizer: Tokenizer, shape: TinyShape, *, seed: int) -> Any:
    """Write a model with random weights.

    Args:
        folder: Where to; what is there is overwritten.
        tokenizer: From `train_tokenizer`.
        shape: Size of the model.
        seed: Of the weights.

    Returns:
        The model.
    """
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=CONTEXT, padding_side="left"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=-(-len(fast) // 64) * 64,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id)
    model.save_pretrained(folder)
    return model
