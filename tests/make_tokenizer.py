"""Makes the tokenizer of the tests: a byte-level BPE built like Qwen3's, from this repository's own text.

    python tests/make_tokenizer.py          # writes tests/data/tokenizer/tokenizer.json

The text is that of one commit, so the same file comes out whatever has changed since. Golden files hold cuts made
with it: whoever changes it writes them anew.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

COMMIT = "e21984f0bb5726bfca840f8fc814f4b0e167e9ae"
TEXTS = ["LICENSE", "README.md", "orchestra_graph/"]
VOCABULARY = 3000
FILE = Path(__file__).parent / "data" / "tokenizer" / "tokenizer.json"

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen3's: a contraction, a word with the sign before it, one digit, signs, line ends, blanks."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
"""Single tokens that stay in decoded text."""


def make() -> Tokenizer:
    """Train it; the same text gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in TAGS])
    return tokenizer


def texts() -> list[str]:
    """The files of the commit, in the order of their names."""
    listed = _git("ls-tree", "-r", "--name-only", COMMIT, "--", *TEXTS).split("\n")
    return [_git("show", f"{COMMIT}:{name}") for name in sorted(filter(None, listed))]


def _git(*words: str) -> str:
    folder = Path(__file__).parent.parent
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True).stdout.decode()


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(make().to_str() + "\n", encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
