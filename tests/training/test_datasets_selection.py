"""Which runs a data set takes: of which logs, splits, tokenizers and purposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestra_training.datasets.build import build
from orchestra_training.datasets.source import logs_of
from orchestra_training.datasets.write import Kind, read
from orchestra_training.harvest.gather import REPORT, harvest
from orchestra_training.harvest.logs import LogSource
from orchestra_training.render import Renderer

from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.serving.random_weights import TEMPLATE
from tests.training.runs import run
from tests.training.test_datasets import cheap_and_dear, log_of, logged, made
from tests.training.test_render import TOKENIZER, tokenizer_of


def test_folders_of_the_same_name_are_told_apart_by_their_templates(tmp_path: Path) -> None:
    tiny, qwen = (dict[str, Any](tokenizer=f"runs/{name}/model", template_hash=name) for name in ("tiny", "qwen"))
    runs = [logged("a", "sm", **tiny), logged("b", "sm", task="t2", **qwen), logged("c", "sm", task="t3", **tiny)]
    rows, facts = made(tmp_path, "sft", *runs)
    assert [row["run_id"] for row in rows] == ["a", "c"]
    assert facts["runs"]["left_out"] == {"fidelity: other_tokenizer": 1}


def test_runs_that_state_no_split_do_not_test(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing for sft in .*: 3 other_split: none"):
        build("sft", logs_of(log_of(tmp_path / "runs.jsonl", *cheap_and_dear())), tmp_path / "sft", split="test")


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "grpo", "replay"])
def test_runs_that_measure_a_policy_are_refused_unless_wanted(tmp_path: Path, kind: Kind) -> None:
    runs = [
        *cheap_and_dear("t1"),
        *(run.model_copy(update={"purpose": "evaluate"}) for run in cheap_and_dear("t2")),
    ]
    rows, facts = made(tmp_path / "without", kind, *runs)
    assert facts["runs"]["left_out"] == {"for_evaluation: evaluate": 3}
    more, facts = made(tmp_path / "with", kind, *runs, evaluate=True)
    assert len(more) == 2 * len(rows) and facts["runs"]["left_out"] == {} and facts["options"]["evaluate"]


def test_runs_that_state_another_split_are_left_out(tmp_path: Path) -> None:
    held_out = [run.model_copy(update={"split": "held_out"}) for run in cheap_and_dear("t2")]
    stated = [run.model_copy(update={"split": "train"}) for run in cheap_and_dear("t3")]
    rows, facts = made(tmp_path, "sft", *cheap_and_dear("t1"), *held_out, *stated)
    assert [row["run_id"] for row in rows] == ["t1b", "t3b"]
    assert facts["runs"]["left_out"] == {"other_split: held_out": 3}


def test_runs_that_a_harvest_keeps_to_test_may_state_that_they_train(tmp_path: Path) -> None:
    stated = {"t1": "train", "t2": "held_out", "t3": None}
    runs = [run.model_copy(update={"split": split}) for task, split in stated.items() for run in cheap_and_dear(task)]
    harvest([LogSource(log_of(tmp_path / "runs.jsonl", *runs))], tmp_path / "data", test_share=1)
    facts = build("sft", logs_of(tmp_path / "data", "test"), tmp_path / "sft", split="test")
    assert [row["run_id"] for row in read(tmp_path / "sft" / facts["file"])] == ["t1b", "t3b"]
    assert facts["runs"]["left_out"] == {"other_split: held_out": 3}


def test_tokens_of_another_tokenizer_and_text_are_left_out(tmp_path: Path) -> None:
    other = logged("o", "s", task="t2", tokenizer="other")
    text = run("text", purpose="train", task={"id": "t3", "question": "?"})
    rows, facts = made(tmp_path, "sft", *cheap_and_dear(), other, text)
    assert [row["run_id"] for row in rows] == ["t1b"]
    assert facts["runs"]["left_out"] == {"fidelity: other_tokenizer": 1, "fidelity: text": 1}


def test_what_was_said_in_another_protocol_is_rendered(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(TOKENIZER, TEMPLATE.read_text(encoding="utf-8"), eos_token="<|im_end|>")
    renderer = Renderer(tokenizer, ConversationProtocol(), name="chat")
    served = dict[str, Any](tokenizer="chat", template_hash=renderer.template_hash)
    spoken = {"a": "conversation", "b": "scan", "c": None}
    runs = [logged(id, "s", task=id, protocol=protocol, **served) for id, protocol in spoken.items()]
    facts = build("sft", logs_of(log_of(tmp_path / "runs.jsonl", *runs)), tmp_path / "sft", renderer=renderer)
    own = {row["run_id"]: row["input_ids"][-2:] == [101, 9] for row in read(tmp_path / "sft" / facts["file"])}
    assert own == {"a": True, "b": False, "c": True} and facts["fidelity"] == {"exact": 2, "rendered": 1}


def test_tokens_of_a_tokenizer_that_nobody_names_are_not_mixed_with_others(tmp_path: Path) -> None:
    runs = [logged("a", "s", tokenizer=None), logged("b", "s", task="t2"), logged("c", "s", task="t3", tokenizer=None)]
    rows, facts = made(tmp_path, "sft", *runs)
    assert [row["run_id"] for row in rows] == ["a", "c"] and facts["fidelity"] == {"ids": 2}
    assert facts["runs"]["left_out"] == {"fidelity: other_tokenizer": 1} and facts["tokenizer"] is None


def test_a_folder_of_a_harvest_gives_one_split(tmp_path: Path) -> None:
    log_of(tmp_path / "data" / "train.jsonl", *cheap_and_dear("t1"))
    log_of(tmp_path / "data" / "test.jsonl", *cheap_and_dear("t2"))
    assert [run.run_id for run in logs_of(tmp_path / "data", "test")] == ["t2a", "t2b", "t2c"]
    assert [run.run_id for run in logs_of(tmp_path / "data")] == ["t1a", "t1b", "t1c"]
    assert len(list(logs_of(tmp_path / "data", None))) == 6
    with pytest.raises(ConfigError, match=r"split = 'other'; .* has test, train"):
        logs_of(tmp_path / "data", "other")
    with pytest.raises(ConfigError, match="expected a run log"):
        logs_of(tmp_path)


def test_logs_of_splits_among_others_are_told_apart_in_a_harvest_only(tmp_path: Path) -> None:
    log_of(tmp_path / "train.jsonl", *cheap_and_dear("t1"))
    log_of(tmp_path / "monday.jsonl", *cheap_and_dear("t2"))
    with pytest.raises(ConfigError, match=r"holds train\.jsonl, .* beside monday\.jsonl; .* fix: name one file"):
        logs_of(tmp_path)
    assert len(list(logs_of(tmp_path, None))) == 6
    (tmp_path / REPORT).write_text("{}")
    assert [run.run_id for run in logs_of(tmp_path)] == ["t1a", "t1b", "t1c"]


def test_a_run_that_two_logs_have_counts_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        log_of(tmp_path / "data" / f"{name}.jsonl", *cheap_and_dear())
    facts = build("kto", logs_of(tmp_path / "data"), tmp_path / "kto")
    assert facts["examples"] == 5 and facts["read"]["duplicates"] == 3
