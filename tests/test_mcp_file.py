"""Files of MCP servers: what is read, and what is said where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.mcp_file import missing_variables, read_servers


def write(folder: Path, servers: Any) -> str:
    path = folder / "mcp.json"
    path.write_text(servers if isinstance(servers, str) else json.dumps({"mcpServers": servers}))
    return str(path)


def test_variables_are_filled_in_everywhere(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "a": {"command": "run", "args": ["--home", "${HOME}/x"], "env": {"API_KEY": "${KEY}", "MODE": "fast"}},
            "b": {"url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${KEY}"}, "disabled": False},
        },
    )
    servers = read_servers(path, {"HOME": "/h", "KEY": "k", "HOST": "example.org"})
    assert servers["a"]["args"] == ["--home", "/h/x"]
    assert servers["a"]["env"] == {"API_KEY": "k", "MODE": "fast"}
    assert servers["b"]["url"] == "https://example.org/mcp"
    assert servers["b"]["headers"] == {"Authorization": "Bearer k"}
    assert missing_variables(path, "b", {"HOST": "h"}) == ["KEY"]
    assert missing_variables(path, "a", {"HOME": "/h", "KEY": "k"}) == []


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "mcp.json: "),
        ("{}", "mcpServers: Field required"),
        ({"a": {}}, "a: expected command"),
        ({"a": {"command": "x", "url": "y"}}, "a: expected command"),
        ({"a": {"command": 1}}, "a.command: Input should be a valid string"),
        ({"a": {"command": "x", "env": {"API_KEY": "hush-hush"}}}, "a: API_KEY looks like a secret"),
        ({"a": {"url": "x", "headers": {"X": "Bearer hush-hush"}}}, "a: X looks like a secret"),
        ({"a": {"command": "x", "args": ["--api-key", "hush-hush"]}}, "a: --api-key looks like a secret"),
        ({"a": {"command": "x", "args": ["-e", "MY_TOKEN=hush-hush"]}}, "a: MY_TOKEN looks like a secret"),
        ({"a": {"command": "x", "args": ["Authorization: Bearer hush-hush"]}}, "a: args holds what looks like a"),
        ({"a": {"command": "x", "args": ["postgres://me:hush-hush@host/db"]}}, "a: args holds what looks like a"),
        ({"a": {"command": "x", "args": ["https://me:hush-hush@host?token=x"]}}, "a: args holds what looks like a"),
        ({"a": {"url": "https://hush-hush@host/mcp"}}, "a: url holds what looks like a secret"),
        ({"a": {"url": "https://host/mcp?x=1&tavilyApiKey=hush-hush"}}, "a: url holds what looks like a secret"),
    ],
)
def test_a_wrong_file(tmp_path: Path, servers: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_servers(write(tmp_path, servers), {})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "hush-hush" not in str(error.value)


def test_what_only_resembles_a_secret_is_read(tmp_path: Path) -> None:
    args = ["--no-password", "run", "--token", "--token-file", "/run/t", "-e", "MY_TOKEN", "postgres://me@host/db"]
    filled = [*args, "--api-key", "${KEY}", "--token=${KEY}", "Authorization: Bearer ${KEY}"]
    servers = {"a": {"command": "x", "args": filled}, "b": {"url": "https://host/mcp?x=1&tavilyApiKey=${KEY}"}}
    read = read_servers(write(tmp_path, servers), {"KEY": "k"})
    assert read["a"]["args"] == [*args, "--api-key", "k", "--token=k", "Authorization: Bearer k"]
    assert read["b"]["url"] == "https://host/mcp?x=1&tavilyApiKey=k"


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere.json cannot be read \(No such file"):
        read_servers("/nowhere.json", {})


def test_a_server_that_the_file_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no server 'b'; expected one of a"):
        missing_variables(write(tmp_path, {"a": {"command": "x"}}), "b", {})
