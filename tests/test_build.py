"""Tools and routers from a catalog file, and what is said where something is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from orchestra_graph import Catalog, ChatVLLM, CodeInterpreter, Expert, LocalSearch, ModelSpec, Request, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.build import build_model, build_router, build_tools, what_is_missing
from tests.openai_server import OpenAIServer, Reply, Usage

KEYS = {"KEY": "secret"}


@tool
def shout(text: str) -> str:
    """Says a text loudly."""
    return text.upper()


def of(*specs: ToolSpec) -> Catalog:
    return Catalog.of(specs)


def expert(name: str = "large", **fields: object) -> ToolSpec:
    return ToolSpec.model_validate({"name": name, "kind": "expert", "model": "m", "api_key_env": "KEY", **fields})


TOOL = CodeInterpreter()


async def test_every_kind(tmp_path: Path) -> None:
    (tmp_path / "ada.md").write_text("# Ada\n\nAda Lovelace was born in London.")
    tools = build_tools(
        of(
            expert("finder", role="search", description="Finds."),
            expert("large", terminal=True),
            ToolSpec(name="docs", kind="search", path=str(tmp_path), description="About Ada."),
            ToolSpec(name="run", kind="code"),
            ToolSpec(name="shout", kind="function", target="tests.test_build:shout"),
        ),
        KEYS,
    )
    assert [each.spec.name for each in tools] == ["finder", "large", "docs", "run", "shout"]
    finder, large, docs, run, shouter = tools
    assert isinstance(finder, Expert)
    assert isinstance(large, Expert)
    assert isinstance(docs, LocalSearch)
    assert isinstance(run, CodeInterpreter)
    assert large.spec.terminal
    found = await docs.run(Request(args={"query": "Lovelace"}, question="", call_id="c"))
    assert "born in London" in found.content
    assert (await shouter.run(Request(args={"text": "hi"}, question="", call_id="c"))).content == "HI"


async def test_a_line_leaves_parameters_and_description_to_the_tool() -> None:
    own = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    bare, told = build_tools(
        of(
            ToolSpec(name="shout", kind="function", target="tests.test_build:shout"),
            ToolSpec(
                name="cry", kind="function", target="tests.test_build:shout", description="Cries.", parameters=own
            ),
        ),
        {},
    )
    assert bare.spec.description == "Says a text loudly."
    assert bare.spec.required == ["text"]
    assert told.spec.description == "Cries."
    assert told.spec.parameters == own


def test_two_lines_may_name_one_tool() -> None:
    lines = [ToolSpec(name=name, kind="function", target="tests.test_build:TOOL") for name in ("near", "far")]
    assert [tool.spec.name for tool in build_tools(of(*lines), {})] == ["near", "far"]


async def test_a_program_stops_before_its_call_does() -> None:
    [run] = build_tools(of(ToolSpec.model_validate({"name": "run", "kind": "code", "limits": {"timeout": 2}})), {})
    result = await run.run(Request(args={"code": "while True: pass"}, question="", call_id="c"))
    assert result.artifacts[0]["timed_out"]
    assert result.artifacts[0]["seconds"] < 2


def test_router() -> None:
    served = build_router(ModelSpec(model="m", base_url="http://127.0.0.1:1/v1"), {})
    assert isinstance(served, ChatVLLM)
    bought = build_router(ModelSpec(model="gpt-5", api_key_env="KEY"), KEYS)
    assert isinstance(bought, ChatOpenAI)
    assert not isinstance(bought, ChatVLLM)
    assert bought.max_retries == 0


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        (expert(model=None), "large: model is missing; expected the model's name at its provider"),
        (expert(api_key_env=None), "large: expected api_key_env"),
        (expert(provider="anthropic"), "large: provider = 'anthropic' needs base_url"),
        (
            expert(api_key_env="NO_KEY"),
            "the environment variable NO_KEY (key of large) is missing; fix: export NO_KEY=",
        ),
        (expert(role="search"), 'large: role = "search" needs a line of kind = "search"'),
        (ToolSpec(name="web", kind="search", provider="tavily"), "web: api_key_env is missing"),
        (ToolSpec(name="web", kind="search", provider="bing"), "web: provider = 'bing'; expected \"tavily\""),
        (ToolSpec(name="docs", kind="search"), "docs: path is missing"),
        (ToolSpec(name="docs", kind="search", path="/nowhere"), "docs: path = '/nowhere' is not there"),
        (ToolSpec(name="docs", kind="search", path="x" * 300), "docs: path = 'xxx"),
        (ToolSpec(name="f", kind="function"), "f: target = None; expected module:attribute"),
        (ToolSpec(name="f", kind="graph", target="module"), "f: target = 'module'; expected module:attribute"),
        (ToolSpec(name="n", kind="node"), 'n: kind = "node" is not built from a file'),
        (ToolSpec(name="m", kind="mcp", target="a:b"), "m: path is missing; expected a JSON file with mcpServers"),
        (ToolSpec(name="m", kind="mcp", path="x.json"), "m: target = None; expected server:tool"),
        (ToolSpec(name="m", kind="mcp", path="x.json", target="a"), "m: target = 'a'; expected server:tool"),
        (ToolSpec(name="m", kind="mcp", path="/nowhere.json", target="a:b"), "m: /nowhere.json cannot be read"),
    ],
)
def test_what_is_missing(line: ToolSpec, missing: str) -> None:
    [problem] = what_is_missing({line.name: line}, KEYS)
    assert problem.startswith(missing)
    with pytest.raises(ConfigError) as error:
        build_tools(of(line), KEYS)
    assert str(error.value) == problem


def test_what_several_lines_miss_is_said_once() -> None:
    lines = {"router": ModelSpec(model="r", api_key_env="K"), "a": expert("a", api_key_env="K"), "b": expert("b")}
    assert what_is_missing(lines, KEYS) == [
        "the environment variable K (key of router, a) is missing; fix: export K=..."
    ]


def test_a_router_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="router: model is missing"):
        build_router(ModelSpec(), {})


@pytest.mark.parametrize("target", ["no_such_module:f", "os:no_such_function"])
def test_a_target_that_cannot_be_imported(target: str) -> None:
    with pytest.raises(ConfigError, match=f"f: target = '{target}' cannot be imported"):
        build_tools(of(ToolSpec(name="f", kind="function", target=target)), {})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no licence:\\nask for one')", "RuntimeError: no licence: ask for one"),
        ("def f(:", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_target_whose_module_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str) -> None:
    (tmp_path / "failing_module.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="f: target = 'failing_module:f' cannot be imported: ") as raised:
        build_tools(of(ToolSpec(name="f", kind="function", target="failing_module:f")), {})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_that_may_not_be_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ada.md").write_text("Ada Lovelace was born in London.")

    opened = os.open

    def refuse(path: str | Path, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT and Path(path).parent == tmp_path:  # tests may run as root, who may write anywhere
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(ConfigError, match=r"index cannot be built \(PermissionError.*name that file with `path`"):
        build_tools(of(ToolSpec(name="docs", kind="search", path=str(tmp_path))), {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gpt-5-mini", None), ("openai/gpt-5", None), ("o4-mini", None), ("gpt-4.1", 0.0), ("gpt-5-chat-latest", 0.0)],
)
def test_models_that_take_no_temperature_are_sent_none(name: str, expected: float | None) -> None:
    model = build_model(ModelSpec(model=name, base_url="http://127.0.0.1:1/v1"), {}, temperature=0)
    assert model._get_request_payload("q").get("temperature") == expected  # type: ignore[attr-defined]


async def test_a_model_of_a_catalog_tells_its_usage_when_it_is_streamed(openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply("four", usage=Usage(11, 7))]
    model = build_model(ModelSpec(model="m", base_url=openai_server.base_url), {})
    told = [chunk.usage_metadata async for chunk in model.astream("2 + 2?")]
    assert [(usage["input_tokens"], usage["output_tokens"]) for usage in told if usage] == [(11, 7)]


async def test_limits_without_a_timeout_leave_a_program_its_seconds() -> None:
    for fields in ({"limits": {"result_tokens": 500}}, {}):
        [run] = build_tools(of(ToolSpec.model_validate({"name": "run", "kind": "code", **fields})), {})
        assert run.spec.description == TOOL.spec.description
        assert run.spec.limits.timeout == TOOL.spec.limits.timeout


async def test_an_expert_knows_what_its_search_costs(tmp_path: Path) -> None:
    (tmp_path / "ada.md").write_text("# Ada\n\nAda Lovelace.")
    docs = {"name": "docs", "kind": "search", "path": str(tmp_path), "price": {"per_call": 0.02}}
    catalog = of(expert("finder", role="search"), ToolSpec.model_validate(docs))
    finder, _ = build_tools(catalog, KEYS)
    assert finder.spec.retrieval is not None
    assert finder.spec.retrieval.per_call == 0.02
