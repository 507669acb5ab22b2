"""The ready graph for service, loaded by path and talked to over HTTP; and its example domain, a shop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph import ConfigError, ToolError
from orchestra_graph.settings import load, load_module
from tests.openai_server import Body, OpenAIServer, Reply

GRAPHS = Path(__file__).parent.parent / "graphs"
TOKENIZER = Path(__file__).parent / "data" / "tokenizer"
SHIPPED = (GRAPHS / "service.toml").read_text(encoding="utf-8")
SERVICE: Any = load_module(GRAPHS / "service.py")
KEYS = {"OPENAI_API_KEY": "k"}


def settings(folder: Path, url: str, **lines: str) -> Path:
    """The shipped settings, with every model at one address, and the files that they name."""
    text = SHIPPED.replace("http://localhost:8000/v1", url).replace("http://localhost:8001/v1", url)
    text = text.replace('api_key_env = "OPENAI_API_KEY"', f'api_key_env = "OPENAI_API_KEY"\nbase_url = "{url}"')
    for name in ("shop.py", "shop_policy.md"):
        (folder / name).write_text((GRAPHS / name).read_text(encoding="utf-8"), encoding="utf-8")
    given = {"tokenizer": f'"{TOKENIZER}"', **lines}
    path = folder / "service.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in given.items()) + "\n" + text, encoding="utf-8")
    return path


def conversation(path: Path) -> Callable[..., Any]:
    graph = SERVICE.make(path, KEYS).compile(checkpointer=InMemorySaver())

    async def say(text: str, **context: Any) -> dict[str, Any]:
        config = {"configurable": {"thread_id": "1"}}
        state: dict[str, Any] = await graph.ainvoke({"messages": [("user", text)]}, config, context=context or None)
        return state

    return say


async def test_a_customer_is_served_by_router_expert_and_shop(openai_server: OpenAIServer, tmp_path: Path) -> None:
    router = iter(
        [
            Reply("<think>who</think>", [("find_customer", {"email": "ana@example.org"})]),
            Reply("<message>Shall I cancel the kettle, Ana?</message>"),
            Reply("<think>tricky</think>", [("call_expert", {"expert": "expert-2"})]),
            Reply("<message>Done, the kettle is cancelled.</message>"),
        ]
    )

    def script(body: Body) -> Reply:
        if body["model"] == "gpt-5-mini":
            return Reply("", [("cancel_order", {"order_id": "o1"})])
        return next(router)

    openai_server.script = script
    say = conversation(settings(tmp_path, openai_server.base_url))
    first = await say("I am ana@example.org. Cancel my kettle.")
    second = await say("Yes.")
    assert first["answer"] == "Shall I cancel the kettle, Ana?"
    assert second["answer"] == "Done, the kettle is cancelled."
    assert [message.type for message in second["messages"]] == [
        "human",
        "ai",
        "tool",
        "ai",
        "human",
        "ai",
        "tool",
        "ai",
    ]
    assert json.loads(second["messages"][-2].text)["status"] == "cancelled"
    assert {"router", "expert-2", "cancel_order"} <= second["ledger"]["tools"].keys()
    assert second["ledger"]["tools"]["expert-2"]["dollars"] > 0
    sent = [request.body for request in openai_server.requests]
    assert [body["model"].rpartition("/")[2] for body in sent] == [
        "Nemotron-Orchestrator-8B",
        "Nemotron-Orchestrator-8B",
        "Nemotron-Orchestrator-8B",
        "gpt-5-mini",
        "Nemotron-Orchestrator-8B",
    ]
    names = [tool["function"]["name"] for tool in sent[0]["tools"]]
    assert names == ["find_customer", "get_order", "cancel_order", "change_address", "return_order", "call_expert"]
    assert "human agent" not in sent[0]["messages"][0]["content"] + sent[3]["messages"][0]["content"]
    assert "logprobs" not in sent[3] and "Speak of nobody else's orders" in sent[3]["messages"][0]["content"]


async def test_preferences_and_budget_come_with_a_run(openai_server: OpenAIServer, tmp_path: Path) -> None:
    look = Reply("", [("get_order", {"order_id": "o9"})])
    openai_server.script = [look, look, Reply("There is no such order.")]
    say = conversation(settings(tmp_path, openai_server.base_url))
    state = await say("o9?", budget={"turns": 2}, preferences={"never": ["expert-1"]})
    assert (state["stopped_by"], state["answer"]) == ("turns", "There is no such order.")
    assert [turn["decision"]["by"] for turn in state["turns"].values()] == ["router", "router", "closing"]
    assert "expert-1" not in json.dumps(openai_server.requests[0].body["tools"])


async def test_the_paragraph_on_experts_can_be_given(openai_server: OpenAIServer, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("Ask when in doubt.\n", encoding="utf-8")
    openai_server.script = [Reply("Hi.")]
    lines = {"hand_over": '"ask.txt"', "clauses": '["Do one thing at a time."]', "run_log": '"runs.jsonl"'}
    await conversation(settings(tmp_path, openai_server.base_url, **lines))("Hello")
    system = openai_server.requests[0].body["messages"][0]["content"]
    assert "- Ask when in doubt. Do not promise" in system and "human agent" in system
    assert (tmp_path / "runs.jsonl").exists()


def test_the_shipped_graph_is_made_without_a_server(tmp_path: Path) -> None:
    graph = SERVICE.make(environment=KEYS).compile()
    assert {"router", "find_customer", "expert-1", "expert-3", "closing"} <= set(graph.get_graph().nodes)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY .* is missing; fix: export OPENAI_API_KEY"):
        SERVICE.make(environment={})
    path = settings(tmp_path, "http://127.0.0.1:1/v1")
    path.write_text(path.read_text().replace('[tools.expert-1]\nkind = "expert"', '[tools.expert-1]\nkind = "code"'))
    with pytest.raises(ConfigError, match="expert-1: expected experts alone in the catalog"):
        SERVICE.make(path, KEYS)


def shop() -> dict[str, Callable[..., str]]:
    return {function.__name__: function for function in load("shop.py:make_tools", GRAPHS)()}


def test_the_shop_keeps_its_records() -> None:
    first, other = shop(), shop()
    assert json.loads(first["find_customer"](" Ben@example.org "))["orders"] == ["o3", "o4"]
    assert json.loads(first["change_address"]("o1", "2 Mill Lane"))["address"] == "2 Mill Lane"
    assert json.loads(first["cancel_order"]("o1"))["status"] == "cancelled"
    assert json.loads(first["return_order"]("o2"))["status"] == "returned"
    assert json.loads(other["get_order"]("o1"))["status"] == "placed"


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("find_customer", ["x@example.org"], "no customer"),
        ("get_order", ["o9"], "no order o9"),
        ("cancel_order", ["o3"], "o3 is shipped; expected placed"),
        ("change_address", ["o2", "x"], "o2 is delivered"),
        ("return_order", ["o4"], "more than 30 days ago"),
        ("return_order", ["o1"], "o1 is placed; expected delivered"),
    ],
)
def test_the_shop_says_what_cannot_be_done(name: str, args: list[str], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        shop()[name](*args)
