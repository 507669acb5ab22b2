"""The README's commands and code, as they stand."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from orchestra_graph.catalog_file import parse_catalog
from orchestra_graph.testing import ScriptedExpert
from tests.openai_server import OpenAIServer, Reply

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def run(code: str, names: dict[str, Any] | None = None) -> str:
    printed = io.StringIO()
    given = {} if names is None else names
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), given | {"__name__": "readme"}, given)
    return printed.getvalue()


def test_first_ten_lines_run_as_they_stand() -> None:
    printed = run(blocks("python")[0])
    answer, stopped_by, dollars = printed.split()
    assert (answer, stopped_by) == ("121932631112635269", "answer")
    assert 0 < float(dollars) < 0.001
    assert f"`{answer} {stopped_by}`" in TEXT


def test_ten_lines_with_a_server(openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    openai_server.script = [Reply(calls=(("large", {}),)), Reply("<answer>1229</answer>")]
    code = blocks("python")[1].replace("http://localhost:8000/v1", openai_server.base_url)
    printed = run(code)
    assert printed.startswith("1229 ")
    assert "'large'" in printed
    assert (tmp_path / "runs.jsonl").read_text().count("\n") == 1


def test_router_in_a_graph_that_exists() -> None:
    builder = StateGraph(MessagesState)
    for name in ("chatbot", "human"):
        builder.add_node(name, lambda state, name=name: {"messages": [AIMessage(f"{name} here")]})
        builder.add_edge(name, END)
    builder.add_edge(START, "chatbot")
    names: dict[str, Any] = {"graph": builder.compile(), "checkpointer": InMemorySaver()}
    run(blocks("python")[2], names)
    config: Any = {"configurable": {"thread_id": "1"}}
    state = names["graph"].invoke({"messages": [("user", "When are you open?")]}, config)
    assert state["messages"][-1].text == "chatbot here"
    assert list(names["graph"].get_state(config).values["orchestra_ledger"]["tools"]) == ["router", "chatbot"]


def test_router_in_an_agent() -> None:
    small, large = (ScriptedExpert(f"{name} knows") for name in ("small", "large"))
    printed = run(blocks("python")[3], {"small": small, "large": large, "tools": []})
    answer, dollars, stopped_by = printed.rsplit(maxsplit=2)
    assert (answer, float(dollars), stopped_by) == ("small knows", 0.0, "answer")


def test_programs_have_about_ten_lines() -> None:
    counts = [sum(bool(line.strip()) for line in block.splitlines()) for block in blocks("python")]
    assert max(counts) <= 10


def test_catalog_is_valid() -> None:
    catalog = parse_catalog(blocks("toml")[0], "README.md")
    assert list(catalog.tools) == ["large", "python"]


def test_names_are_in_the_modules_that_it_states() -> None:
    named = re.findall(r"`(\w+)`\s(?:and\s`(\w+)`\s)?\(?of\s`(orchestra_graph[\w.]*)`", TEXT)
    assert ("NemotronQA", "", "orchestra_graph.protocols.nemotron_qa") in named
    for *names, module in named:
        assert all(hasattr(importlib.import_module(module), name) for name in names if name), (names, module)


def test_the_recipe_reads_what_the_command_before_it_builds() -> None:
    recipe = tomllib.loads((ROOT / "training/orchestra_training/recipes/qwen3_8b_sft.toml").read_text())
    folder = recipe["data"]["path"]
    assert re.search(rf"^orchestra data build sft .*--to {folder}\s", TEXT, re.MULTILINE)


def test_commands_of_the_makefile_exist() -> None:
    named = set(re.findall(r"(?:^|`)make (\w+)", TEXT, re.MULTILINE))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets
    assert {"demo", "test", "bench"} <= named


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
