"""`LocalRouter`: a small language model as the router, in this process, without a server and without torch.

    router = LocalRouter.from_folder("router/")
    graph = create_orchestrator(router, tools, protocol=ScanProtocol())

Each reply carries a `Capture` (orchestra_graph.captures): the ids that were read and written, and their logprobs, so
that runs in process can train as those of a server do. What computes is an `Engine`; the one of `from_folder` is NumPy,
that of a trainer is the trainer's own model. Tool calls in the text of a reply are read by the protocol.

Left out: streaming, stop strings, and models that do not fit in memory: serve those with vLLM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

from orchestra_graph.captures import Capture, CapturedMessage
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.portal import Portal
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.routers.template import compile_template, shown_messages
from orchestra_graph.served import VLLM_SAMPLING, Served

MAX_TOKENS = 512
"""Tokens of a reply, unless the protocol or the caller says otherwise."""


class Engine(Interface):
    """What computes replies."""

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float
    ) -> tuple[list[int], list[float]]:
        """Continue a prompt up to the end token, which is part of the reply.

        Args:
            prompt: Token ids.
            max_tokens: At most so many tokens.
            temperature: 0 takes the likeliest token.

        Returns:
            The tokens, and the natural logarithm of each one's probability at this temperature (at 1 for 0).
        """


class LocalRouter(BaseChatModel):
    """A chat model around an engine, a tokenizer and a chat template."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    engine: Any
    """An `Engine`."""
    tokenizer: Any
    """A `tokenizers.Tokenizer`."""
    chat_template: str
    """Jinja, as Hugging Face models carry it."""
    protocol: Protocol | None = None
    """The one that the model was trained for; graphs speak it unless they are told otherwise."""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=MAX_TOKENS, ge=1)
    weights_hash: str | None = None
    """Of the engine's weights, for the run log."""
    step: int | None = None
    """Their training step."""
    _portal: Portal = PrivateAttr(default_factory=Portal)

    @classmethod
    def from_folder(cls, folder: str | Path, *, seed: int = 0, **options: Any) -> LocalRouter:
        """Load a model of Qwen3's architecture.

        Args:
            folder: As `save_pretrained` of transformers writes it: config.json, model.safetensors, tokenizer.json,
                chat_template.jinja.
            seed: Of the sampling at temperatures above 0.
            **options: Fields of this class; `name` is what logs call the router, by default the folder's name.

        Raises:
            ConfigError: The folder is not there, or holds another architecture.
            MissingError: The extra `local` is not installed.
        """
        place = Path(folder)
        missing = [
            name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (place / name).is_file()
        ]
        if missing:
            raise ConfigError(f"{place}: {', '.join(missing)} not there; expected a folder written by save_pretrained")
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415  (an extra)

            from orchestra_graph.routers.qwen3 import NumpyEngine  # noqa: PLC0415  (needs an extra)
        except ImportError as error:
            raise MissingError(f"the package {error.name}", "pip install 'orchestra-graph[local]'") from error
        fields = {
            "engine": NumpyEngine.from_folder(place, seed=seed),
            "tokenizer": Tokenizer.from_file(str(place / "tokenizer.json")),
            "chat_template": read_template(place),
            "name": place.resolve().name,
        }
        return cls(**{**fields, **options})

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind functions that the chat template shows."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @property
    def _llm_type(self) -> str:
        return "local"

    def render(self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of a prompt."""
        shown = shown_messages(messages)
        text = self._template.render(messages=shown, tools=list(tools) or None, add_generation_prompt=True)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @property
    def served(self) -> Served:
        """For the run log: nothing but the temperature bends what is sampled, and the logprobs are of that."""
        return Served(
            weights_hash=self.weights_hash,
            step=self.step,
            tokenizer=self.name,
            template_hash=self.template_hash,
            logprobs_mode="processed_logprobs",
            sampling=dict(VLLM_SAMPLING),
        )

    @cached_property
    def template_hash(self) -> str:
        """SHA-256 of the chat template."""
        return hashlib.sha256(self.chat_template.encode()).hexdigest()

    @cached_property
    def _template(self) -> Any:
        return compile_template(self.chat_template)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        tools: Sequence[dict[str, Any]] = (),
        **kwargs: Any,
    ) -> ChatResult:
        warmth = self.temperature if temperature is None else temperature
        limit = max_tokens or self.max_tokens
        prompt = self.render(messages, tools)
        written, logprobs = await self.engine.complete(prompt, max_tokens=limit, temperature=warmth)
        capture: Capture = {
            "prompt_token_ids": prompt,
            "token_ids": written,
            "logprobs": logprobs,
            "sampling": {"temperature": warmth, "max_tokens": limit},
        }
        # A reply ends with a special token, unless it is cut off.
        whole = len(written) < limit or not self.tokenizer.decode(written[-1:], skip_special_tokens=True)
        capture["finish_reason"] = "stop" if whole else "length"
        message = CapturedMessage(
            content=self.tokenizer.decode(written, skip_special_tokens=True),
            response_metadata={"finish_reason": capture["finish_reason"]},
            usage_metadata=UsageMetadata(
                input_tokens=len(prompt), output_tokens=len(written), total_tokens=len(prompt) + len(written)
            ),
            capture=capture,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._portal.run(self._agenerate(messages, stop, **kwargs))


def read_template(folder: Path) -> str:
    """The chat template of a model's folder.

    Raises:
        ConfigError: It has none.
    """
    path = folder / "chat_template.jinja"
    if not path.is_file():
        raise ConfigError(f"{path} is not there; a router's folder needs its chat template")
    return path.read_text(encoding="utf-8")
