"""Captures: the tokens that a router's model read and wrote, beside its message.

Apart from `orchestra_graph.vllm`, whose chat model makes them, since importing OpenAI's client takes a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from pydantic import Field
from typing_extensions import TypedDict

_JOINED = frozenset({"prompt_token_ids", "token_ids", "logprobs", "reasoning"})


class Capture(TypedDict, total=False):
    """The tokens of one reply; plain JSON. What the server did not return is absent."""

    prompt_token_ids: list[int]
    """What the model read, after the chat template."""
    token_ids: list[int]
    """What it wrote, reasoning and control tokens among them."""
    logprobs: list[float]
    """Natural logarithm of the probability of each token written, as the server reports it."""
    reasoning: str
    """Reasoning text, where the server returns it apart from the reply."""
    finish_reason: str
    stop_reason: int | str
    """Token id or string at which vLLM stopped, where it was no ordinary end."""
    model: str
    """Name under which the server answered."""
    sampling: dict[str, Any]
    """Sampling parameters that were sent; the server's own defaults are not known."""


class CapturedMessage(AIMessage):
    """An `AIMessage` that carries its capture. Call `take_capture` before it goes into a graph's state."""

    capture: Capture = Field(default_factory=Capture, exclude=True, repr=False)

    @classmethod
    def lc_id(cls) -> list[str]:
        """Traces show an ordinary `AIMessage`."""
        return AIMessage.lc_id()


class CapturedChunk(CapturedMessage, AIMessageChunk):
    """A streamed part of a `CapturedMessage`; a sum of parts carries the sum of their captures."""

    type: Literal["AIMessageChunk"] = "AIMessageChunk"  # type: ignore[assignment]

    @classmethod
    def lc_id(cls) -> list[str]:
        """Traces show an ordinary `AIMessageChunk`."""
        return AIMessageChunk.lc_id()

    def __add__(self, other: Any) -> CapturedChunk:  # type: ignore[override]
        merged = cast(CapturedChunk, super().__add__(other))
        others = other if isinstance(other, list | tuple) else (other,)
        merged.capture = _merge([self.capture, *(o.capture for o in others if isinstance(o, CapturedChunk))])
        return merged


def take_capture(message: AIMessage) -> tuple[AIMessage, Capture | None]:
    """Separate a model's reply from its capture.

    Args:
        message: A reply of any chat model, or the sum of its chunks.

    Returns:
        An `AIMessage`, exactly of that class and without logprobs in its metadata; and the capture, or None when the
        model is no `ChatVLLM`.
    """
    capture = message.capture if isinstance(message, CapturedMessage) else None
    if type(message) is AIMessage and "logprobs" not in message.response_metadata:
        return message, capture
    fields = {name: getattr(message, name) for name in AIMessage.model_fields if name != "type"}
    fields["response_metadata"] = {k: v for k, v in message.response_metadata.items() if k != "logprobs"}
    return AIMessage(**fields), capture


def logprob_of(message: AIMessage) -> float | None:
    """Natural logarithm of a reply's probability; None where it is not known."""
    logprobs = message.capture.get("logprobs") if isinstance(message, CapturedMessage) else None
    return sum(logprobs) if logprobs else None


def _merge(captures: Iterable[Capture]) -> Capture:
    """Sum captures of successive chunks: lists and reasoning are joined, of the rest the last one stands."""
    merged: dict[str, Any] = {}
    for capture in captures:
        for name, value in capture.items():
            merged[name] = merged[name] + value if name in merged and name in _JOINED else value
    return cast(Capture, merged)
