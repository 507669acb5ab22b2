"""Reads how MCP servers are reached from the JSON file that other MCP clients read too.

    {"mcpServers": {
        "weather": {"command": "uvx", "args": ["weather-server"], "env": {"API_KEY": "${WEATHER_KEY}"}},
        "library": {"url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${LIBRARY_KEY}"}}
    }}

`${NAME}` stands for an environment variable, in any string of a server. Secrets stand in the file in no other way: a
value that looks like one is refused. Left out: default values (`${NAME:-...}`), the transports SSE and WebSocket, and
what clients add of their own (`disabled`, `autoApprove`, ...), which is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from orchestra_graph.errors import ConfigError
from orchestra_graph.redact import SECRET_KEY, SECRET_VALUE, hide_secrets

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPTION: Final = re.compile(r"--?(?!no-)\w")


class _Server(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_way(self) -> _Server:
        if (self.command is None) == (self.url is None):
            raise ValueError("expected command (a server that is started) or url (one that runs)")
        for name, text in [("url", self.url or ""), *(("args", arg) for arg in self.args)]:
            if not _VARIABLE.search(text) and hide_secrets(text) != text:
                raise ValueError(f"{name} holds what looks like a secret (not shown); write ${{NAME_OF_VARIABLE}}")
        for name, value in self._values():
            literal = not _VARIABLE.search(value)
            if literal and value and (SECRET_KEY.search(name) or SECRET_VALUE.fullmatch(value)):
                raise ValueError(f"{name} looks like a secret (its value is not shown); write ${{NAME_OF_VARIABLE}}")
        return self

    def _values(self) -> Iterator[tuple[str, str]]:
        """Values with their names; of arguments `NAME=VALUE`, and what follows `--name`."""
        yield from self.env.items()
        yield from self.headers.items()
        for option, arg in zip(["", *self.args], self.args, strict=False):
            name, _, value = arg.partition("=")
            yield name, value
            if _OPTION.match(option) and not arg.startswith("-"):
                yield option, arg


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    mcpServers: dict[str, _Server]


def read_servers(path: str, environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The servers of a file, by name: arguments of `McpServer`.

    Args:
        path: Name of the file.
        environment: Values of the variables that it names; a missing one is empty. See `missing_variables`.

    Raises:
        ConfigError: The file cannot be read or is wrong; the text names the server, and what was expected.
    """
    return {name: _filled(server.model_dump(), environment) for name, server in _read(path).items()}


def missing_variables(path: str, server: str, environment: Mapping[str, str]) -> list[str]:
    """Environment variables that a server needs and that are not set.

    Raises:
        ConfigError: As `read_servers`, and where the file has no such server.
    """
    servers = _read(path)
    if server not in servers:
        raise ConfigError(
            f"{path} has no server {server!r}; expected one of {', '.join(servers) or 'none: it is empty'}"
        )
    named = [name for text in _texts(servers[server].model_dump()) for name in _VARIABLE.findall(text)]
    return [name for name in dict.fromkeys(named) if not environment.get(name)]


def _read(path: str) -> dict[str, _Server]:
    try:
        return _File.model_validate(json.loads(Path(path).read_bytes())).mcpServers
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); expected a JSON file with mcpServers") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        text = str(problem.get("ctx", {}).get("error", problem["msg"]))
        raise ConfigError(f"{path}: {place}: {text}") from None  # the cause would show values
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}); expected an object with mcpServers") from error


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: environment.get(match[1], ""), value)
    if isinstance(value, dict):
        return {key: _filled(inner, environment) for key, inner in value.items()}
    return [_filled(inner, environment) for inner in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
