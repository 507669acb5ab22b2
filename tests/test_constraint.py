"""When the router's server is asked to write valid calls only, and that the trajectory says so."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from orchestra_graph.errors import ConfigError, RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.turns import Decision
from orchestra_graph.vllm import ChatVLLM
from tests.openai_server import OpenAIServer, Refusal, Reply

ANSWER = Reply("", calls=[("final_answer", {"answer": "4"})])


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


class Free(Protocol):
    """As a released checkpoint is asked: fixed sampling, nothing constrained."""

    name: ClassVar[str] = "free"
    sampling: Mapping[str, Any] = {"temperature": 1.0, "max_tokens": 77}

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        decision: Decision = yield from ConversationProtocol().decide(situation)
        return decision


def vllm(server: OpenAIServer) -> ChatVLLM:
    return ChatVLLM(model="m", base_url=server.base_url)


def openai(server: OpenAIServer) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=server.base_url, api_key=SecretStr("k"), max_retries=0)


@pytest.mark.parametrize(
    ("model", "protocol", "constraint", "purpose", "expected"),
    [
        (vllm, None, "auto", "serve", "required"),
        (vllm, None, "auto", "train", None),
        (vllm, None, "required", "train", None),
        (vllm, None, None, "serve", None),
        (vllm, Free(), "auto", "serve", None),
        (vllm, Free(), "required", "serve", "required"),
        (openai, None, "auto", "serve", None),
        (openai, None, "required", "serve", "required"),
    ],
)
async def test_constraint_sent_and_recorded(
    openai_server: OpenAIServer,
    tmp_path: Path,
    model: Any,
    protocol: Protocol | None,
    constraint: Literal["auto", "required"] | None,
    purpose: str,
    expected: str | None,
) -> None:
    openai_server.script = [ANSWER]
    graph = create_orchestrator(
        model(openai_server), [add], protocol=protocol, constraint=constraint, run_log=RunLog(tmp_path / "runs.jsonl")
    ).compile()
    state = await graph.ainvoke({"messages": [("user", "2 + 2?")]}, context={"task": {"purpose": purpose}})
    assert state["answer"] == "4"
    (request,) = openai_server.requests
    assert request.body.get("tool_choice") == expected
    (run,) = read_runs(tmp_path / "runs.jsonl")
    assert run.constraint == expected


async def test_sampling_that_the_protocol_fixes_is_sent(openai_server: OpenAIServer) -> None:
    openai_server.script = [ANSWER]
    await (
        create_orchestrator(vllm(openai_server), [add], protocol=Free())
        .compile()
        .ainvoke({"messages": [("user", "2 + 2?")]})
    )
    body = openai_server.requests[0].body
    assert (body["temperature"], body["max_completion_tokens"]) == (1.0, 77)
    assert not {"tool_choice", "top_p", "top_k", "seed"} & body.keys()


async def test_a_prompt_that_is_too_long_is_not_blamed_on_the_constraint(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(400, "This model's maximum context length is 64 tokens. However, you requested 80")]
    graph = create_orchestrator(vllm(openai_server), [add]).compile()
    with pytest.raises(RouterError, match="maximum context length") as caught:
        await graph.ainvoke({"messages": [("user", "2 + 2?")]})
    assert "constraint" not in str(caught.value)


async def test_a_server_that_refuses_the_constraint_is_told_with_the_fix(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(400, "tool_choice is not supported")]
    graph = create_orchestrator(vllm(openai_server), [add]).compile()
    with pytest.raises(RouterError, match=r"tool_choice is not supported.*constraint=None"):
        await graph.ainvoke({"messages": [("user", "2 + 2?")]})


async def test_other_refusals_do_not_blame_the_constraint(openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(401, "no such key")]
    graph = create_orchestrator(vllm(openai_server), [add]).compile()
    with pytest.raises(RouterError, match="no such key") as raised:
        await graph.ainvoke({"messages": [("user", "2 + 2?")]})
    assert "constraint" not in str(raised.value)


def test_an_unknown_constraint_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"constraint = 'json'; expected 'auto', 'required' or None"):
        create_orchestrator(ScriptedRouter([]), [add], constraint="json")  # type: ignore[arg-type]
