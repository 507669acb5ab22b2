"""`ChatVLLM` against a real vLLM: tokens, logprobs, streaming, calls under a grammar, the tokenizer's routes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langgraph.graph import START, MessagesState, StateGraph

from orchestra_graph.billing import is_overflow
from orchestra_graph.serving.metrics import Load, read_metrics
from orchestra_graph.tokens import FolderTokenizer, ServerTokenizer
from orchestra_graph.vllm import Capture, ChatVLLM, take_capture
from tests.integration.serving import Served, orchestra

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),  # LangChain shares a connection pool, which belongs to one loop
]

COLOUR = {"type": "string", "enum": ["red", "green"]}
PROPERTIES = {"colour": COLOUR, "number": {"type": "integer", "minimum": 0, "maximum": 9}, "text": {"type": "string"}}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Paints.",
            "parameters": {
                "type": "object",
                "properties": PROPERTIES,
                "required": ["colour", "number", "text"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("paint", "erase")
]
QUESTIONS = [f"What about {n}? Ünïcödé 日本語" for n in range(8)]


async def ask(model: Any, question: str = "hello", **kwargs: Any) -> tuple[Any, Capture]:
    message, capture = take_capture(await model.ainvoke(question, **kwargs))
    assert capture is not None
    return message, capture


async def test_every_token_is_captured_with_its_logprob(served: Served, tiny_model: Path) -> None:
    tokenizer = FolderTokenizer(tiny_model)
    message, capture = await ask(served.chat(seed=1))
    assert len(capture["token_ids"]) == len(capture["logprobs"]) == message.usage_metadata["output_tokens"]
    assert len(capture["prompt_token_ids"]) == message.usage_metadata["input_tokens"]
    assert all(logprob <= 0 for logprob in capture["logprobs"])
    prompt = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert len(capture["prompt_token_ids"]) == tokenizer.count(prompt)
    assert capture["model"] == "tiny"
    assert capture["finish_reason"] == "stop"
    assert capture["sampling"]["temperature"] == 1.0


async def test_logprobs_are_those_of_transformers(served: Served, vllm_python: Path) -> None:
    """Unconstrained, temperature 1: what a trainer computes from the same tokens, in float32."""
    model = served.chat(max_tokens=64)
    replies = await asyncio.gather(*(ask(model, question, tools=TOOLS) for question in QUESTIONS))
    captures = [capture for _, capture in replies]
    lines = [json.dumps({"prompt": c["prompt_token_ids"], "completion": c["token_ids"]}) for c in captures]
    script = Path(__file__).with_name("logprobs.py")
    done = await asyncio.to_thread(
        subprocess.run,
        [vllm_python, script, served.model],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    expected = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(map(len, expected)) > 20
    for capture, logprobs in zip(captures, expected, strict=True):
        assert capture["logprobs"] == pytest.approx(logprobs, abs=1e-4)


async def test_logprobs_are_of_the_sampled_distribution(served: Served) -> None:
    """`processed_logprobs`: where top_k leaves one token, its probability is one."""
    _, capture = await ask(served.chat(max_tokens=32, extra_body={"top_k": 1}))
    assert capture["logprobs"] == pytest.approx([0.0] * len(capture["token_ids"]))


@pytest.mark.parametrize("bound", [{}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "required"}])
async def test_streaming_loses_no_token(served: Served, bound: dict[str, Any]) -> None:
    for seed in range(4):
        whole, expected = await ask(served.chat(seed=seed), **bound)
        streamed, capture = await ask(served.chat(seed=seed, disable_streaming=False, streaming=True), **bound)
        assert capture["token_ids"] == expected["token_ids"]
        assert capture["prompt_token_ids"] == expected["prompt_token_ids"]
        assert capture["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)
        assert (streamed.text, streamed.usage_metadata) == (whole.text, whole.usage_metadata | _cached(streamed))
        assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [
            (c["name"], c["args"]) for c in whole.tool_calls
        ]


def _cached(message: Any) -> dict[str, Any]:
    """How much of a prompt was found in the cache may differ from request to request."""
    return {"input_token_details": message.usage_metadata["input_token_details"]}


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_listener_for_messages_loses_no_token(served: Served, streaming: bool) -> None:
    captures: list[Capture] = []
    model = served.chat(seed=3, **({"disable_streaming": False} if streaming else {}))

    async def node(state: MessagesState) -> MessagesState:
        reply = await model.bind_tools(TOOLS, tool_choice="required").ainvoke(state["messages"])
        message, capture = take_capture(reply)
        assert capture is not None
        captures.append(capture)
        return {"messages": [message]}

    graph: Any = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
    parts = [part async for part in graph.astream({"messages": [("user", "q")]}, stream_mode="messages")]
    assert (len(parts) > 1) == streaming
    assert len(captures[0]["token_ids"]) == len(captures[0]["logprobs"]) > 0
    assert captures[0]["prompt_token_ids"]


async def test_a_required_choice_gives_valid_calls(served: Served) -> None:
    """A model with random weights calls correctly: names, enums, types and required fields are in the grammar."""
    model = served.chat().bind_tools(TOOLS, tool_choice="required")
    replies = await asyncio.gather(*(ask(model, f"{n}") for n in range(32)))
    calls = [call for message, _ in replies for call in message.tool_calls]
    assert all(message.tool_calls and not message.invalid_tool_calls for message, _ in replies)
    assert {call["name"] for call in calls} == {"paint", "erase"}
    for call in calls:
        assert call["args"].keys() == PROPERTIES.keys()
        assert call["args"]["colour"] in COLOUR["enum"]
        assert call["args"]["number"] in range(10)
        assert isinstance(call["args"]["text"], str)
    assert all(capture["sampling"]["tool_choice"] == "required" for _, capture in replies)


async def test_nothing_is_constrained_without_a_required_choice(served: Served) -> None:
    replies = await asyncio.gather(*(ask(served.chat().bind_tools(TOOLS), f"{n}") for n in range(16)))
    assert sum(bool(message.tool_calls) for message, _ in replies) < 16
    assert all(capture["finish_reason"] == "stop" for _, capture in replies)


async def test_cached_tokens_are_told(served: Served, metrics: httpx.Client) -> None:
    before = Load.of(read_metrics(metrics.get("/metrics").text))
    question = "The same long beginning of a prompt. " * 30
    first, _ = await ask(served.chat(max_tokens=8), question)
    second, _ = await ask(served.chat(max_tokens=8), question)
    cached = second.usage_metadata["input_token_details"]["cache_read"]
    assert cached > 0.8 * second.usage_metadata["input_tokens"]
    for _ in range(50):
        load = Load.of(read_metrics(metrics.get("/metrics").text)).since(before)
        if load.requests == 2:
            break
        await asyncio.sleep(0.1)
    assert load.requests == 2
    assert load.prompt_tokens == 2 * second.usage_metadata["input_tokens"]
    assert load.cache_hits == cached + first.usage_metadata["input_token_details"]["cache_read"]


@pytest.mark.parametrize("text", ["", "hello world", "日本語 ünï 🙂🙂", "<|im_end|> a\n\nb", "x" * 3000])
async def test_the_servers_tokenizer_is_the_folders(served: Served, tiny_model: Path, text: str) -> None:
    local, remote = FolderTokenizer(tiny_model), ServerTokenizer(served.base_url, "tiny")
    assert remote.count(text) == local.count(text)
    for tokens in (0, 1, 3, 50):
        assert remote.last(text, tokens) == local.last(text, tokens)
        assert remote.first(text, tokens) == local.first(text, tokens)


async def test_the_doctor_finds_all_that_a_router_needs(served: Served, vllm_python: Path) -> None:
    done = orchestra("doctor", "--base-url", served.base_url, "--python", vllm_python, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in report["checks"]}
    wanted = ["vllm", "server", "model", "tool calls", "required tool choice", "token ids", "logprobs", "prefix cache"]
    assert {name: states.get(name) for name in wanted} == dict.fromkeys(wanted, "ok"), report


async def test_an_unknown_model_is_refused_in_words(served: Served) -> None:
    with pytest.raises(Exception, match=r"404.*does not exist"):
        await ChatVLLM(model="nobody", base_url=served.base_url).ainvoke("hello")


async def test_a_prompt_that_is_too_long_is_told_from_other_refusals(served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await served.chat().ainvoke("word " * 100_000)
    assert is_overflow(refused.value)
