"""Plays golden episodes of the service protocol, and puts requests into the words of the golden files.

The expected messages of a request are those of the request before it and what the file says is added ("append-only");
where the file states `messages`, they are these, with one mark at `{"gap": true}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph import Catalog, Latency, Price, ToolSpec, create_orchestrator
from orchestra_graph.protocols.nemotron_service import NemotronService
from orchestra_graph.tokens import FolderTokenizer
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.vllm import ChatVLLM
from tests.golden_episodes import FOLDER, TOKENIZER, calls_of, read, text_of
from tests.openai_server import Body, OpenAIServer, Reply

TOOLS = read(FOLDER / "nemotron_service" / "tools.json")

INSTRUCTIONS = "Serve the customer.\nKeep to the <policy> below; {policy} and 100% are plain text here."
HAND_OVER = "Call an expert where you are not sure {expert}, 100%."

FORMAT = (
    "  You are dedicated to provide the best service. Wrap thinking process between <think> </think>, "
    "message between <message> </message> and the tool call between <tool_call> </tool_call> ."
)
"""'then, literal:' with the two blanks before it."""

EXPERTS = {"expert-1": (1.25, 10.0, 96.0), "expert-2": (0.25, 2.0, 27.0), "expert-3": (0.8, 0.8, 11.0)}

Script = Iterator[dict[str, Any]]


class Function(Tool):
    """A function of the domain: its results are looked up by arguments."""

    def __init__(self, spec: ToolSpec, results: dict[str, str], called: list[Any]) -> None:
        self.spec = spec
        self._results = results
        self._called = called

    async def run(self, request: Request) -> Result:
        self._called.append([self.spec.name, request.args])
        return Result(self._results[_key(self.spec.name, request.args)])


class Advisor(Tool):
    """An expert that says, or calls, what the episode says."""

    def __init__(self, spec: ToolSpec, script: Script, called: list[Any]) -> None:
        self.spec = spec
        self._script = script
        self._called = called

    async def run(self, request: Request) -> Result:
        turn = next(self._script)
        assert turn["expert"] == self.spec.name
        self._called.append(self.spec.name)
        if "says" in turn:
            return Result(turn["says"], answer=turn["says"])
        calls = [{"name": name, "args": args} for name, args in turn["calls"]]
        return Result("calls", artifacts=[{"text": turn.get("text", ""), "calls": calls}])


def _key(name: str, args: dict[str, Any]) -> str:
    return json.dumps([name, args], sort_keys=True)


async def play(episode: dict[str, Any], server: OpenAIServer) -> tuple[list[str], list[Body], list[Any]]:
    """Run an episode: the answers, the bodies of the requests, the functions and experts called."""
    turns = [turn for run in episode["runs"] for turn in run["turns"]]
    server.script = [Reply(turn["reply"].get("content", ""), calls=calls_of(turn["reply"])) for turn in turns]
    called: list[Any] = []
    graph = create_orchestrator(
        ChatVLLM(model="orchestrator", base_url=server.base_url),
        [*_functions(turns, called), *_advisors(iter([turn for turn in turns if "expert" in turn]), called)],
        catalog=catalog(),
        protocol=NemotronService(
            FolderTokenizer(TOKENIZER.parent),
            text_of(episode["policy"]),
            instructions=INSTRUCTIONS,
            hand_over=HAND_OVER,
        ),
        fallback=None,
    ).compile(checkpointer=InMemorySaver())
    answers = []
    for n, run in enumerate(episode["runs"]):
        messages = [*(_given(episode.get("before", ())) if n == 0 else ()), HumanMessage(text_of(run["user"]))]
        state = await graph.ainvoke({"messages": messages}, {"configurable": {"thread_id": "1"}}, durability="exit")
        answers.append(state["answer"])
    return answers, [request.body for request in server.requests], called


def catalog() -> Catalog:
    """The domain's functions and three experts."""
    functions = [ToolSpec(**function) for function in TOOLS["functions"]]
    experts = [
        ToolSpec(
            name=name,
            kind="expert",
            role="chat",
            description=f"{name} is an expert of its own kind.",
            price=Price(input=price_in, output=price_out),
            latency=Latency(p50=seconds),
        )
        for name, (price_in, price_out, seconds) in EXPERTS.items()
    ]
    return Catalog.of([*functions, *experts])


def _functions(turns: list[dict[str, Any]], called: list[Any]) -> list[Function]:
    results: dict[str, str] = {}
    for turn in turns:
        calls = turn.get("calls") or turn["reply"].get("calls", ())
        for (name, args), result in zip(calls, turn.get("results", ()), strict=False):
            results[_key(name, args)] = text_of(result)
    return [Function(spec, results, called) for spec in catalog().tools.values() if spec.kind == "function"]


def _advisors(script: Script, called: list[Any]) -> list[Advisor]:
    return [Advisor(spec, script, called) for spec in catalog().tools.values() if spec.kind == "expert"]


def _given(before: list[dict[str, Any]]) -> list[AnyMessage]:
    """Messages that are in the conversation when the first run starts."""
    messages: list[AnyMessage] = []
    waiting: list[str] = []
    for n, message in enumerate(before):
        if "user" in message:
            messages.append(HumanMessage(text_of(message["user"])))
        elif "tool" in message:
            messages.append(ToolMessage(text_of(message["tool"]), tool_call_id=waiting.pop(0)))
        else:
            calls = [{"name": c, "args": a, "id": f"g{n}-{i}"} for i, (c, a) in enumerate(message.get("calls", ()))]
            waiting = [str(call["id"]) for call in calls]
            messages.append(AIMessage(text_of(message["assistant"]), tool_calls=calls))
    return messages


def expected_calls(episode: dict[str, Any]) -> list[Any]:
    """Functions and experts that an episode calls."""
    found: list[Any] = []
    for turn in (turn for run in episode["runs"] for turn in run["turns"]):
        if "expert" in turn:
            found.append(turn["expert"])
        calls = turn.get("calls") or turn["reply"].get("calls", ())
        found += calls[: len(turn.get("results", ()))]
    return found


def expected_messages(episode: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The messages of each request, texts written out."""
    found: list[list[dict[str, Any]]] = []
    for request in episode["requests"]:
        earlier = found[-1] if found else []
        messages = request["messages"] if "messages" in request else [*earlier, *request["adds"]]
        found.append([{k: v if k in ("gap", "calls") else text_of(v) for k, v in m.items()} for m in messages])
    return found


def as_golden(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of a request's body, the system text aside, in the words of the golden files; ids are checked."""
    found: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        role = message["role"]
        if role == "tool":
            assert set(message) == {"role", "content", "tool_call_id"}
            assert message["tool_call_id"] == waiting.pop(0)
            found.append({"tool": message["content"]})
            continue
        assert waiting == [], "a call without its result"
        found.append({role: message["content"] or ""})
        calls = message.get("tool_calls") or []
        if calls:
            found[-1]["calls"] = [[c["function"]["name"], json.loads(c["function"]["arguments"])] for c in calls]
            waiting = [call["id"] for call in calls]
            assert len(set(waiting)) == len(waiting)
        assert set(message) <= {"role", "content", "tool_calls"}
    return found
