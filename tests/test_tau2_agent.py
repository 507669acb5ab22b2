"""The service graph as an agent of tau2, against small classes with the interface of tau2 1.0.1.

The stand-ins below have the names, fields and signatures that the adapter uses, and an environment and a loop that pass
messages on as tau2's orchestrator does. tau2 itself is not installed for these tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from orchestra_graph import ConfigError, MissingError
from orchestra_graph.settings import load_module
from tests.openai_server import Body, OpenAIServer, Reply
from tests.test_graphs_service import KEYS, settings

ADAPTER: Any = load_module(Path(__file__).parent.parent / "graphs" / "tau2_agent.py")


class ToolCall(BaseModel):
    id: str = ""
    name: str
    arguments: dict[str, Any]
    requestor: Literal["user", "assistant"] = "assistant"


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    cost: float | None = None


class UserMessage(BaseModel):
    role: Literal["user"]
    content: str | None = None


class ToolMessage(BaseModel):
    id: str
    role: Literal["tool"]
    content: str | None = None
    error: bool = False


class MultiToolMessage(BaseModel):
    role: Literal["tool"]
    tool_messages: list[ToolMessage]


class HalfDuplexAgent:
    def __init__(self, tools: list[Any], domain_policy: str) -> None:
        self.tools = tools
        self.domain_policy = domain_policy


@dataclass
class EnvironmentFunction:
    """`tau2.environment.tool.Tool`, as far as an agent sees it."""

    name: str
    run: Callable[..., str]
    parameters: dict[str, Any]

    @property
    def openai_schema(self) -> dict[str, Any]:
        function = {"name": self.name, "description": f"Does {self.name}.", "parameters": self.parameters}
        return {"type": "function", "function": function}


class Registry:
    def __init__(self) -> None:
        self.factories: dict[str, Callable[..., Any]] = {}

    def register_agent_factory(self, factory: Callable[..., Any], name: str) -> None:
        if name in self.factories:
            raise ValueError(f"Agent factory {name} already registered")
        self.factories[name] = factory


INSTRUCTION = "You are tau2's agent."


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A package `tau2` with the modules that the adapter imports."""
    registry = Registry()
    messages = {c.__name__: c for c in (ToolCall, AssistantMessage, UserMessage, ToolMessage, MultiToolMessage)}
    modules: dict[str, dict[str, Any]] = {
        "tau2": {},
        "tau2.agent": {},
        "tau2.agent.base_agent": {"HalfDuplexAgent": HalfDuplexAgent},
        "tau2.agent.llm_agent": {"AGENT_INSTRUCTION": INSTRUCTION},
        "tau2.data_model": {"message": None},
        "tau2.data_model.message": messages,
        "tau2.registry": {"registry": registry},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["tau2.data_model"].message = sys.modules["tau2.data_model.message"]  # type: ignore[attr-defined]
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["OPENAI_API_KEY"])
    yield registry


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def look(n: int) -> str:
    if n < 0:
        raise ValueError(f"there is no {n}")
    return f"item {n}"


class Environment:
    """Carries the tools out, as tau2's environment answers the calls of a message."""

    def __init__(self) -> None:
        functions: list[tuple[str, Callable[..., str], dict[str, Any]]] = [
            ("look", look, NUMBER),
            ("ping", lambda: "pong", {}),
            ("transfer_to_human_agents", str, {}),
        ]
        self.tools = [EnvironmentFunction(name, run, parameters) for name, run, parameters in functions]
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def answer(self, message: AssistantMessage) -> ToolMessage | MultiToolMessage:
        results = [self._call(call) for call in message.tool_calls or ()]
        return results[0] if len(results) == 1 else MultiToolMessage(role="tool", tool_messages=results)

    def _call(self, call: ToolCall) -> ToolMessage:
        self.asked.append((call.name, call.arguments))
        run = next(tool.run for tool in self.tools if tool.name == call.name)
        try:
            return ToolMessage(id=call.id, role="tool", content=run(**call.arguments))
        except ValueError as error:
            return ToolMessage(id=call.id, role="tool", content=f"Error: {error}", error=True)


def play(agent: Any, environment: Environment, said: list[str], before: list[Any]) -> list[AssistantMessage]:
    """Pass messages on as tau2's orchestrator does; every message is either text or calls."""
    state = agent.get_init_state(before)
    spoken = []
    for text in said:
        message: Any = UserMessage(role="user", content=text)
        while True:
            reply, state = agent.generate_next_message(message, state)
            assert (reply.tool_calls is None) != (not (reply.content or "").strip())
            spoken.append(reply)
            if reply.tool_calls is None:
                break
            message = environment.answer(reply)
    return spoken


def made(registry: Registry, path: Path, environment: Environment) -> Any:
    ADAPTER.register(path)
    factory = registry.factories["orchestra_service"]
    return factory(tools=environment.tools, domain_policy="Be kind. Ask a human agent.", llm=None, task=None)


def test_a_simulation_runs_through_the_graph(registry: Registry, openai_server: OpenAIServer, tmp_path: Path) -> None:
    router = iter(
        [
            Reply("<think>a</think>", [("look", {"n": 2}), ("ping", {}), ("look", {"n": -1})]),
            Reply("<message>Found one.</message>"),
            Reply("", [("call_expert", {"expert": "expert-1"})]),
            Reply("<message>Bye.</message>"),
        ]
    )

    def script(body: Body) -> Reply:
        return next(router) if "Nemotron" in body["model"] else Reply("", [("look", {"n": 5})])

    openai_server.script = script
    environment = Environment()
    agent = made(registry, settings(tmp_path, openai_server.base_url), environment)
    greeting = AssistantMessage(role="assistant", content="Hi! How can I help you today?")
    spoken = play(agent, environment, ["2 and -1?", "And 5?"], [greeting])
    assert [message.content for message in spoken] == [None, "Found one.", None, "Bye."]
    assert environment.asked == [("look", {"n": 2}), ("ping", {}), ("look", {"n": -1}), ("look", {"n": 5})]
    assert all(message.cost is not None and message.cost >= 0 for message in spoken) and spoken[2].cost
    bodies = [request.body for request in openai_server.requests]
    last = bodies[-1]["messages"]
    assert [(m["role"], m["content"]) for m in last[1:]] == [
        ("user", "2 and -1?"),
        ("assistant", None),
        ("tool", "item 2"),
        ("tool", "pong"),
        ("tool", "Error: there is no -1"),
        ("assistant", "Found one."),
        ("user", "And 5?"),
        ("assistant", None),
        ("tool", "item 5"),
    ]
    assert last[0]["content"].startswith(f"<instructions>\n{INSTRUCTION}\n</instructions>\n<policy>\nBe kind. ")
    names = [tool["function"]["name"] for tool in bodies[0]["tools"]]
    assert names == ["look", "ping", "call_expert"]
    asked = next(body for body in bodies if body["model"] == "gpt-5")
    assert "transfer_to_human_agents" in json.dumps(asked["tools"]) and "human agent" in asked["messages"][0]["content"]


def test_agents_share_nothing_and_take_up_a_history(
    registry: Registry, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script = [Reply("Hello.")]
    environment = Environment()
    path = settings(tmp_path, openai_server.base_url)
    first = made(registry, path, environment)
    second = registry.factories["orchestra_service"](tools=environment.tools, domain_policy="P")
    history = [
        UserMessage(role="user", content="Earlier."),
        AssistantMessage(role="assistant", tool_calls=[ToolCall(id="h", name="ping", arguments={})]),
        ToolMessage(id="h", role="tool", content="pong"),
        AssistantMessage(role="assistant", content="There."),
    ]
    play(first, environment, ["One."], history)
    play(second, environment, ["Two."], [])
    texts = [[m["content"] for m in request.body["messages"][1:]] for request in openai_server.requests]
    assert texts == [["Earlier.", None, "pong", "There.", "One."], ["Two."]]
    first.set_seed(3)


def test_a_result_that_nobody_waits_for_is_refused(
    registry: Registry, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    agent = made(registry, settings(tmp_path, openai_server.base_url), Environment())
    with pytest.raises(ConfigError, match=r"results of \['x'\]; expected those of the calls \[\]"):
        agent.generate_next_message(ToolMessage(id="x", role="tool"), agent.get_init_state())


def test_another_package_of_that_name_is_not_tau2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tau2", ModuleType("tau2"))
    with pytest.raises(MissingError, match=r"tau2 1\.x is missing; fix: pip install git\+https"):
        ADAPTER.register()
