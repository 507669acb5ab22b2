"""A real vLLM on the CPU, with a tiny model, started through `orchestra serve`: one for the whole session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestra_graph.attempts import FIRST_PAUSE
from tests.integration.install_vllm import install
from tests.integration.serving import Served, serving

TINY = Path(__file__).parents[2] / "orchestra_graph" / "serving" / "random_weights.py"
TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizer" / "tokenizer.json"
CONTEXT = ("--max-model-len", "16384")


@pytest.fixture(autouse=True, scope="module")
def no_pauses() -> Iterator[None]:
    """Against a real server a second try waits as it does for a user: one that is killed needs time to come back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestra_graph.attempts.FIRST_PAUSE", FIRST_PAUSE)
        yield


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """An interpreter that has vllm."""
    return install()


@pytest.fixture(scope="session")
def tiny_model(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3 with random weights and the tests' tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = [str(vllm_python), str(TINY), str(folder), "--tokenizer", str(TOKENIZER)]
    subprocess.run(made, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def served(vllm_python: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, ready."""
    log = tmp_path_factory.mktemp("serve") / "server.log"
    with serving(tiny_model, vllm_python, log, *CONTEXT) as server:
        yield server


@pytest.fixture
def metrics(served: Served) -> Iterator[httpx.Client]:
    """A client of the server's root."""
    with httpx.Client(base_url=served.base_url.removesuffix("/v1"), trust_env=False, timeout=60) as client:
        yield client
