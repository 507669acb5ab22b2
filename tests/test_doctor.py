"""What the doctor finds, and the fix it names."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestra_graph.cli.doctor import doctor
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.serving.doctor import Check, examine
from tests.openai_server import OpenAIServer, Refusal, Reply, _read, _send
from tests.stand_in_server import METRICS

GREEN = Reply(calls=[("choose_colour", {"colour": "green"})])


class Server(OpenAIServer):
    """With a list of models, and perhaps metrics."""

    models: tuple[str, ...] = ("m", "n")
    metrics: str | None = None
    key = "EMPTY"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        if request.headers.get("authorization", f"Bearer {self.key}") != f"Bearer {self.key}":
            await _send(writer, 401, "{}")
        elif request.path == "/v1/models":
            await _send(writer, 200, json.dumps({"data": [{"id": name} for name in self.models]}))
        elif request.path == "/metrics" and self.metrics is not None:
            await _send(writer, 200, self.metrics)
        elif request.method == "GET":
            await _send(writer, 404, "{}")
        else:
            again, body = asyncio.StreamReader(), json.dumps(request.body).encode()
            again.feed_data(f"POST {request.path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await super()._answer(again, writer)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(vllm=True)
    with made:
        yield made


async def server_checks(server: Server, **options: Any) -> dict[str, Check]:
    found = await examine(base_url=server.base_url, **options)
    names = [check.name for check in found]
    return {check.name: check for check in found[names.index("server") :]}


async def test_what_is_installed() -> None:
    checks = {check.name: check for check in await examine()}
    assert checks["orchestra-graph"].state == "ok"
    assert "sympy " in checks["extra demo"].found
    assert "extra dev" not in checks
    assert {"bubblewrap", "GPU", "vllm"} <= checks.keys()
    assert "server" not in checks
    for check in checks.values():
        assert bool(check.fix) == (check.state != "ok")


async def test_vllm_is_required_where_its_interpreter_is_named() -> None:
    (unasked,) = [check for check in await examine() if check.name == "vllm"]
    (asked,) = [check for check in await examine(python=sys.executable) if check.name == "vllm"]
    (wrong,) = [check for check in await examine(python="/nowhere") if check.name == "vllm"]
    assert (unasked.state, asked.state, wrong.state) == ("missing", "failed", "failed")
    assert "pip install 'vllm>=0.22,<0.32'" in asked.fix
    assert "no Python interpreter" in wrong.found


async def test_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "sympy":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    (check,) = [check for check in await examine() if check.name == "extra demo"]
    assert (check.state, check.found, check.fix) == ("missing", "without sympy", "pip install 'orchestra-graph[demo]'")


async def test_a_gpu_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'H200, 141 GiB, 580.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (check,) = [check for check in await examine() if check.name == "GPU"]
    assert (check.state, check.found) == ("ok", "H200, 141 GiB, 580.1")
    program.write_text("#!/bin/sh\necho 'driver mismatch'; exit 9\n")
    (check,) = [check for check in await examine() if check.name == "GPU"]
    assert (check.state, check.found) == ("missing", "driver mismatch")


async def test_a_server_that_can_do_everything(server: Server) -> None:
    server.script = [GREEN, GREEN, Reply("green")]
    checks = await server_checks(server)
    assert {name: check.state for name, check in checks.items()} == {
        "server": "ok",
        "model": "ok",
        "tool calls": "ok",
        "required tool choice": "ok",
        "token ids": "ok",
        "logprobs": "ok",
        "prefix cache": "missing",  # the stand-in has no metrics
    }
    asked = [request.body for request in server.requests if request.path.endswith("/chat/completions")]
    assert [body.get("tool_choice") for body in asked] == [None, "required", None]
    assert "metrics does not tell" in checks["prefix cache"].found
    assert "--enable-prefix-caching" in checks["prefix cache"].fix


async def test_the_prefix_cache(server: Server) -> None:
    server.script, server.metrics = [GREEN, GREEN, Reply("green")], METRICS.replace("TOKENS", "5")
    check = (await server_checks(server))["prefix cache"]
    assert (check.state, check.found) == ("ok", "80% of prompt tokens found in it")
    server.metrics = "\n".join(line for line in server.metrics.splitlines() if "prefix_cache" not in line)
    assert (await server_checks(server))["prefix cache"].state == "missing"


async def test_a_key(server: Server) -> None:
    server.key = "secret"
    server.script = [GREEN, GREEN, Reply("green")]
    (*_, refused) = await examine(base_url=server.base_url)
    assert (refused.name, refused.state) == ("server", "failed")
    assert "refuses the key (401)" in refused.found
    assert "--api-key-env" in refused.fix
    assert (await server_checks(server, api_key="secret"))["token ids"].state == "ok"


async def test_a_server_without_a_model(server: Server) -> None:
    server.models = ()
    (*_, check) = await examine(base_url=server.base_url)
    assert (check.name, check.state, check.found) == ("model", "failed", "none; it lists none")


async def test_a_server_without_token_ids(server: Server) -> None:
    server.vllm, server.script = False, [GREEN, GREEN, Reply("green")]
    checks = await server_checks(server)
    assert (checks["token ids"].state, checks["logprobs"].state) == ("missing", "missing")
    assert "orchestra serve" in checks["token ids"].fix


async def test_a_server_without_tool_calls(server: Server) -> None:
    server.script = [Refusal(400, '"auto" tool choice requires --enable-auto-tool-choice')] * 2 + [Reply("green")]
    checks = await server_checks(server)
    assert checks["tool calls"].state == "failed"
    assert "requires --enable-auto-tool-choice" in checks["tool calls"].found
    assert "--tool-call-parser hermes" in checks["tool calls"].fix
    assert checks["required tool choice"].state == "missing"


@pytest.mark.parametrize(
    "reply, found",
    [
        (Reply("no"), "no call all the same"),
        (Reply(calls=[("choose_colour", {"colour": "pink"})]), "does not keep to the schema"),
        (Reply(calls=[("choose_colour", {"colour": "red", "x": 1})]), "does not keep to the schema"),
        (Reply(calls=[("paint", {})]), "does not keep to the schema: paint"),
        (Reply(choices=False), "the server's reply has no choices"),
    ],
)
async def test_a_required_choice_that_is_not_kept(server: Server, reply: Reply, found: str) -> None:
    server.script = [GREEN, reply, Reply("green")]
    check = (await server_checks(server))["required tool choice"]
    assert check.state == "missing"
    assert found in check.found
    assert "constraint=None" in check.fix


async def test_a_reply_without_a_call_is_the_models_choice(server: Server) -> None:
    server.script = [Reply("green it is"), GREEN, Reply("green")]
    check = (await server_checks(server))["tool calls"]
    assert check.state == "ok"
    assert "the model's own choice" in check.found


async def test_no_server() -> None:
    (*_, check) = await examine(base_url="http://127.0.0.1:9/v1")
    assert (check.name, check.state) == ("server", "failed")
    assert "orchestra serve" in check.fix


async def test_a_model_that_is_not_there(server: Server) -> None:
    checks = await server_checks(server, model="other")
    assert list(checks) == ["server", "model"]
    assert checks["model"].state == "failed"
    assert checks["model"].found.startswith("other; it lists ")
    assert checks["model"].fix.startswith("--model ")
    assert "tool calls" not in checks


async def test_an_address_that_is_no_api(server: Server) -> None:
    (*_, check) = await examine(base_url=f"{server.base_url}/nothing")
    assert (check.name, check.state) == ("server", "failed")
    assert "/v1" in check.fix


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, str, str]:
    code = 0
    try:
        doctor(**{"as_json": False, **options})
    except typer.Exit as exit_:
        code = exit_.exit_code
    out, errors = capsys.readouterr()
    return code, out, errors


def test_the_table_and_exit_code(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.script = [GREEN, GREEN, Reply("green")]
    code, out, errors = run(capsys, base_url=server.base_url)
    assert (code, errors) == (0, "")
    assert "required tool choice  ok" in out
    code, out, errors = run(capsys, base_url="http://127.0.0.1:9/v1", python="/nowhere")
    assert code == 1
    assert errors == "error: 2 checks failed: vllm, server; the fix stands beside each\n"
    assert "start one: `orchestra serve MODEL`" in out


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(**_: Any) -> list[Check]:
        return [Check("extra demo", "missing", "without [x]", "pip install 'orchestra-graph[demo]'")]

    monkeypatch.setattr("orchestra_graph.serving.doctor.examine", one)
    code, out, _ = run(capsys)
    assert code == 0
    assert "without [x]" in out
    assert "'orchestra-graph[demo]'" in out
    assert "no server was looked at" in out


def test_json(capfdbinary: Any) -> None:
    code = 0
    try:
        doctor(base_url="http://127.0.0.1:9/v1", as_json=True)
    except typer.Exit as exit_:
        code = exit_.exit_code
    report = json.loads(capfdbinary.readouterr().out)
    assert code == 1
    assert report["ok"] is False
    assert report["checks"][-1]["name"] == "server"


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(MissingError, match=r"NO_SUCH_KEY is missing; fix: export NO_SUCH_KEY="):
        doctor(api_key_env="NO_SUCH_KEY")


async def test_a_key_is_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        checks = await examine(base_url=base_url, api_key="sk-proj-abcdefgh12345678\r")
    [check] = [check for check in checks if check.name == "server"]
    assert check.state == "failed"
    assert "Illegal header value" in check.found
    assert "abcdefgh" not in check.found


@pytest.mark.parametrize("key", ["secret\r", "clé"])
def test_a_key_that_no_header_may_hold(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(ConfigError, match="SOME_KEY holds a line end or another character") as caught:
        doctor(api_key_env="SOME_KEY")
    assert key not in str(caught.value)
