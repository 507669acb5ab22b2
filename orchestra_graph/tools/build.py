"""Builds the tools that a catalog file describes, for the command line and for graphs that are configured by TOML.

Kinds `mcp` and `node` are not built here yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from orchestra_graph.catalog import Catalog, ModelSpec, ToolSpec
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.tools.adapt import as_tool
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.code_interpreter import CodeInterpreter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.local_search import LocalSearch
from orchestra_graph.tools.web_search import WebSearch
from orchestra_graph.vllm import NO_KEY, ChatVLLM

INDEX_NAME = ".orchestra-index.sqlite"
"""Index file that is made in a folder that a search line names."""


def build_tools(catalog: Catalog, environment: Mapping[str, str]) -> list[Tool]:
    """Make a tool for every line.

    Args:
        catalog: Lines with what is needed to reach each tool: `model`, `path`, `target`, ...
        environment: Where keys are looked up by the names that the catalog gives, usually `os.environ`.

    Raises:
        ConfigError: A line lacks something; the text names the line and the field.
    """
    retrievers = {spec.name: _search(spec, environment) for spec in catalog.tools.values() if spec.kind == "search"}
    retriever = next(iter(retrievers.values()), None)
    tools: list[Tool] = []
    for spec in catalog.tools.values():
        tool = retrievers.get(spec.name) or _build(spec, environment, retriever)
        tool.spec = spec
        tools.append(tool)
    return tools


def build_router(spec: ModelSpec, environment: Mapping[str, str]) -> BaseChatModel:
    """The router's model: on a server of its own one that keeps token ids, else any OpenAI model.

    Raises:
        ConfigError: The catalog names no model, or its key is missing.
    """
    if spec.model is None:
        raise ConfigError("the catalog has no router; add [router] with model = ..., or choose one with --router")
    if spec.base_url is None:
        return _chat_model(spec, environment, "router")
    key = _key(spec, environment, "router")
    return ChatVLLM(model=spec.model, base_url=spec.base_url, api_key=key or SecretStr(NO_KEY))


def _build(spec: ToolSpec, environment: Mapping[str, str], retriever: Tool | None) -> Tool:
    if spec.kind == "expert":
        model = _chat_model(spec, environment, spec.name)
        return Expert(model, name=spec.name, role=spec.role, retriever=retriever if spec.role == "search" else None)
    if spec.kind == "code":
        return CodeInterpreter(name=spec.name)
    if spec.kind in ("function", "graph"):
        return as_tool(_import(spec))
    raise ConfigError(f"tool {spec.name!r} has kind = {spec.kind!r}; expected expert, function, search, code or graph")


def _chat_model(spec: ModelSpec, environment: Mapping[str, str], name: str) -> BaseChatModel:
    if spec.model is None:
        raise ConfigError(f"{name}: model is missing; expected the model's name at its provider")
    key = _key(spec, environment, name)
    if key is None and spec.base_url is None:
        raise ConfigError(f"{name}: expected api_key_env, the environment variable that holds the key, or base_url")
    return ChatOpenAI(
        model=spec.model,
        base_url=spec.base_url,
        api_key=key or SecretStr(NO_KEY),
        timeout=spec.limits.timeout,
        max_retries=0,
    )


def _key(spec: ModelSpec, environment: Mapping[str, str], name: str) -> SecretStr | None:
    if spec.api_key_env is None:
        return None
    if not environment.get(spec.api_key_env):
        raise MissingError(
            f"the environment variable {spec.api_key_env} (key of {name})", f"export {spec.api_key_env}=..."
        )
    return SecretStr(environment[spec.api_key_env])


def _search(spec: ToolSpec, environment: Mapping[str, str]) -> Tool:
    if spec.provider == "tavily":
        key = _key(spec, environment, spec.name)
        if key is None:
            raise ConfigError(f"{spec.name}: api_key_env is missing; expected the variable that holds Tavily's key")
        return WebSearch(key.get_secret_value(), name=spec.name)
    if spec.path is None:
        raise ConfigError(f'{spec.name}: path is missing; expected a folder of documents, or provider = "tavily"')
    path = Path(spec.path)
    if not path.is_dir():
        return LocalSearch(path, name=spec.name)
    return LocalSearch.build(path, path / INDEX_NAME, name=spec.name)


def _import(spec: ToolSpec) -> object:
    module, _, attribute = (spec.target or "").partition(":")
    if not attribute:
        raise ConfigError(f"{spec.name}: target = {spec.target!r}; expected module:attribute")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{spec.name}: target = {spec.target!r} cannot be imported: {error}") from error
