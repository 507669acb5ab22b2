"""Makes a small Qwen3 with random weights: for trying a server out and for tests, on any machine.

    python orchestra_graph/serving/random_weights.py FOLDER [--tokenizer tokenizer.json] [--seed 0] [--shape 8b]

As a program it runs in the environment of the server, where torch and transformers are and this package is not. The
weights are random but for one thing: tokens that end something (a reply, a string, an object) are likelier than
others, so that replies and JSON under a grammar come to an end. What it writes means nothing.

Without `--tokenizer` a token is a byte of UTF-8. `--shape 8b` writes the config of Qwen3-8B without weights: vLLM makes
them up itself with `--load-format dummy`, for measuring a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
ENDS: Final = ("<|im_end|>", '"', "}", "]", "}]")
"""Tokens made likelier than others."""

SHARE: Final = 0.1
"""About how probable each of them is, whatever was written before."""

CONTEXT: Final = 65_536
"""Tokens that prompt and reply may have together."""

TEMPLATE: Final = Path(__file__).with_name("qwen3.jinja")

_HIDDEN: Final = 192
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "tiny": {
        "hidden_size": _HIDDEN,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.1,
        "dtype": "float32",
    },
    "8b": {
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000},
        "dtype": "bfloat16",
    },
}
_CONSTANT: Final = 30.0
_CONSTANT_AT_END: Final = 11.0
"""About what is left of it behind the last norm."""


def make(folder: Path, tokenizer: Path | None = None, *, seed: int = 0, shape: str = "tiny") -> None:
    """Write the model's folder; it appears whole or not at all."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: PLC0415  (in the server's environment only)

    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if tokenizer is None:
        _byte_tokenizer().save(str(part / "tokenizer.json"))
    else:
        shutil.copy(tokenizer, part / "tokenizer.json")
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(part / "tokenizer.json"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
    )
    made.chat_template = TEMPLATE.read_text(encoding="utf-8")
    made.save_pretrained(part)
    if shape == "tiny":
        _model(AutoTokenizer.from_pretrained(part), seed).save_pretrained(part)
    else:
        config = _config(SHAPES[shape], made)
        config.architectures = ["Qwen3ForCausalLM"]
        config.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _byte_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415  (see `make`)

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    controls = SPECIAL[:3]
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    made.add_tokens([AddedToken(text, normalized=False) for text in SPECIAL[3:]])
    return made


def _config(shape: dict[str, Any], tokenizer: Any) -> Any:
    from transformers import Qwen3Config  # noqa: PLC0415  (see `make`)

    return Qwen3Config(
        **{"vocab_size": math.ceil(len(tokenizer) / 64) * 64, **shape},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _model(tokenizer: Any, seed: int) -> Any:
    import torch  # noqa: PLC0415  (see `make`)
    from transformers import GenerationConfig, Qwen3ForCausalLM  # noqa: PLC0415  (see `make`)

    torch.manual_seed(seed)
    config = _config(SHAPES["tiny"], tokenizer)
    ends = sorted({token for text in ENDS if (token := tokenizer.convert_tokens_to_ids(text)) is not None})
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        # The first number of every embedding is the same and is kept from the layers, so it is nearly the same in the
        # last hidden state: what the rows of `ends` hold for it is a constant in their logits.
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.normal_()
        embeddings[:, 0] = _CONSTANT
        for layer in model.model.layers:
            layer.input_layernorm.weight[0] = layer.post_attention_layernorm.weight[0] = 0.0
        head[:, 0] = 0.0
        head[ends, 0] = math.log(SHARE * config.vocab_size) / _CONSTANT_AT_END
        head[len(tokenizer) :, 0] = -1.0  # rows without a token are never written
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model


def folder_in(cache: Path) -> Path:
    """Where the model of this file lies in a cache; another version of this file makes another one."""
    made_from = Path(__file__).read_bytes() + TEMPLATE.read_bytes()
    return cache / f"random-weights-{hashlib.sha256(made_from).hexdigest()[:12]}"


async def make_with(python: str, folder: Path) -> None:
    """Make the model with an interpreter that has torch and transformers, unless it is there.

    Raises:
        ConfigError: It could not be made.
    """
    if folder.is_dir():
        return
    process = await asyncio.create_subprocess_exec(
        *(python, __file__, str(folder)), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        from orchestra_graph.errors import ConfigError  # noqa: PLC0415  (the script has no such package)

        said = errors.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise ConfigError(
            f"the model with random weights could not be made with {python}: {said[-1]}; "
            "it needs torch and transformers"
        )


def main() -> None:
    """Read the command line and make the model."""
    parser = argparse.ArgumentParser(description="Makes a small Qwen3 with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    args = parser.parse_args()
    make(args.folder, args.tokenizer, seed=args.seed, shape=args.shape)
    parameters = json.loads((args.folder / "config.json").read_text())
    print(f"{args.folder}: {parameters['num_hidden_layers']} layers, {parameters['vocab_size']} tokens")


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]  # modules of a package
    main()
