"""`ChatVLLM`: a chat model for vLLM servers that keeps what training needs.

A policy is trained on the very tokens that it read and wrote. A chat message does not hold them, and text that is
tokenised again need not give the same ones. `ChatVLLM` asks the server for token ids and logprobs and keeps them, with
the reasoning text, beside the message; `take_capture` separates the two:

    model = ChatVLLM(model="router", base_url="http://localhost:8000/v1")
    message, capture = take_capture(await model.ainvoke("hello"))

Captures never enter `generation_info`, `response_metadata` or `additional_kwargs`, so neither tracers nor checkpoints
carry them. Any OpenAI-compatible server works; the capture then holds what that server returns.

vLLM loses token ids when it streams a parsed tool call. Streaming is therefore off unless `disable_streaming=False` is
given: `stream` yields the whole message at once. Left out: starting a server, and the Responses API.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal, cast

import openai
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import Field, model_validator

from orchestra_graph.captures import Capture, CapturedChunk, CapturedMessage, take_capture
from orchestra_graph.served import NO_KEY, Served, ServedModel

__all__ = ["NO_KEY", "Capture", "CapturedChunk", "CapturedMessage", "ChatVLLM", "take_capture"]

_SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "seed",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "tool_choice",
    }
)


class ChatVLLM(ServedModel, ChatOpenAI):
    """`ChatOpenAI` for a vLLM server: each reply carries a `Capture`.

    Takes the parameters of `ChatOpenAI`, with other defaults: token ids and logprobs are asked for, streaming is off,
    usage is counted when streaming, and nothing is retried, since the graph retries and bills each attempt. With a
    `base_url` the key is `EMPTY` unless `api_key` is given; no key is read from the environment then.
    """

    disable_streaming: bool | Literal["tool_calling"] = True
    logprobs: bool | None = True
    max_retries: int | None = 0
    stream_usage: bool | None = True
    served: Served | None = Field(default=None, exclude=True)
    """What is known of the server; the run log tells it with each run."""

    @model_validator(mode="before")
    @classmethod
    def _vllm_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        has_url = values.get("base_url") or values.get("openai_api_base")
        if has_url and not (values.get("api_key") or values.get("openai_api_key")):
            values = {**values, "api_key": NO_KEY}
        if values.get("streaming"):
            values = {"disable_streaming": False, **values}
        return values

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        if payload.get("tools") and payload.get("tool_choice", "auto") not in ("auto", "none"):
            # Without it vLLM constrains names only. Never with `auto`, which it would constrain too.
            payload["tools"] = [{**t, "function": {"strict": True, **t["function"]}} for t in payload["tools"]]
        payload["extra_body"] = {"return_token_ids": True, **self._extra_body(kwargs)}
        if "response_format" not in payload and "messages" in payload:
            # The client would check every message against its types, each time; it takes an extra body as it is.
            payload["extra_body"] |= {name: payload.pop(name) for name in ("messages", "tools") if name in payload}
            payload["messages"] = []
        return payload

    def _extra_body(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The user's own extra body: what a call gives is added to what the model has."""
        return {**(self.extra_body or {}), **(kwargs.get("extra_body") or {})}

    def sampling(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Sampling parameters that a request with these arguments states."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        if "max_tokens" in given:  # sent by its newer name, which the model's own limit has already
            given["max_completion_tokens"] = given.pop("max_tokens")
        sent = self._default_params | given
        return {**{name: sent[name] for name in sent if name in _SAMPLING}, **self._extra_body(kwargs)}

    # langchain-core passes messages by position and the rest, `stop` among it, by name

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return _stamp_result(super()._generate(*args, **kwargs), self.sampling(kwargs))

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return _stamp_result(await super()._agenerate(*args, **kwargs), self.sampling(kwargs))

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        sampling = self.sampling(kwargs)
        for chunk in super()._stream(*args, **kwargs):
            yield _stamp_chunk(chunk, sampling)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        sampling = self.sampling(kwargs)
        async for chunk in super()._astream(*args, **kwargs):
            yield _stamp_chunk(chunk, sampling)

    def _create_chat_result(
        self, response: dict[str, Any] | openai.BaseModel, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        captures, misshapen = _detach(response), _detach_misshapen(response)
        result = super()._create_chat_result(response, generation_info)
        for generation, capture, calls in zip(result.generations, captures, misshapen, strict=True):
            message = cast(AIMessage, generation.message)
            message.invalid_tool_calls += calls
            generation.message = CapturedMessage.model_construct(**message.__dict__, capture=capture)
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        capture = _detach_chunk(chunk)
        # langchain-openai parses tool calls of exactly this class only, and passes back the class of the last chunk
        generation = super()._convert_chunk_to_generation_chunk(chunk, AIMessageChunk, base_generation_info)
        if generation is not None:
            generation.message = CapturedChunk.model_construct(**generation.message.__dict__, capture=capture)
        return generation


def _detach(response: dict[str, Any] | openai.BaseModel) -> list[Capture]:
    """Move the tokens out of a response, one capture a choice; what stays is copied into metadata and traced."""
    prompt_token_ids = _extra(response).pop("prompt_token_ids", None)
    captures = []
    for choice in getattr(response, "choices", None) or ():
        logprobs, choice.logprobs = choice.logprobs, None
        captures.append(
            _known(
                prompt_token_ids=prompt_token_ids,
                token_ids=_extra(choice).pop("token_ids", None),
                logprobs=logprobs and [token.logprob for token in logprobs.content or ()],
                reasoning=_reasoning(_extra(choice.message)),
                finish_reason=choice.finish_reason,
                stop_reason=_extra(choice).get("stop_reason"),
                model=getattr(response, "model", None),
            )
        )
    return captures


def _detach_misshapen(response: dict[str, Any] | openai.BaseModel) -> list[list[InvalidToolCall]]:
    """Take calls out of each choice whose arguments are JSON but no object; langchain-openai raises on them."""
    misshapen: list[list[InvalidToolCall]] = []
    for choice in getattr(response, "choices", None) or ():
        calls = choice.message.tool_calls or []
        found = [call for call in calls if not _may_be_object(call.function.arguments)]
        if found:
            choice.message.tool_calls = [call for call in calls if call not in found]
        error = "the arguments are no JSON object"
        misshapen.append(
            [invalid_tool_call(name=c.function.name, args=c.function.arguments, id=c.id, error=error) for c in found]
        )
    return misshapen


def _may_be_object(arguments: str) -> bool:
    """Whether langchain-openai can take the arguments; what is no JSON at all it calls invalid by itself."""
    try:
        return isinstance(json.loads(arguments, strict=False), dict | None)
    except ValueError:
        return True


def _detach_chunk(chunk: dict[str, Any]) -> Capture:
    raw = chunk.get("chunk") or chunk  # structured output streams events that wrap the server's chunks
    choice = (raw.get("choices") or [{}])[0]
    logprobs = choice.pop("logprobs", None)
    finish_reason = choice.get("finish_reason")
    return _known(
        prompt_token_ids=raw.pop("prompt_token_ids", None),
        token_ids=choice.pop("token_ids", None),
        logprobs=logprobs and [token["logprob"] for token in logprobs["content"] or ()],
        reasoning=_reasoning(choice.get("delta") or {}),
        finish_reason=finish_reason,
        stop_reason=choice.get("stop_reason"),
        model=finish_reason and raw.get("model"),
    )


def _extra(model: Any) -> dict[str, Any]:
    """Fields of a response that the OpenAI API does not define."""
    return getattr(model, "model_extra", None) or {}


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """vLLM renamed `reasoning_content` to `reasoning`; other servers keep the old name."""
    return message.get("reasoning") or message.get("reasoning_content")


def _known(**values: Any) -> Capture:
    return cast(Capture, {name: value for name, value in values.items() if value is not None})


def _stamp_result(result: ChatResult, sampling: dict[str, Any]) -> ChatResult:
    for generation in result.generations:
        if isinstance(generation.message, CapturedMessage):
            generation.message.capture["sampling"] = sampling
    return result


def _stamp_chunk(chunk: ChatGenerationChunk, sampling: dict[str, Any]) -> ChatGenerationChunk:
    if isinstance(chunk.message, CapturedChunk) and "finish_reason" in chunk.message.capture:
        chunk.message.capture["sampling"] = sampling
    return chunk
