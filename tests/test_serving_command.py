"""The command that starts vLLM, and what is checked before it runs."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.served import VLLM_SAMPLING, Served
from orchestra_graph.serving.command import PRESETS, VLLMCommand, check_folder, check_port, check_vllm, command_for
from orchestra_graph.serving.environment import VLLM

ALWAYS = [
    "--enable-auto-tool-choice",
    "--tool-call-parser",
    "hermes",
    "--enable-prefix-caching",
    "--enable-prompt-tokens-details",
    "--generation-config",
    "vllm",
    "--logprobs-mode",
    "processed_logprobs",
]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_what_a_router_needs(name: str) -> None:
    argv = PRESETS[name].argv()
    assert set(ALWAYS) <= set(argv)
    assert argv[0] == "env"
    assert "VLLM_NO_USAGE_STATS=1" in argv
    assert argv[argv.index("-m") + 1] == "vllm.entrypoints.openai.api_server"
    assert name in PRESETS[name].names


def test_the_released_checkpoint_keeps_its_thoughts() -> None:
    assert "--reasoning-parser" not in PRESETS["nemotron-orchestrator-8b"].argv()
    assert "--reasoning-parser" in PRESETS["qwen3-8b"].argv()


def test_the_whole_command() -> None:
    command = VLLMCommand(
        model="org/m",
        names=("m", "n"),
        python="/p/python",
        host="::1",
        port=9,
        dtype="bfloat16",
        max_model_len=100,
        tensor_parallel=2,
        data_parallel=3,
        gpu_memory=0.9,
        ray=True,
        lora={"a": "x", "b": "y"},
        reasoning_parser="r",
        extra=("--seed", "1"),
        environment={"A": "b c"},
    )
    expected = """
        --model org/m --served-model-name m n --host ::1 --port 9 --dtype bfloat16
        --enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser r
        --enable-prefix-caching --enable-prompt-tokens-details
        --generation-config vllm --logprobs-mode processed_logprobs --max-model-len 100
        --gpu-memory-utilization 0.9 --tensor-parallel-size 2 --data-parallel-size 3
        --distributed-executor-backend ray --data-parallel-backend ray
        --enable-lora --lora-modules a=x b=y --seed 1"""
    program = ["env", "VLLM_NO_USAGE_STATS=1", "A=b c", "/p/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert command.argv() == program + expected.split()


@pytest.mark.parametrize(
    "host, address",
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("box.local", "http://box.local:8000"),
    ],
)
def test_address(host: str, address: str) -> None:
    assert VLLMCommand(model="m", host=host).address == address


@pytest.mark.parametrize("extra", [("--port", "9001", "--host", "::1"), ("--port=9001", "--host=::1")])
def test_further_flags_say_where_it_listens(extra: tuple[str, ...]) -> None:
    command = VLLMCommand(model="m", extra=extra)
    assert (command.address, command.listens_on) == ("http://[::1]:9001", ("::1", 9001))
    with pytest.raises(ConfigError, match="--port ninety: expected a number"):
        _ = VLLMCommand(model="m", extra=("--port", "ninety")).address


@pytest.mark.parametrize(
    "model, says",
    [
        ("qwen3-9b", r"'qwen3-9b' is no preset; expected nemotron.*did you mean qwen3-8b\?"),
        ("zzz", r"'zzz' is no preset; expected [^;]*$"),
        ("", "'' is no preset"),
        ("./models/router", "is no folder"),
        ("a/b/c", "is no folder"),
        ("/nowhere", "is no folder"),
        ("~/nowhere", "is no folder"),
        ("model.gguf", "is no folder"),
    ],
)
def test_what_is_no_model(model: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        command_for(model)


def test_hub_names_pass() -> None:
    assert command_for("org/model-1.5").model == "org/model-1.5"


def folder_of(tmp_path: Path, *names: str, template: str | None = None) -> VLLMCommand:
    for name in names:
        (tmp_path / name).write_text("{}")
    if template is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return command_for(str(tmp_path))


def test_a_whole_folder_passes(tmp_path: Path) -> None:
    command = folder_of(tmp_path, "config.json", "tokenizer.json", "chat_template.jinja")
    check_folder(command)
    assert command.names == (tmp_path.name,)
    assert command.environment == {"HF_HUB_OFFLINE": "1"}


def test_a_template_in_the_tokenizer_config_counts(tmp_path: Path) -> None:
    command = folder_of(tmp_path, "config.json", "vocab.json", template="{{ messages }}")
    check_folder(command)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        check_folder(command)


@pytest.mark.parametrize(
    "names, says",
    [
        ((), "has no config.json"),
        (("config.json", "chat_template.jinja"), "has no tokenizer.json; fix: .*--tokenizer"),
        (("config.json", "tokenizer.json"), "has no chat template; fix: .*--chat-template"),
        (("config.json", "tokenizer.json", "tokenizer_config.json"), "has no chat template"),
    ],
)
def test_what_a_folder_lacks(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_folder(folder_of(tmp_path, *names))


def test_flags_can_bring_what_a_folder_lacks(tmp_path: Path) -> None:
    command = folder_of(tmp_path, "config.json")
    with pytest.raises(ConfigError, match=r"has no tokenizer.json"):
        check_folder(command)
    check_folder(replace(command, extra=("--tokenizer", "org/m", "--chat-template", "t.jinja")))
    check_folder(replace(command, extra=("--tokenizer=org/m", "--chat-template=t.jinja")))


def test_a_model_of_a_hub_is_not_looked_into() -> None:
    command = VLLMCommand(model="org/name")
    check_folder(command)
    assert command.environment == {}


def test_a_broken_tokenizer_config_has_no_template(tmp_path: Path) -> None:
    command = folder_of(tmp_path, "config.json", "tokenizer.json")
    for broken in ("{", "[]", '{"chat_template": ""}'):
        (tmp_path / "tokenizer_config.json").write_text(broken)
        with pytest.raises(ConfigError, match="has no chat template"):
            check_folder(command)


def test_a_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken; .*--port {port + 1}"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_host_that_is_not_this_machine() -> None:
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1 --port 8000 cannot be listened on"):
        check_port("192.0.2.1", 8000)


async def test_vllm_is_missing() -> None:
    fix = r"vllm in .* is missing; fix: .* -m pip install 'vllm>=0.22,<0.32', .*--python PATH"
    with pytest.raises(MissingError, match=fix):
        await check_vllm(sys.executable)
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["optional-dependencies"]["serve"] == [VLLM]


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true", "/bin/false"])
async def test_no_interpreter(python: str) -> None:
    with pytest.raises(ConfigError, match=f"--python {python} is no Python interpreter that runs"):
        await check_vllm(python)


def test_what_is_served_is_told_for_the_run_log(tmp_path: Path) -> None:
    template = "{{ messages }}"
    folder_of(tmp_path, "config.json", "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    command = VLLMCommand(model=str(tmp_path))
    served = command.served(weights_hash="w", step=3)
    assert served == Served(
        weights_hash="w",
        step=3,
        tokenizer=str(tmp_path),
        template_hash=hashlib.sha256(template.encode()).hexdigest(),
        logprobs_mode="processed_logprobs",
        sampling=dict(VLLM_SAMPLING),
    )
    other = tmp_path / "other.jinja"
    other.write_text("other")
    flags = ("--logprobs-mode=raw_logprobs", "--generation-config", "auto", "--chat-template", str(other))
    changed = replace(command, extra=(*flags, "--tokenizer", "a/b")).served()
    assert (changed.logprobs_mode, changed.sampling, changed.tokenizer) == ("raw_logprobs", {}, "a/b")
    assert changed.template_hash == hashlib.sha256(b"other").hexdigest()
    assert command_for("Qwen/Qwen3-8B").served().template_hash is None
    spelt = replace(command, extra=("--logprobs_mode", "raw_logprobs", "--generation_config=auto")).served()
    assert (spelt.logprobs_mode, spelt.sampling) == ("raw_logprobs", {})


def test_of_several_named_templates_the_default_one_is_served(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert VLLMCommand(model=str(tmp_path)).served().template_hash == hashlib.sha256(b"d").hexdigest()


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_that_is_none(port: str) -> None:
    with pytest.raises(ConfigError, match=f"--port {port}: expected a number from 1 to 65535"):
        _ = VLLMCommand(model="m", extra=("--port", port)).listens_on


def test_a_folder_is_served_offline_unless_something_is_on_the_hub(tmp_path: Path) -> None:
    command = command_for(str(tmp_path))
    assert "HF_HUB_OFFLINE=1" in command.argv()
    assert "HF_HUB_OFFLINE=1" in replace(command, lora={"a": str(tmp_path)}).argv()
    assert "HF_HUB_OFFLINE=1" not in replace(command, lora={"a": "acme/adapter"}).argv()
    assert "HF_HUB_OFFLINE=1" not in replace(command, extra=("--tokenizer", "acme/model")).argv()
