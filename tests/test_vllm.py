import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from orchestra_graph.vllm import NO_KEY, Capture, CapturedMessage, ChatVLLM, take_capture
from tests.openai_server import OpenAIServer, Refusal, Reply, Usage, logprobs, tokens

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
REPLY = Reply("four", reasoning="two and two", usage=Usage(30, 9, 20), stop_reason=151645)
CALL = Reply("", calls=[("search", {"query": "q"})], reasoning="look it up")

Path = Callable[..., AIMessage]


def invoke(model: Any, **kwargs: Any) -> AIMessage:
    message = model.invoke([HumanMessage("2+2?")], **kwargs)
    assert isinstance(message, AIMessage)
    return message


def ainvoke(model: Any, **kwargs: Any) -> AIMessage:
    message = asyncio.run(model.ainvoke([HumanMessage("2+2?")], **kwargs))
    assert isinstance(message, AIMessage)
    return message


def stream(model: Any, **kwargs: Any) -> AIMessage:
    return _sum(list(model.stream([HumanMessage("2+2?")], **kwargs)))


def astream(model: Any, **kwargs: Any) -> AIMessage:
    async def collect() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream([HumanMessage("2+2?")], **kwargs)]

    return _sum(asyncio.run(collect()))


def _sum(chunks: list[AIMessageChunk]) -> AIMessage:
    assert len(chunks) > 3
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


PATHS = pytest.mark.parametrize("path", [invoke, ainvoke, stream, astream])


@pytest.fixture
def vllm_server(openai_server: OpenAIServer) -> OpenAIServer:
    openai_server.vllm = True
    return openai_server


def model_of(server: OpenAIServer, **kwargs: Any) -> ChatVLLM:
    return ChatVLLM(model="m", base_url=server.base_url, disable_streaming=False, **kwargs)


def prompt_ids(server: OpenAIServer) -> list[int]:
    return tokens(json.dumps(server.requests[-1].body["messages"]))


@PATHS
def test_capture_of_text(vllm_server: OpenAIServer, path: Path) -> None:
    vllm_server.script = [REPLY]
    message, capture = take_capture(path(model_of(vllm_server, temperature=0.5)))

    assert type(message) is AIMessage
    assert message.text == "four"
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == 30
    assert message.usage_metadata["output_tokens"] == 9
    assert message.usage_metadata["input_token_details"] == {"cache_read": 20}
    written = tokens("two and twofour")
    assert capture == {
        "prompt_token_ids": prompt_ids(vllm_server),
        "token_ids": written,
        "logprobs": logprobs(written),
        "reasoning": "two and two",
        "finish_reason": "stop",
        "stop_reason": 151645,
        "model": "m",
        "sampling": {"temperature": 0.5},
    }
    assert json.loads(json.dumps(capture)) == capture


@PATHS
@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_capture_of_a_call(vllm_server: OpenAIServer, path: Path, key: Any) -> None:
    vllm_server.script = [Reply("", calls=CALL.calls, reasoning=CALL.reasoning, reasoning_key=key)]
    message, capture = take_capture(path(model_of(vllm_server).bind_tools([TOOL], tool_choice="any")))

    assert [(c["name"], c["args"], c["id"]) for c in message.tool_calls] == [("search", {"query": "q"}, "call_0")]
    assert capture is not None
    assert capture["token_ids"] == tokens('look it upsearch{"query": "q"}')
    assert capture["reasoning"] == "look it up"
    assert capture["finish_reason"] == "tool_calls"
    assert capture["sampling"] == {"tool_choice": "required"}
    assert "stop_reason" not in capture


@PATHS
def test_server_without_token_ids(openai_server: OpenAIServer, path: Path) -> None:
    openai_server.script = [Reply("four")]
    message, capture = take_capture(path(model_of(openai_server)))

    assert message.text == "four"
    assert capture == {"finish_reason": "stop", "model": "m", "sampling": {}}


@PATHS
def test_the_users_extra_body_survives(vllm_server: OpenAIServer, path: Path) -> None:
    model = model_of(vllm_server, extra_body={"top_k": 5, "min_p": 0.1}, model_kwargs={"user": "u"})
    _, capture = take_capture(path(model, extra_body={"top_k": 7}, stop=["END"]))

    body = vllm_server.requests[-1].body
    assert (body["return_token_ids"], body["top_k"], body["min_p"], body["user"]) == (True, 7, 0.1, "u")
    assert capture is not None
    assert capture["sampling"] == {"top_k": 7, "min_p": 0.1, "stop": ["END"]}


@PATHS
def test_captures_can_be_switched_off(vllm_server: OpenAIServer, path: Path) -> None:
    _, capture = take_capture(path(model_of(vllm_server, logprobs=False, extra_body={"return_token_ids": False})))
    assert capture is not None
    assert capture.keys() & {"prompt_token_ids", "token_ids", "logprobs"} == set()


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        self.seen += [chunk.generation_info, chunk.message.response_metadata, chunk.message.additional_kwargs, kwargs]
        self.seen.append(chunk.model_dump())

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        generation = response.generations[0][0]
        message: Any = generation.message  # type: ignore[union-attr]
        self.seen += [generation.generation_info, message.response_metadata, message.additional_kwargs]
        self.seen += [response.model_dump(), response.llm_output]


class Tracer(BaseTracer):
    """Sees what LangSmith would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


@PATHS
def test_handlers_and_traces_see_no_tokens(vllm_server: OpenAIServer, path: Path) -> None:
    vllm_server.script = [REPLY]
    recorder, tracer = Recorder(), Tracer()
    message, capture = take_capture(path(model_of(vllm_server), config={"callbacks": [recorder, tracer]}))

    assert capture is not None and capture["token_ids"]
    (run,) = tracer.runs
    seen = json.dumps([recorder.seen, run.model_dump()], default=str)
    assert "four" in seen
    for secret in [
        "token_ids': ",
        '"token_ids"',
        '"prompt_token_ids"',
        'logprob"',
        "two and two",
        str(capture["token_ids"]),
    ]:
        assert secret not in seen
    assert run.outputs is not None
    assert run.outputs["generations"][0][0]["message"]["id"][-1] in {"AIMessage", "AIMessageChunk"}
    assert "logprobs" not in message.response_metadata


@pytest.mark.parametrize("reply", [REPLY, CALL])
def test_plain_message_serialises_as_any_other(vllm_server: OpenAIServer, reply: Reply) -> None:
    vllm_server.script = [reply]
    message, _ = take_capture(invoke(model_of(vllm_server)))
    other = ChatOpenAI(model="m", base_url=vllm_server.base_url, api_key="k").invoke("2+2?")
    assert other.response_metadata.pop("logprobs") is None

    serializer = JsonPlusSerializer()
    assert serializer.dumps_typed(message.model_copy(update={"id": other.id})) == serializer.dumps_typed(other)
    restored = serializer.loads_typed(serializer.dumps_typed(message))
    assert type(restored) is AIMessage
    assert restored == message


def test_streaming_is_off_by_default(vllm_server: OpenAIServer) -> None:
    vllm_server.script = [CALL]
    (message,) = ChatVLLM(model="m", base_url=vllm_server.base_url).stream("q")

    assert "stream" not in vllm_server.requests[0].body or not vllm_server.requests[0].body["stream"]
    assert take_capture(message)[1] is not None


def test_capture_stays_when_a_listener_makes_invoke_stream(vllm_server: OpenAIServer) -> None:
    vllm_server.script = [CALL]
    captures = []

    def node(state: MessagesState) -> MessagesState:
        message, capture = take_capture(model_of(vllm_server).invoke(state["messages"]))
        captures.append(capture)
        return {"messages": [message]}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
    parts = list(graph.stream({"messages": [HumanMessage("q")]}, stream_mode="messages"))

    assert vllm_server.requests[0].body["stream"] is True
    assert len(parts) > 2
    (capture,) = captures
    assert capture is not None
    assert capture["token_ids"] == tokens('look it upsearch{"query": "q"}')


def test_streaming_model_streams(vllm_server: OpenAIServer) -> None:
    vllm_server.script = [CALL]
    message, capture = take_capture(ChatVLLM(model="m", base_url=vllm_server.base_url, streaming=True).invoke("q"))

    assert vllm_server.requests[0].body["stream"] is True
    assert message.tool_calls[0]["args"] == {"query": "q"}
    assert capture is not None
    assert capture["token_ids"] == tokens('look it upsearch{"query": "q"}')


class Sum(BaseModel):
    value: int


@PATHS
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # langchain-openai, streaming a parsed reply
def test_structured_output(vllm_server: OpenAIServer, path: Path, method: Any) -> None:
    args = {"value": 4}
    vllm_server.script = [
        Reply(json.dumps(args)) if method == "json_schema" else Reply(calls=[("Sum", args)]),
    ]
    model = model_of(vllm_server).with_structured_output(Sum, method=method)
    question = [HumanMessage("2+2?")]
    if path is invoke:
        result: Any = model.invoke(question)
    elif path is ainvoke:
        result = asyncio.run(model.ainvoke(question))
    elif path is stream:
        result = list(model.stream(question))[-1]
    else:
        result = asyncio.run(_last(model, question))
    assert result == Sum(value=4)


async def _last(model: Any, question: Any) -> Any:
    return [part async for part in model.astream(question)][-1]


def test_reply_without_choices_is_billed_once(vllm_server: OpenAIServer) -> None:
    vllm_server.script = [Reply(choices=False)]
    with pytest.raises(IndexError):
        invoke(model_of(vllm_server))
    assert len(vllm_server.billed) == 1


def test_nothing_is_retried_by_default(vllm_server: OpenAIServer) -> None:
    vllm_server.script = [Refusal(500), Reply("late")]
    with pytest.raises(Exception, match="refused by the script"):
        invoke(model_of(vllm_server))
    assert len(vllm_server.requests) == 1
    assert vllm_server.billed == []


def test_keys(vllm_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    invoke(model_of(vllm_server))
    invoke(model_of(vllm_server, api_key="mine"))
    assert [r.headers["authorization"] for r in vllm_server.requests] == [f"Bearer {NO_KEY}", "Bearer mine"]


def test_messages_of_other_models_have_no_capture() -> None:
    message = AIMessage("x", id="1")
    assert take_capture(message) == (message, None)
    chunk = AIMessageChunk(content="x", id="1", response_metadata={"logprobs": {"content": []}, "model_name": "m"})
    plain, capture = take_capture(chunk)
    assert type(plain) is AIMessage
    assert (plain.text, plain.id, plain.response_metadata, capture) == ("x", "1", {"model_name": "m"}, None)


def test_take_capture_leaves_the_message_alone() -> None:
    message = CapturedMessage(content="x", capture=Capture(token_ids=[1]), response_metadata={"logprobs": 1})
    take_capture(message)
    assert message.capture == {"token_ids": [1]}
    assert message.response_metadata == {"logprobs": 1}


@PATHS
@pytest.mark.parametrize("arguments", ['"search-1"', "[1]", "7", "true"])
def test_arguments_that_are_no_object_are_an_invalid_call(
    vllm_server: OpenAIServer, path: Path, arguments: str
) -> None:
    vllm_server.script = [Reply("", calls=[("search", arguments), ("search", {"query": "q"})])]
    message = path(model_of(vllm_server).bind_tools([TOOL]))
    assert [(call["name"], call["args"]) for call in message.invalid_tool_calls] == [("search", arguments)]
    assert [call["args"] for call in message.tool_calls] == [{"query": "q"}]
