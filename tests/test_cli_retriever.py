from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from orchestra_graph.cli.retriever import retriever
from orchestra_graph.errors import ConfigError, MissingError

MODEL = "tests.benchmarks.retriever:SyntheticEmbeddings"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "birds.jsonl"
    path.write_text('{"text": "The gannet dives."}\nnonsense\n{"text": "Puffins nest."}\n')
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(retriever, [str(argument) for argument in arguments])


def test_builds_and_tells_what_was_left_out(corpus: Path, tmp_path: Path) -> None:
    done = run("build", corpus, tmp_path / "i")
    assert done.exit_code == 0, done.output
    assert f"indexed 2 passages, 1 file: 1 added, 0 changed, 0 removed  {tmp_path / 'i'}" in done.output
    assert "left out: birds.jsonl: 1 line holds no passage and were left out: line 2: Invalid JSON" in done.output
    with_vectors = run("build", corpus, tmp_path / "i", "--embeddings", MODEL, "--json")
    report = json.loads(with_vectors.stdout)
    assert (report["vectors"], report["embedded"], report["bad_lines"], report["unchanged"]) == (2, 2, 1, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--embeddings", "nonsense"], "--embeddings nonsense: expected MODULE:NAME"),
        (["--embeddings", "no.such.module:x"], "cannot be made: ModuleNotFoundError: No module named 'no'"),
        (["--embeddings", "json:loads"], "cannot be made: TypeError"),
        (["--embeddings", "builtins:dict"], "is a dict; expected a LangChain embedding model"),
        (["--embeddings", MODEL, "--model", "m"], "expected no --model and no --base-url beside it"),
        (["--base-url", "http://x"], "expected --model NAME beside it"),
    ],
)
def test_wrong_models_are_told_before_anything_is_read(
    corpus: Path, tmp_path: Path, options: list[str], problem: str
) -> None:
    done = run("build", corpus, tmp_path / "i", *options)
    assert isinstance(done.exception, ConfigError)
    assert problem in str(done.exception)
    assert not (tmp_path / "i").exists()


def test_a_hosted_model_needs_its_key(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = run("build", corpus, tmp_path / "i", "--model", "text-embedding-3-small")
    assert isinstance(done.exception, MissingError)
    refused = run("build", corpus, tmp_path / "i", "--model", "m", "--base-url", "http://127.0.0.1:9/v1")
    assert isinstance(refused.exception, ConfigError)
    assert "the embedding model OpenAIEmbeddings m failed: APIConnectionError" in str(refused.exception)


def test_an_index_that_is_not_there(tmp_path: Path) -> None:
    done = run("serve", tmp_path / "i")
    assert isinstance(done.exception, ConfigError)
    assert "expected an index; fix: build it" in str(done.exception)


@pytest.mark.slow
def test_serves_until_it_is_interrupted(corpus: Path, tmp_path: Path) -> None:
    assert run("build", corpus, tmp_path / "i", "--embeddings", MODEL).exit_code == 0
    start = [sys.executable, "-c", "from orchestra_graph.cli.retriever import retriever; retriever()"]
    with subprocess.Popen(
        [*start, "serve", str(tmp_path / "i"), "--port", "0", "--embeddings", MODEL],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    ) as served:
        assert served.stderr is not None
        line = served.stderr.readline()
        assert "(2 passages, by words and SyntheticEmbeddings synthetic, 128 dimensions) on http://127.0.0.1:" in line
        url = line.split()[-1]
        reply = httpx.post(f"{url}/retrieve", json={"queries": ["gannets"], "topk": 1}, timeout=30).json()
        assert reply[0][0]["contents"] == "The gannet dives."
        served.send_signal(signal.SIGINT)
        _, errors = served.communicate(timeout=20)
    assert served.returncode == 130
    assert "Traceback" not in errors
    by_words = subprocess.run(
        [*start, "serve", str(tmp_path / "i"), "--port", url.rpartition(":")[2], "--host", "203.0.113.1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "note: the index holds vectors of SyntheticEmbeddings synthetic, 128 dimensions; they are" in by_words.stderr
