"""Qwen3's forward pass in NumPy, for routers of a few million parameters: no torch, a few milliseconds a token.

What several prompts begin with alike is computed once: the protocol `scan` asks about each line of a catalog after the
same beginning. Tested against transformers. Left out: everything that a large model needs (half precision, batches,
rotary scaling, sliding windows).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from threadpoolctl import ThreadpoolController

from orchestra_graph.errors import ConfigError

Array = NDArray[np.float32]

KEPT_PROMPTS: Final = 32
"""Prompts whose keys and values are kept for those that begin alike."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of `config.json` that the forward pass needs."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    theta: float
    eps: float
    ends: frozenset[int]
    """Tokens that end a reply."""

    @classmethod
    def from_file(cls, path: Path) -> Shape:
        """Read it.

        Raises:
            ConfigError: It is another architecture, or one that this file leaves out.
        """
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        odd = {
            "model_type": config.get("model_type") != "qwen3",
            "rope_parameters" if "rope_parameters" in config else "rope_scaling": (
                rope.get("rope_type", rope.get("type", "default")) != "default"
            ),
            "hidden_act": config.get("hidden_act", "silu") != "silu",
            "use_sliding_window": bool(config.get("use_sliding_window")),
            "attention_bias": bool(config.get("attention_bias")),
        }
        for name, is_odd in odd.items():
            if is_odd:
                raise ConfigError(f"{path}: {name} = {config.get(name)!r}; serve this model with vLLM instead")
        ends = config.get("eos_token_id")
        return cls(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            head_dim=config["head_dim"],
            theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            eps=config["rms_norm_eps"],
            ends=frozenset([ends] if isinstance(ends, int) else ends or []),
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """Keys and values of a prompt, an array `(kv_heads, tokens, head_dim)` of each a layer."""

    ids: NDArray[np.int64]
    keys: list[Array]
    values: list[Array]


class NumpyEngine:
    """An `orchestra_graph.routers.local.Engine`.

    Args:
        shape: Of the model.
        weights: By the names of transformers, in single precision.
        seed: Of the sampling.
    """

    def __init__(self, shape: Shape, weights: dict[str, Array], *, seed: int = 0) -> None:
        self._shape = shape
        # By columns, as products with the transpose read them.
        self._weights = {
            name: np.asfortranarray(array) if name.endswith("proj.weight") else array for name, array in weights.items()
        }
        self._head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        self._random = np.random.default_rng(seed)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadpoolController()

    @classmethod
    def from_folder(cls, folder: Path, *, seed: int = 0) -> NumpyEngine:
        """Load the weights of a folder.

        Raises:
            ConfigError: The model is of another architecture, or its numbers are of a kind that NumPy does not know.
        """
        shape = Shape.from_file(folder / "config.json")
        file = folder / "model.safetensors"
        try:
            weights = {name: array.astype(np.float32) for name, array in load_file(file).items()}
        except TypeError as error:  # NumPy knows no bfloat16
            raise ConfigError(f"{file}: {error}; serve this model with vLLM instead") from error
        return cls(shape, weights, seed=seed)

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float
    ) -> tuple[list[int], list[float]]:
        """Continue a prompt; other tasks of the event loop go on meanwhile."""
        return await asyncio.to_thread(self._complete, prompt, max_tokens, temperature)

    def _complete(self, prompt: Sequence[int], max_tokens: int, temperature: float) -> tuple[list[int], list[float]]:
        written: list[int] = []
        logprobs: list[float] = []
        # One thread: products this small take longer when they are shared out, much longer on a busy machine.
        with self._lock, self._threads.limit(limits=1, user_api="blas"):
            while len(written) < max_tokens and not (written and written[-1] in self._shape.ends):
                scores = log_softmax(self.logits([*prompt, *written]) / (temperature or 1.0))
                token = int(self._random.choice(len(scores), p=np.exp(scores))) if temperature else int(scores.argmax())
                written.append(token)
                logprobs.append(float(scores[token]))
        return written, logprobs

    def logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Scores of the token after these.

        Args:
            ids: Token ids, at least one.
        """
        tokens = np.asarray(ids, np.int64)
        known, length = self._longest(tokens)
        shape, weights = self._shape, self._weights
        hidden = weights["model.embed_tokens.weight"][tokens[length:]]
        cos, sin = _rotation(np.arange(length, len(ids)), shape.head_dim, shape.theta)
        keys: list[Array] = []
        values: list[Array] = []
        for n in range(shape.layers):
            layer = f"model.layers.{n}."
            normed = _rms(hidden, weights[f"{layer}input_layernorm.weight"], shape.eps)
            query, key, value = (self._project(normed, layer, name) for name in "qkv")
            key = _turned(_rms(key, weights[f"{layer}self_attn.k_norm.weight"], shape.eps), cos, sin)
            query = _turned(_rms(query, weights[f"{layer}self_attn.q_norm.weight"], shape.eps), cos, sin)
            if known is not None:
                key = np.concatenate([known.keys[n][:, :length], key], axis=1)
                value = np.concatenate([known.values[n][:, :length], value], axis=1)
            keys.append(key)
            values.append(value)
            if n == shape.layers - 1:  # nothing reads what it makes of the other tokens
                query, hidden = query[:, -1:], hidden[-1:]
            mixed = _attend(query, key, value)
            hidden = hidden + mixed @ weights[f"{layer}self_attn.o_proj.weight"].T
            normed = _rms(hidden, weights[f"{layer}post_attention_layernorm.weight"], shape.eps)
            gate = normed @ weights[f"{layer}mlp.gate_proj.weight"].T
            up = normed @ weights[f"{layer}mlp.up_proj.weight"].T
            hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{layer}mlp.down_proj.weight"].T
        self._keep(_Kept(tokens, keys, values))
        last = _rms(hidden[-1:], weights["model.norm.weight"], shape.eps)
        scores: NDArray[np.float64] = (last @ self._head.T)[0].astype(np.float64)
        return scores

    def _project(self, normed: Array, layer: str, name: str) -> Array:
        """Queries, keys or values: `(heads, tokens, head_dim)`."""
        flat = normed @ self._weights[f"{layer}self_attn.{name}_proj.weight"].T
        return flat.reshape(len(normed), -1, self._shape.head_dim).transpose(1, 0, 2)

    def _longest(self, ids: NDArray[np.int64]) -> tuple[_Kept | None, int]:
        """The kept prompt with the longest common beginning, and its length; the last token is always computed."""
        best, length = None, 0
        for kept in self._kept.values():
            common = _common(kept.ids, ids)
            if common > length:
                best, length = kept, common
        return best, min(length, len(ids) - 1)

    def _keep(self, kept: _Kept) -> None:
        key = kept.ids.tobytes()
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT_PROMPTS:
            self._kept.popitem(last=False)


def log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities that scores stand for."""
    shifted = scores - scores.max()
    logarithms: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return logarithms


def _common(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    shorter = min(len(left), len(right))
    other = left[:shorter] != right[:shorter]
    return int(other.argmax()) if other.any() else shorter


def _rms(values: Array, weight: Array, eps: float) -> Array:
    squares = np.einsum("...d,...d->...", values, values)[..., None] / np.float32(values.shape[-1])
    normed: Array = values / np.sqrt(squares + np.float32(eps)) * weight
    return normed


def _rotation(places: NDArray[np.int64], head_dim: int, theta: float) -> tuple[Array, Array]:
    angles = places[:, None] / theta ** (np.arange(0, head_dim, 2) / head_dim)
    both = np.concatenate([angles, angles], axis=-1)
    cos: Array = np.cos(both).astype(np.float32)
    sin: Array = np.sin(both).astype(np.float32)
    return cos, sin


def _turned(values: Array, cos: Array, sin: Array) -> Array:
    """Rotary position embedding."""
    half = values.shape[-1] // 2
    turned: Any = values * cos + np.concatenate([-values[..., half:], values[..., :half]], axis=-1) * sin
    return np.asarray(turned, np.float32)


def _attend(query: Array, key: Array, value: Array) -> Array:
    """Causal attention of `query` `(heads, new, dim)`, of the last tokens, over all tokens: `(new, heads * dim)`."""
    heads, new, dim = query.shape
    grouped = (query / np.float32(np.sqrt(dim))).reshape(len(key), -1, new, dim)
    scores = grouped @ key[:, None].swapaxes(-1, -2)
    # What is behind a token is hidden from it; that are only the other new ones.
    scores[..., -new:] += np.triu(np.full((new, new), -np.inf, np.float32), 1)
    scores -= scores.max(-1, keepdims=True)
    weights = np.exp(scores, out=scores)
    mixed: Any = weights @ value[:, None] / weights.sum(-1, keepdims=True)
    shaped: Array = mixed.reshape(heads, new, dim).transpose(1, 0, 2).reshape(new, heads * dim)
    return shaped
