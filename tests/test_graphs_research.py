"""The ready graph for research in both protocols, over HTTP, with documents on disk and code in the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra_graph import ConfigError
from orchestra_graph.settings import load_module
from tests.openai_server import Body, OpenAIServer, Reply

GRAPHS = Path(__file__).parent.parent / "graphs"
TOKENIZER = Path(__file__).parent / "data" / "tokenizer"
SHIPPED = (GRAPHS / "research.toml").read_text(encoding="utf-8")
RESEARCH: Any = load_module(GRAPHS / "research.py")
KEYS = {"OPENAI_API_KEY": "k"}
QUESTION: Any = {"messages": [("user", "How tall is the lighthouse of Genoa, doubled?")]}


def settings(folder: Path, url: str, protocol: str) -> Path:
    """The shipped settings, with every model at one address, and a folder of documents."""
    (folder / "documents").mkdir()
    (folder / "documents" / "genoa.txt").write_text("The lighthouse of Genoa is 77 metres tall.", encoding="utf-8")
    text = SHIPPED.replace("http://localhost:8000/v1", url).replace(
        'protocol = "nemotron_qa"', f'protocol = "{protocol}"'
    )
    text = text.replace('api_key_env = "OPENAI_API_KEY"', f'api_key_env = "OPENAI_API_KEY"\nbase_url = "{url}"')
    path = folder / "research.toml"
    path.write_text(f'tokenizer = "{TOKENIZER}"\n{text}', encoding="utf-8")
    return path


def expert(body: Body) -> Reply:
    text = body["messages"][0]["content"]
    if "search query" in text:
        return Reply("lighthouse Genoa height")
    return Reply("```python\nprint(2 * 77)\n```" if "Python program" in text else "<answer>154 metres</answer>")


@pytest.mark.parametrize("protocol", ["nemotron_qa", "conversation"])
async def test_search_code_and_answer(protocol: str, openai_server: OpenAIServer, tmp_path: Path) -> None:
    names: dict[str, list[tuple[str, str | None]]] = {
        "nemotron_qa": [("search", "search-1"), ("enhance_reasoning", "reasoner-1"), ("answer", "answer-2")],
        "conversation": [("search-1", None), ("reasoner-1", None), ("answer-2", None)],
    }
    router = iter([Reply("", [(name, {"model": m} if m else {})]) for name, m in names[protocol]])
    openai_server.script = lambda body: next(router) if "Nemotron" in body["model"] else expert(body)
    graph = RESEARCH.make(settings(tmp_path, openai_server.base_url, protocol), KEYS).compile()
    state = await graph.ainvoke(QUESTION)
    assert (state["answer"], state["stopped_by"]) == ("154 metres", "answer")
    assert set(state["ledger"]["tools"]) == {"router", "search-1", "reasoner-1", "answer-2"}
    views = [r.body["messages"] for r in openai_server.requests if "Nemotron" in r.body["model"]]
    last = "".join(message["content"] or "" for message in views[-1])
    assert "77 metres tall" in last and "154" in last
    assert [len(view) for view in views] == ([2, 2, 2] if protocol == "nemotron_qa" else [2, 4, 6])


async def test_preferences_and_budget_come_with_a_run(openai_server: OpenAIServer, tmp_path: Path) -> None:
    first = Reply("", [("search", {"model": "search-1"})])
    openai_server.script = lambda body: first if "Nemotron" in body["model"] else expert(body)
    graph = RESEARCH.make(settings(tmp_path, openai_server.base_url, "nemotron_qa"), KEYS).compile()
    context = {"budget": {"turns": 1}, "preferences": {"never": ["answer-1"]}}
    state = await graph.ainvoke(QUESTION, context=context)
    assert (state["stopped_by"], state["answer"]) == ("turns", "154 metres")
    assert "answer-1" not in str(openai_server.requests[0].body["tools"])


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    path = settings(tmp_path, "http://127.0.0.1:1/v1", "nemotron_qa")
    (tmp_path / "documents" / "genoa.txt").unlink()
    (tmp_path / "documents").rmdir()
    with pytest.raises(ConfigError, match=r"documents' is not there .* export OPENAI_API_KEY=") as error:
        RESEARCH.make(path, {})
    assert "\n" not in str(error.value)
    path.write_text(path.read_text().replace('"nemotron_qa"', '"smalltalk"'))
    with pytest.raises(ConfigError, match="protocol = 'smalltalk': Input should be 'conversation' or 'nemotron_qa'"):
        RESEARCH.make(path, KEYS)
