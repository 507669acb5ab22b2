"""Builds the tools that a catalog file describes, for the command line and for graphs that are configured by TOML.

Servers of kind `mcp` are started, or connected to, to learn their tools; one session serves all lines of a server. Kind
`node` is not built here: a node belongs to a graph that is there already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from orchestra_graph.billing import describe
from orchestra_graph.catalog import Catalog, ModelSpec, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.modules import import_named
from orchestra_graph.served import NO_KEY
from orchestra_graph.tools.adapt import as_tool
from orchestra_graph.tools.base import Tool
from orchestra_graph.tools.code_interpreter import CodeInterpreter
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.local_search import LocalSearch
from orchestra_graph.tools.mcp import McpServer, McpTool, tools_of
from orchestra_graph.tools.mcp_file import missing_variables, read_servers
from orchestra_graph.tools.web_search import WebSearch

INDEX_NAME: Final = ".orchestra-index.sqlite"
"""Index file that is made in a folder that a search line names."""

SANDBOX_SHARE: Final = 0.9
"""Share of a code line's timeout after which the sandbox stops a program, so that it can still tell why."""

_FIXED_TEMPERATURE: Final = re.compile(r"(?:.*/)?(?:o\d|gpt-5(?!.*chat))")
"""Names of models that take no temperature but their own."""

_importing: ContextVar[tuple[str, ...]] = ContextVar("orchestra_graph_importing", default=())
"""Targets that are being imported, the outermost first."""


def build_tools(catalog: Catalog, environment: Mapping[str, str]) -> list[Tool]:
    """Make a tool for every line, in the catalog's order.

    A description or parameters that a line leaves out are the tool's own: take the lines from the tools' `spec`.

    Args:
        catalog: Lines with what is needed to reach each tool: `model`, `path`, `target`, ...
        environment: Where keys are looked up by the names that the catalog gives, usually `os.environ`.

    Raises:
        ConfigError: Lines lack something; the text names each line and what it lacks.
    """
    _refuse(what_is_missing(catalog.tools, environment))
    retrievers = {spec.name: _search(spec, environment) for spec in catalog.tools.values() if spec.kind == "search"}
    for name, made in retrievers.items():
        made.spec = catalog.tools[name].completed_by(made.spec)
    retriever = next(iter(retrievers.values()), None)
    served = _served(catalog, environment)
    tools: list[Tool] = []
    for line in catalog.tools.values():
        tool = retrievers.get(line.name)
        if tool is None:
            tool = served.get(line.name) or _build(line, environment, retriever)
            tool.spec = line.completed_by(tool.spec)
        tools.append(tool)
    return tools


def build_router(spec: ModelSpec, environment: Mapping[str, str]) -> BaseChatModel:
    """The router's model: on a server of its own one that keeps token ids, else an OpenAI model.

    Raises:
        ConfigError: The catalog names no model, or its key is missing.
    """
    _refuse(what_is_missing({"router": spec}, environment))
    if spec.base_url is None:
        return build_model(spec, environment)
    from orchestra_graph.vllm import ChatVLLM  # noqa: PLC0415  (as below)

    return ChatVLLM(model=spec.model, base_url=spec.base_url, api_key=_key(spec, environment))


def build_model(
    spec: ModelSpec, environment: Mapping[str, str], *, retries: int = 0, temperature: float | None = None
) -> BaseChatModel:
    """The chat model of a line whose key is there. A graph that is watched token by token asks it for its usage
    (`stream_options`); where a server refuses that, make the `Expert` yourself, with `stream_usage=False`.

    Args:
        spec: The line.
        environment: See `build_tools`.
        retries: Of the model itself; a graph retries by its own means, and bills every try.
        temperature: The server's own where None, and for models that refuse another one.
    """
    from langchain_openai import ChatOpenAI  # noqa: PLC0415  (takes a second; not every command asks a model)

    return ChatOpenAI(
        model=spec.model or "",
        base_url=spec.base_url,
        api_key=_key(spec, environment),
        timeout=spec.limits.timeout,
        max_retries=retries,
        temperature=None if _FIXED_TEMPERATURE.match(spec.model or "") else temperature,
        stream_usage=True,  # else a graph that is watched token by token has to guess what it owes
    )


def what_is_missing(lines: Mapping[str, ModelSpec], environment: Mapping[str, str]) -> list[str]:
    """What still stands between lines of a catalog and their tools: one sentence each. No server is called.

    Args:
        lines: By name; a line that is no `ToolSpec` is a router's.
        environment: See `build_tools`.
    """
    problems: dict[str, list[str]] = {}
    unset: dict[str, list[str]] = {}
    for name, line in lines.items():
        for problem in _problems(line, lines):
            problems.setdefault(problem, []).append(name)
        for variable in _unset(line, environment):
            unset.setdefault(variable, []).append(name)
    return [
        *(f"{', '.join(names)}: {problem}" for problem, names in problems.items()),
        *(
            f"the environment variable {variable} (key of {', '.join(names)}) is missing; fix: export {variable}=..."
            for variable, names in unset.items()
        ),
    ]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("; ".join(problems))


def _problems(line: ModelSpec, lines: Mapping[str, ModelSpec]) -> Iterator[str]:
    if not isinstance(line, ToolSpec) or line.kind == "expert":
        yield from _model_problems(line)
        if isinstance(line, ToolSpec) and line.role == "search" and not _has_search(lines):
            yield 'role = "search" needs a line of kind = "search" to send its queries to'
    elif line.kind == "search":
        yield from _search_problems(line)
    elif line.kind in ("function", "graph"):
        if not all((line.target or "").partition(":")):
            yield f"target = {line.target!r}; expected module:attribute"
    elif line.kind == "mcp":
        yield from _mcp_problems(line)
    elif line.kind == "node":
        yield 'kind = "node" is not built from a file; it belongs to a graph that is there already'


def _model_problems(line: ModelSpec) -> Iterator[str]:
    if line.model is None:
        yield "model is missing; expected the model's name at its provider, and base_url or api_key_env"
    elif line.base_url is None and line.api_key_env is None:
        yield "expected api_key_env, the environment variable that holds the key, or base_url"
    elif line.base_url is None and line.provider not in (None, "openai"):
        # Without an address the request, and the key with it, would go to OpenAI.
        yield f"provider = {line.provider!r} needs base_url, the address of its OpenAI-compatible API"


def _search_problems(line: ToolSpec) -> Iterator[str]:
    if line.provider == "tavily":
        if line.api_key_env is None:
            yield "api_key_env is missing; expected the environment variable that holds Tavily's key"
    elif line.provider is not None:
        yield f'provider = {line.provider!r}; expected "tavily", or path = a folder of documents'
    elif line.path is None:
        yield 'path is missing; expected a folder of documents, or provider = "tavily"'
    elif not os.path.exists(line.path):  # unlike Path.exists it does not raise where a folder may not be looked into
        yield f"path = {line.path!r} is not there or may not be read; expected a folder of documents or an index file"


def _mcp_problems(line: ToolSpec) -> Iterator[str]:
    if line.path is None:
        yield 'path is missing; expected a JSON file with mcpServers, for example "mcp.json"'
    elif not all(_server_and_tool(line)):
        yield f"target = {line.target!r}; expected server:tool, both as the server's file and the server name them"
    else:
        try:
            missing_variables(line.path, _server_and_tool(line)[0], {})
        except ConfigError as error:
            yield str(error)


def _unset(line: ModelSpec, environment: Mapping[str, str]) -> list[str]:
    """Environment variables that a line names and that are not set."""
    named = [] if line.api_key_env is None else [line.api_key_env]
    if isinstance(line, ToolSpec) and line.kind == "mcp" and not list(_mcp_problems(line)):
        named += missing_variables(line.path or "", _server_and_tool(line)[0], environment)
    return [name for name in named if not environment.get(name)]


def _server_and_tool(line: ToolSpec) -> tuple[str, str]:
    server, _, tool = (line.target or "").partition(":")
    return server, tool


def _has_search(lines: Mapping[str, ModelSpec]) -> bool:
    return any(isinstance(line, ToolSpec) and line.kind == "search" for line in lines.values())


def _build(line: ToolSpec, environment: Mapping[str, str], retriever: Tool | None) -> Tool:
    if line.kind == "expert":
        model = build_model(line, environment)
        return Expert(model, name=line.name, role=line.role, retriever=retriever if line.role == "search" else None)
    if line.kind == "code":
        if "timeout" not in line.limits.model_fields_set:
            return CodeInterpreter(name=line.name)
        return CodeInterpreter(name=line.name, timeout=SANDBOX_SHARE * line.limits.timeout)
    return copy(as_tool(_import(line)))  # another line may name it too, with a spec of its own


def _key(spec: ModelSpec, environment: Mapping[str, str]) -> SecretStr:
    return SecretStr(environment[spec.api_key_env] if spec.api_key_env else NO_KEY)


def _search(spec: ToolSpec, environment: Mapping[str, str]) -> Tool:
    if spec.provider == "tavily":
        return WebSearch(_key(spec, environment).get_secret_value(), name=spec.name)
    path = Path(spec.path or "")
    if not path.is_dir():
        return LocalSearch(path, name=spec.name)
    return LocalSearch.build(path, path / INDEX_NAME, name=spec.name)


def _served(catalog: Catalog, environment: Mapping[str, str]) -> dict[str, McpTool]:
    """Tools of MCP servers, by the names of their lines."""
    wanted: dict[tuple[str, str], dict[str, str]] = {}
    for line in catalog.tools.values():
        if line.kind == "mcp":
            name, tool = _server_and_tool(line)
            wanted.setdefault((line.path or "", name), {})[line.name] = tool
    served: dict[str, McpTool] = {}
    for (path, name), tools in wanted.items():
        server = McpServer(name, **read_servers(path, environment)[name])
        served |= zip(tools, tools_of(server, tools.values()), strict=True)
    return served


def _import(spec: ToolSpec) -> Any:
    target = spec.target or ""
    module, _, attribute = target.partition(":")
    around = _importing.get()
    token = _importing.set((*around, target))
    try:
        found = import_named(module)
        if not hasattr(found, attribute) and _is_being_imported(found):
            raise _CycleError(spec.name, target, around)
        return getattr(found, attribute)
    except _CycleError:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported, and may exit
        problem = f"{spec.name}: target = {spec.target!r} cannot be imported: {describe(error)}"
        raise ConfigError(f"{problem}; fix: mend the module or the target") from error
    finally:
        _importing.reset(token)


class _CycleError(ConfigError):
    """Targets that name each other."""

    def __init__(self, name: str, target: str, around: tuple[str, ...]) -> None:
        # A module that was not imported by way of a target, but first, is not among those around.
        path = (*around[around.index(target) :], target) if target in around else (*around, target, around[0])
        super().__init__(
            f"{name}: target = {target!r} contains itself: {' > '.join(path)}; fix: take one of these lines out"
        )


def _is_being_imported(module: ModuleType) -> bool:
    """Whether its own code has not been run to its end: the same question as Python's import system asks."""
    return bool(getattr(module.__spec__, "_initializing", False))
