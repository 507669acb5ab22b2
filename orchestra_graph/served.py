"""What whoever started a model knows of it, and its replies do not tell: it goes into the run log with each run.

    router = ChatVLLM(model="qwen3-8b", base_url=..., served=command_for("qwen3-8b").served())

Whether logged tokens can be replayed in training depends on it. Nothing is guessed: what is not stated is unknown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

NO_KEY: Final = "EMPTY"
"""What is sent as the key when none is given: vLLM servers usually ask for none."""

VLLM_SAMPLING: Final = MappingProxyType(
    {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
    }
)
"""What vLLM does where a request does not say, started with `--generation-config vllm`; by default the model's own
generation config stands there."""


class Served(BaseModel):
    """A model as it is served. None, and what `sampling` leaves out, is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_hash: str | None = None
    step: int | None = None
    """Training step of the weights."""
    tokenizer: str | None = None
    """Folder, or name on the Hugging Face hub."""
    template_hash: str | None = None
    """SHA-256 of the chat template."""
    logprobs_mode: str | None = None
    """As vLLM names it: `processed_logprobs` or `raw_logprobs`."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Sampling parameters that the server takes where a request does not say."""


class ServedModel(ABC):
    """A chat model on a vLLM server: where it must call (`tool_choice="required"`), it writes nothing but valid calls.

    The graph knows `ChatVLLM` by this class: to import its own takes a second, for OpenAI's client.
    """

    @abstractmethod
    def sampling(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Sampling parameters that a request with these arguments states."""
