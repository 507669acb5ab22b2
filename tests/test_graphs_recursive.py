"""The ready graph that takes questions apart, over HTTP: helpers inside helpers, one ledger."""

from __future__ import annotations

from math import fsum
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph import ConfigError
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.settings import load_module
from tests.openai_server import Body, OpenAIServer, Reply

GRAPHS = Path(__file__).parent.parent / "graphs"
SHIPPED = (GRAPHS / "recursive.toml").read_text(encoding="utf-8")
RECURSIVE: Any = load_module(GRAPHS / "recursive.py")
KEYS = {"OPENAI_API_KEY": "k"}
QUESTION: Any = {"messages": [("user", "Which tower is older, and by how much?")]}
PARTS = {
    "Which tower is older, and by how much?": ["When was the first tower built?", "When was the second tower built?"],
    "When was the first tower built?": ["Who built the first tower?"],
}


def settings(folder: Path, url: str, depth: int, *lines: str) -> Path:
    """The shipped settings, with every model at one address."""
    text = SHIPPED.replace("http://localhost:8000/v1", url).replace("depth = 2", f"depth = {depth}")
    text = text.replace('api_key_env = "OPENAI_API_KEY"', f'api_key_env = "OPENAI_API_KEY"\nbase_url = "{url}"')
    path = folder / "recursive.toml"
    path.write_text("\n".join(lines) + "\n" + text, encoding="utf-8")
    return path


def script(body: Body) -> Reply:
    """A router that hands the parts of a question to helpers, or all of it to an expert, and has another answer."""
    messages = body["messages"]
    if body["model"] == "gpt-5-mini":
        return Reply("It was built in 1128.")
    if body["model"] == "gpt-5":
        return Reply(f"<answer>{str(messages).count('built in 1128')} found</answer>")
    if any(message["role"] == "tool" for message in messages):
        return Reply("", [("large", {})])
    parts = next((parts for question, parts in PARTS.items() if question in str(messages)), [])
    if parts and "helper" in [tool["function"]["name"] for tool in body["tools"]]:
        return Reply("", [("helper", {"request": part}) for part in parts])
    return Reply("", [("small", {})])


@pytest.mark.parametrize(
    ("depth", "charged"),
    [
        (1, {"router", "small"}),
        (2, {"router", "helper", "helper/router", "helper/small"}),
        (3, {"router", "helper", "helper/router", "helper/small", "helper/helper", "helper/helper/router"}),
    ],
)
async def test_helpers_are_asked_as_deep_as_configured(
    depth: int, charged: set[str], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script = script
    graph = RECURSIVE.make(settings(tmp_path, openai_server.base_url, depth), KEYS).compile()
    state = await graph.ainvoke(QUESTION)
    tools = state["ledger"]["tools"]
    assert state["stopped_by"] == "answer"
    assert charged <= set(tools)
    assert max(name.count("helper") for name in tools) == depth - 1
    charges = [charge for turn in state["turns"].values() for charge in turn["charges"].values()]
    for model in ("gpt-5", "gpt-5-mini"):
        sent = [request for request in openai_server.requests if request.body["model"] == model]
        assert len(sent) == sum(charge.get("model") == model for charge in charges) >= 1
    assert state["ledger"]["dollars"] == pytest.approx(fsum(charge["dollars"] for charge in charges)) and charges


async def test_helpers_stay_within_the_budget_of_the_run(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script = script
    graph = RECURSIVE.make(settings(tmp_path, openai_server.base_url, 2, 'run_log = "runs.jsonl"'), KEYS).compile()
    await graph.ainvoke(QUESTION, context={"budget": {"dollars": 0.01}})
    (run,) = read_runs(tmp_path / "runs.jsonl")
    assert run.budget.dollars == 0.01 and run.totals is not None and run.totals["dollars"] <= 0.01
    # Two helpers in one reply, each with its half of half of what is left and not kept back for the closing answer.
    assert len(run.runs) == 2
    assert all(0 < nested.budget.dollars <= 0.0025 for nested in run.runs.values())


@pytest.mark.parametrize("depth", [0, 9])
def test_a_depth_that_cannot_be_is_refused(depth: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"depth = {depth}: Input should be (greater|less) than or equal to"):
        RECURSIVE.make(settings(tmp_path, "http://127.0.0.1:1/v1", depth), KEYS)
