"""Byte test of the released checkpoint's protocols: golden episodes, played over HTTP; what is the router sent?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as PlainTokenizer

from orchestra_graph import Catalog, Expert, ToolError, ToolSpec, create_orchestrator
from orchestra_graph.protocols.nemotron_qa import NemotronQA
from orchestra_graph.testing import ScriptedExpert
from orchestra_graph.tokens import FolderTokenizer
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.vllm import ChatVLLM
from tests import golden_reference, golden_service
from tests.golden_episodes import FOLDER, TOKENIZER, calls_of, episodes, read, requests_of, shown, text_of
from tests.openai_server import Body, OpenAIServer, Reply

CATALOG = Path(golden_reference.__file__).parent.parent / "orchestra_graph" / "catalogs" / "nemotron.toml"
QA = episodes("nemotron_qa")
SERVICE = episodes("nemotron_service")
TABLES = read(FOLDER / "nemotron_qa" / "tools.json")

READ = {"model", "messages", "tools", "temperature", "max_tokens"}
CLOSED = "closed"
"""What an expert answers when the script is over and the graph closes the run."""

UNREAD = {"logprobs", "return_token_ids", "stream"}
"""Fields of a request that change nothing of what the model reads or draws."""


class Scripted(Tool):
    """An expert that brings what the episode says."""

    def __init__(self, spec: ToolSpec, script: list[tuple[str, dict[str, Any]]], called: list[str]) -> None:
        self.spec = spec
        self._script = script
        self._called = called

    async def run(self, request: Request) -> Result:
        if len(self._called) == len(self._script):
            return Result(CLOSED, answer=CLOSED)
        expected, brings = self._script[len(self._called)]
        self._called.append(self.spec.name)
        assert self.spec.name == expected
        if "error" in brings:
            raise ToolError(brings["error"])
        if "answer" in brings:
            return Result(brings["answer"], answer=brings["answer"])
        if "code" in brings:
            return Result("ran", artifacts=[{"code": text_of(brings["code"]), "output": text_of(brings["output"])}])
        return Result("found", artifacts=[_document(d, n) for n, d in enumerate(brings["documents"])])


def _document(recipe: Any, rank: int) -> dict[str, Any]:
    if isinstance(recipe, dict) and "text" in recipe:
        return {**recipe, "text": text_of(recipe["text"])}
    return {"text": text_of(recipe), "source": "", "title": "", "score": 1.0 / (rank + 1)}


async def play(episode: dict[str, Any], server: OpenAIServer) -> tuple[dict[str, Any], list[Body], list[str]]:
    """Run an episode: the state at its end, the bodies of the requests, the aliases called."""
    server.script = [Reply(t["reply"].get("content", ""), calls=calls_of(t["reply"])) for t in episode["turns"]]
    script = [(turn["executes"], turn["brings"]) for turn in episode["turns"] if "executes" in turn]
    called: list[str] = []
    catalog = Catalog.from_toml(CATALOG)
    graph = create_orchestrator(
        ChatVLLM(model="orchestrator", base_url=server.base_url),
        [Scripted(spec, script, called) for spec in catalog.tools.values()],
        catalog=catalog,
        protocol=NemotronQA(FolderTokenizer(TOKENIZER.parent), variant=episode["variant"]),
        fallback=None,
        max_malformed=1_000,
    )
    state = await graph.compile().ainvoke({"messages": [("user", text_of(episode["problem"]))]})
    return state, [request.body for request in server.requests], called


def as_golden(body: Body) -> dict[str, Any]:
    """A request's body in the words of the golden files."""
    system, user = body["messages"]
    assert [(m["role"], sorted(m)) for m in (system, user)] == [(r, ["content", "role"]) for r in ("system", "user")]
    return {
        "system": system["content"],
        "user": shown(user["content"]),
        "tools": [tool["function"]["name"] for tool in body["tools"]],
        "temperature": body["temperature"],
        "max_tokens": most_tokens(body),
    }


def most_tokens(body: Body) -> Any:
    """The bound on a reply; langchain-openai sends it under the newer of the API's two names."""
    assert ("max_tokens" in body) != ("max_completion_tokens" in body)
    return body.get("max_tokens", body.get("max_completion_tokens"))


def fields(body: Body) -> set[str]:
    """Names of a body's fields, those aside that the model does not notice."""
    return {"max_tokens" if name == "max_completion_tokens" else name for name in body} - UNREAD


@pytest.mark.parametrize("path", QA, ids=lambda path: path.stem)
async def test_questions_are_asked_as_the_golden_files_say(path: Path, openai_server: OpenAIServer) -> None:
    episode = read(path)
    state, bodies, called = await play(episode, openai_server)
    for n, (expected, body) in enumerate(zip(requests_of(episode), bodies, strict=False)):
        assert as_golden(body) == expected, f"request {n}"
        assert fields(body) == READ, f"request {n}"
    assert len(bodies) == len(episode["requests"])
    assert called == [turn["executes"] for turn in episode["turns"] if "executes" in turn]
    assert state["answer"] == episode["turns"][-1]["brings"]["answer"]
    assert state["stopped_by"] == "answer"


async def test_a_run_has_at_most_fifty_turns_however_many_replies_are_invalid(openai_server: OpenAIServer) -> None:
    episode = {"variant": "frames", "problem": "Q", "turns": [{"reply": {"content": "<think>no call</think>"}}]}
    state, bodies, _ = await play(episode, openai_server)
    assert [as_golden(body) for body in bodies] == [as_golden(bodies[0])] * 50
    assert (state["stopped_by"], state["answer"]) == ("turns", CLOSED)


async def test_code_of_an_expert_is_shown_as_it_was_written(openai_server: OpenAIServer) -> None:
    """Line ends after the opening and before the closing fence are part of the code; stdout is as it was printed."""
    written = "Let me see.\n```python\nprint(6 * 7)\n```\nThat is it."
    openai_server.script = [
        Reply(calls=[("enhance_reasoning", {"model": "reasoner-1"})]),
        Reply(calls=[("answer", {"model": "answer-1"})]),
    ]
    catalog = Catalog.from_toml(CATALOG).restrict(["reasoner-1", "answer-1"])
    graph = create_orchestrator(
        ChatVLLM(model="orchestrator", base_url=openai_server.base_url),
        [
            Expert(ScriptedExpert(written), name="reasoner-1", role="code"),
            Expert(ScriptedExpert("<answer>42</answer>"), name="answer-1"),
        ],
        catalog=catalog,
        protocol=NemotronQA(FolderTokenizer(TOKENIZER.parent), variant="hle"),
    )
    await graph.compile().ainvoke({"messages": [("user", "Q")]})
    assert openai_server.requests[1].body["messages"][1]["content"] == (
        "Problem: Q\n\n\npython code and execution outputs:\n"
        "```python\n\nprint(6 * 7)\n\n```\n\n```output\n42\n\n```\n\n"
        "\n\nChoose an appropriate tool.'"
    )


async def test_the_functions_name_the_aliases_and_their_table(openai_server: OpenAIServer) -> None:
    catalog = Catalog.from_toml(CATALOG)
    _, bodies, _ = await play(read(QA[0]), openai_server)
    for function, expected in zip(bodies[0]["tools"], TABLES, strict=True):
        check_function(function, expected)
        described = function["function"]["parameters"]["properties"]["model"]["description"]
        for alias in expected["aliases"]:
            assert catalog.tools[alias].description
            assert catalog.tools[alias].description in described


def check_function(function: dict[str, Any], expected: dict[str, Any]) -> None:
    """Name, the one required text, and a description that ends in the table; the sentences are free."""
    assert function["type"] == "function"
    assert set(function) == {"type", "function"}
    named = function["function"]
    assert set(named) == {"name", "description", "parameters"}
    assert named["name"] == expected["name"]
    parameters = named["parameters"]
    assert parameters["type"] == "object"
    assert parameters["required"] == [expected["parameter"]]
    assert list(parameters["properties"]) == [expected["parameter"]]
    assert parameters["properties"][expected["parameter"]]["type"] == "string"
    lines = parameters["properties"][expected["parameter"]]["description"].split("\n")
    assert lines[-len(expected["table"]) :] == expected["table"]
    above = "\n".join(lines[: -len(expected["table"])])
    places = [above.index(alias) for alias in expected["aliases"]]
    assert places == sorted(places)


@pytest.mark.slow
def test_the_reference_agrees_with_the_files() -> None:
    """Those written by hand check the slow reading; those that it wrote are as it would write them today."""
    cutter = golden_reference.Cutter(PlainTokenizer.from_file(str(TOKENIZER)))
    for path in QA:
        episode = read(path)
        assert golden_reference.requests(episode, cutter) == requests_of(episode), path.name


@pytest.mark.parametrize("path", SERVICE, ids=lambda path: path.stem)
async def test_customers_are_served_as_the_golden_files_say(path: Path, openai_server: OpenAIServer) -> None:
    episode = read(path)
    answers, bodies, called = await golden_service.play(episode, openai_server)
    names = [function["name"] for function in golden_service.TOOLS["functions"]]
    for n, (expected, body) in enumerate(zip(golden_service.expected_messages(episode), bodies, strict=False)):
        system, *messages = body["messages"]
        check_system(system, episode)
        check_messages(golden_service.as_golden(messages), expected, f"request {n}")
        assert fields(body) == READ
        assert (body["temperature"], most_tokens(body)) == (1, 8_000)
        assert [tool["function"]["name"] for tool in body["tools"]] == [*names, "call_expert"]
    assert len(bodies) == len(episode["requests"])
    assert answers == [run["answer"] for run in episode["runs"]]
    assert sorted(map(json.dumps, called)) == sorted(map(json.dumps, golden_service.expected_calls(episode)))


def check_system(message: dict[str, Any], episode: dict[str, Any]) -> None:
    """The frame, the policy within it, and the literal end."""
    assert sorted(message) == ["content", "role"]
    assert message["role"] == "system"
    opening = f"<instructions>\n{golden_service.INSTRUCTIONS}\n</instructions>\n<policy>\n"
    closing = f"\n</policy>{golden_service.FORMAT}"
    text = message["content"]
    assert text.startswith(opening)
    assert text.endswith(closing)
    policy = text.removeprefix(opening).removesuffix(closing)
    if "policy_sent" not in episode:
        assert policy == text_of(episode["policy"])
        return
    place = 0
    for part in episode["policy_sent"]["with"]:
        place = policy.index(part.replace("{paragraph}", golden_service.HAND_OVER), place)
    for part in episode["policy_sent"]["without"]:
        assert part not in policy


def check_messages(found: list[dict[str, Any]], expected: list[dict[str, Any]], where: str) -> None:
    """The messages are those expected; the wording of the mark of a gap is free."""
    gaps = [n for n, message in enumerate(expected) if "gap" in message]
    if gaps:
        (gap,) = gaps
        assert len(found) == len(expected), where
        assert found[gap] not in expected, where
        found, expected = [*found[:gap], *found[gap + 1 :]], [*expected[:gap], *expected[gap + 1 :]]
    assert found == expected, where


async def test_the_domain_s_functions_and_the_experts_table(openai_server: OpenAIServer) -> None:
    _, bodies, _ = await golden_service.play(read(SERVICE[0]), openai_server)
    *functions, call_expert = bodies[0]["tools"]
    assert functions == [{"type": "function", "function": f} for f in golden_service.TOOLS["functions"]]
    check_function(call_expert, golden_service.TOOLS["call_expert"])


def test_there_are_enough_episodes() -> None:
    by_hand = [path.name for path in QA if read(path)["by"] == "hand"]
    assert len(QA) >= 20
    assert len(by_hand) >= 12
    assert len(SERVICE) >= 10
    assert {json.loads(path.read_text())["variant"] for path in QA} == {"hle", "frames"}
