"""`orchestra data`: what a person and a script see of data sets and logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from orchestra_training.datasets.write import read

from orchestra_graph.cli import main
from orchestra_graph.serving.random_weights import TEMPLATE
from tests.commands import complaint
from tests.training.runs import CATALOG, run
from tests.training.test_datasets import cheap_and_dear, log_of, logged
from tests.training.test_render import TOKENIZER, tokenizer_of


@pytest.fixture
def orchestra(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command; gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["orchestra", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return call


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return log_of(tmp_path / "data" / "train.jsonl", *cheap_and_dear(), logged("x", "s", purpose="evaluate"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "chat"
    tokenizer_of(TOKENIZER, TEMPLATE.read_text(encoding="utf-8"), eos_token="<|im_end|>").save_pretrained(folder)
    return folder


def test_a_data_set_is_built_and_shown(orchestra: Any, log: Path, tmp_path: Path) -> None:
    code, out, err = orchestra("data", "build", "sft", "--from", log.parent, "--to", tmp_path / "sft", "--all")
    assert code == 0, err
    assert "1 for_evaluation: evaluate" in out and "1 not_chosen: unsolved" in out
    assert "fidelity: 2 exact" in out and "2 examples in" in out
    code, out, err = orchestra("data", "show", tmp_path / "sft")
    assert code == 0, err
    assert "sft, train: 2 examples" in out and "input_ids" in out and "9 tokens" in out


def test_means_of_rewards_are_told_with_their_digits(orchestra: Any, log: Path, tmp_path: Path) -> None:
    code, out, err = orchestra("data", "build", "dpo", "--from", log, "--to", tmp_path / "dpo")
    assert code == 0, err
    assert "means: prompt_ids 5.5, chosen_ids 2, rejected_ids 2, chosen_reward 1.3, rejected_reward 0.5\n" in out


def test_scripts_get_one_line_of_json(orchestra: Any, log: Path, tmp_path: Path) -> None:
    _, out, _ = orchestra("data", "build", "kto", "--from", log, "--to", tmp_path / "kto", "--json")
    built = orjson.loads(out)
    assert built["examples"] == 5 and out.count("\n") == 1
    _, out, _ = orchestra("data", "show", tmp_path / "kto", "--json")
    shown = orjson.loads(out)
    assert shown["card"] == built and shown["columns"]["label"] == {"true": 4, "false": 1}
    assert shown["columns"]["completion_ids"]["mean"] == 2


def test_a_log_is_shown(orchestra: Any, log: Path) -> None:
    _, out, _ = orchestra("data", "show", log.parent, "--json")
    shown = orjson.loads(out)
    assert shown["runs"] == 4 and shown["fidelity"] == {"exact": 4} and shown["solved"] == {"no": 1, "yes": 3}
    assert shown["purpose"] == {"evaluate": 1, "train": 3} and shown["examples"] == 1
    assert shown["groups"]["kinds"] == {"mixed rewards": 1} and shown["groups"]["runs"]["largest"] == 4
    assert shown["rows"]["trained tokens"]["count"] == 4
    _, out, _ = orchestra("data", "show", log)
    assert "policy: 4 tiny, step 3" in out and "rewards" in out and "4 tokens" in out


def test_runs_without_tokens_are_rendered(orchestra: Any, model: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "runs.jsonl", run(catalog=CATALOG.json_data))
    code, _, err = orchestra("data", "build", "sft", "--from", log, "--to", tmp_path / "sft")
    assert code == 1 and err.startswith("error: nothing for sft in") and "1 fidelity: text" in err
    assert "fix: name a tokenizer to render it with (--tokenizer MODEL)" in err
    code, out, err = orchestra("data", "build", "sft", "--from", log, "--to", tmp_path / "sft", "--tokenizer", model)
    assert code == 0, err
    assert "fidelity: 1 rendered" in out
    (row,) = read(tmp_path / "sft" / "train-00000-of-00001.parquet")
    assert row["turns"] == ["r-0", "r-1"]
    _, out, _ = orchestra("data", "show", tmp_path / "sft", "--tokenizer", model)
    assert '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call><|im_end|>' in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "sft", "--from", "none", "--to", "x"), "none: expected a run log"),
        (("build", "replay", "--from", "{log}", "--to", "x", "--tokenizer", "{model}"), "rendered tokens have none"),
        (("build", "sft", "--from", "{folder}", "--split", "test", "--to", "x"), "split = 'test'; {folder} has train"),
        (("show", "none"), "none: expected a run log"),
        (("show", "{broken}"), "{broken}/train.parquet: cannot be read: "),
    ],
)
def test_what_is_wrong_is_one_line(
    orchestra: Any, log: Path, model: Path, arguments: tuple[str, ...], message: str
) -> None:
    broken = log.parent.with_name("broken")
    broken.mkdir()
    (broken / "train.parquet").write_bytes(b"PAR1 torn")
    names = {"log": log, "model": model, "folder": log.parent, "broken": broken}
    code, out, err = orchestra("data", *(argument.format(**names) for argument in arguments))
    assert code == 1 and out == "" and err.count("\n") == 1
    assert message.format(**names) in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("kto", "--max-dollars", 1, "--margin", 5),
            "--max-dollars and --margin beside kto, which has no use for that",
        ),
        (("kto", "--reward", "paper"), "--reward beside kto"),
        (("dpo", "--best", 3), "--best beside dpo"),
        (("replay", "--all"), "--all beside replay"),
        (("grpo", "--tokenizer", "x"), "--tokenizer beside grpo"),
        (("sft", "--margin", 1), "--margin beside sft"),
        (("sft", "--all", "--best", 2), "--best beside --all"),
        (("sft", "--protocol", "scan"), "--protocol without --tokenizer FOLDER"),
        (("sft", "--chat-template", "y"), "--chat-template without --tokenizer FOLDER"),
    ],
)
def test_what_would_be_ignored_is_refused(
    orchestra: Any, log: Path, tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    code, _, err = orchestra("data", "build", *arguments, "--from", log, "--to", tmp_path / "set")
    assert code == 2 and told in complaint(err)


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [("pyarrow", "train", ("data", "show", ".")), ("numpy", "demo", ("eval", "rules"))],
)
def test_what_must_be_installed_is_said(tmp_path: Path, package: str, extra: str, arguments: tuple[str, ...]) -> None:
    program = f"import sys; sys.modules['{package}'] = None; from orchestra_graph.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr == f"error: the package {package} is missing; fix: pip install 'orchestra-graph[{extra}]'\n"
