"""Data sets from run logs: which runs, which tokens, and what the card says."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.batch import make_batch
from orchestra_training.datasets.build import Options, build
from orchestra_training.datasets.card import read_card
from orchestra_training.datasets.facts import spread
from orchestra_training.datasets.kinds import dpo
from orchestra_training.datasets.selection import Selection
from orchestra_training.datasets.source import file_hash, logs_of
from orchestra_training.datasets.write import COLUMNS, Kind, read
from orchestra_training.exploration import EXPLORES
from orchestra_training.filters import LEAST_SPREAD
from orchestra_training.reward.guarded import guarded
from orchestra_training.reward.measures import measure

from orchestra_graph.errors import ConfigError, OrchestraError
from orchestra_graph.preferences import Preferences
from orchestra_graph.runlog.encoding import dump
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.served import VLLM_SAMPLING
from tests.training.runs import CATALOG, decided, run
from tests.training.test_rows import MALFORMED

EXACT: dict[str, Any] = {
    "tokenizer": "models/tiny",
    "template_hash": "t",
    "logprobs_mode": "processed_logprobs",
    "sampling": dict(VLLM_SAMPLING),
    "purpose": "train",
    "catalog": CATALOG.json_data,
}


def logged(
    id: str, tools: str, *, solved: bool = True, cents: float = 1.0, task: str = "t1", **parts: Any
) -> Trajectory:
    """A run that called tools by their first letters, a turn each; a call is a token, what it brings another one.

    The tools are told by what they are: `s` search 101, `l` large 102, `m` small 103; results are 200 more.
    """
    names = {"s": "search", "l": "large", "m": "small"}
    ids = {"s": 101, "l": 102, "m": 103}
    prompt = [1, 2, *task.encode()]
    turns, captures = [], {}
    for index, letter in enumerate(tools.lower()):
        decision = MALFORMED if tools[index].isupper() else {}
        turn = decided(index, [] if decision else [names[letter]], decision=decision)
        turn["id"], turn["captures"] = f"{id}-{index}", [f"{id}-{index}:0"]
        turn["charges"] = {f"{id}-{index}#0": {**next(iter(turn["charges"].values())), "dollars": cents / 100}}
        captures[f"{id}-{index}:0"] = {
            "id": f"{id}-{index}:0",
            "turn": turn["id"],
            "prompt_token_ids": prompt,
            "token_ids": [ids[letter], 9],
            "logprobs": [-0.5, -0.25],
            "sampling": {"temperature": 1.0},
        }
        prompt = [*prompt, ids[letter], 9, ids[letter] + 200]
        turns.append(turn)
    return run(
        id,
        task={"id": task, "question": f"What is {task}?"},
        turns=turns,
        captures=captures,
        **{"verdict": {"outcome": float(solved), "by": "exact"}, **EXACT, **parts},
    )


def log_of(path: Path, *runs: Trajectory) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [dump(run.model_dump(mode="json", exclude_none=True)) for run in runs]
    path.write_bytes(b"".join(lines))
    return path


def made(tmp_path: Path, kind: Kind, *runs: Trajectory, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    log = log_of(tmp_path / "runs.jsonl", *runs)
    facts = build(kind, logs_of(log), tmp_path / kind, options=Options(**options))
    return list(read(tmp_path / kind / facts["file"])), facts


def cheap_and_dear(task: str = "t1") -> list[Trajectory]:
    return [
        logged(f"{task}a", "sl", cents=5, task=task),
        logged(f"{task}b", "sm", cents=1, task=task),
        logged(f"{task}c", "m", solved=False, cents=0.5, task=task),
    ]


def test_sft_takes_the_best_run_of_each_example(tmp_path: Path) -> None:
    rows, facts = made(tmp_path, "sft", *cheap_and_dear("t1"), *cheap_and_dear("t2"))
    assert [row["run_id"] for row in rows] == ["t1b", "t2b"]
    assert rows[0]["input_ids"] == [1, 2, *b"t1", 101, 9, 301, 103, 9]
    assert rows[0]["labels"] == [-100] * 4 + [101, 9, -100, 103, 9]
    assert rows[0]["turns"] == ["t1b-0", "t1b-1"]
    assert facts["chosen"] == {"kept": 2, "left_out": {"not_chosen: unsolved": 2, "not_chosen: worse": 2}}
    assert facts["fidelity"] == {"exact": 2} and facts["tokenizer"] == "tiny"


def test_sft_takes_all_solved_runs_under_a_price(tmp_path: Path) -> None:
    rows, facts = made(tmp_path, "sft", *cheap_and_dear(), logged("d", "mm", cents=2), best=None, max_dollars=0.05)
    assert [row["run_id"] for row in rows] == ["t1b", "d"]
    assert facts["chosen"]["left_out"] == {"not_chosen: price": 1, "not_chosen: unsolved": 1}
    assert facts["options"] == {"reward": "guarded", "best": None, "max_dollars": 0.05, "evaluate": False}


def test_sft_follows_no_run_that_others_solved(tmp_path: Path) -> None:
    closed = logged("a", "s", stopped_by="turns")
    with pytest.raises(ConfigError, match=r"nothing for sft in .*: 1 not_chosen: other_answer"):
        made(tmp_path, "sft", closed)


def test_dpo_sets_decisions_after_the_same_tokens_against_each_other(tmp_path: Path) -> None:
    rows, facts = made(tmp_path, "dpo", *cheap_and_dear())
    first, second = rows
    assert (first["prompt_ids"], first["chosen_ids"], first["rejected_ids"]) == ([1, 2, *b"t1"], [101, 9], [103, 9])
    assert (second["prompt_ids"], second["chosen_ids"], second["rejected_ids"]) == (
        [1, 2, *b"t1", 101, 9, 301],
        [103, 9],
        [102, 9],
    )
    assert first["chosen_reward"] == pytest.approx(
        (first_earned := second["chosen_reward"]) / 2 + second["rejected_reward"] / 2
    )
    assert (second["chosen_run"], second["rejected_run"]) == ("t1b", "t1a") and first_earned > second["rejected_reward"]
    assert facts["examples"] == 2


def test_dpo_compares_what_was_decided_and_not_how_it_was_worded(tmp_path: Path) -> None:
    worded = logged("w", "sl", cents=9).model_dump(mode="json")
    worded["captures"]["w-0:0"] |= {"token_ids": [77, 101, 9], "logprobs": [-0.5] * 3}
    worded["captures"]["w-1:0"]["prompt_token_ids"].insert(4, 77)
    rows, _ = made(
        tmp_path, "dpo", logged("b", "sm"), Trajectory.model_validate(worded), logged("c", "m", solved=False)
    )
    assert [(row["chosen_ids"], row["rejected_ids"]) for row in rows] == [([101, 9], [103, 9])]


def test_dpo_reads_integers_of_any_size(tmp_path: Path) -> None:
    runs = [logged("a", "sl", cents=5), logged("b", "sm", cents=1)]
    for one in runs:
        one.turns[0]["decision"]["calls"][0]["args"] = {"n": 2**70, "m": 1}
    rows, _ = made(tmp_path, "dpo", *runs)
    assert [(row["chosen_run"], row["rejected_run"]) for row in rows] == [("b", "a")]


def test_dpo_leaves_out_small_differences_and_groups_that_are_alike(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 homogeneous: all_solved"):
        made(tmp_path, "dpo", *[logged(id, "s") for id in "abc"])
    with pytest.raises(ConfigError, match="nothing for dpo"):
        made(tmp_path, "dpo", *cheap_and_dear(), margin=5)


def test_dpo_prefers_nothing_among_equals(tmp_path: Path) -> None:
    alike = [logged("a", "sl"), logged("b", "sm"), logged("c", "m", solved=False)]
    rows, _ = made(tmp_path, "dpo", *alike, margin=0)
    assert all(row["chosen_reward"] > row["rejected_reward"] for row in rows)


def test_replay_keeps_what_proportional_rewards_tell_apart(tmp_path: Path) -> None:
    """They lie closer together than others: an expert at a hundred times the price of the others."""
    runs = [logged("a", "l", cents=100), *(logged(id, "s", cents=1) for id in "bcd")]
    rows, _ = made(tmp_path, "replay", *runs, reward="proportional")
    assert len(rows) == 4


def test_examples_are_not_mixed(tmp_path: Path) -> None:
    mixed = [run for pair in zip(cheap_and_dear("t1"), cheap_and_dear("t2"), strict=True) for run in pair]
    rows, _ = made(tmp_path, "dpo", *mixed)
    assert len(rows) == 4
    assert all(row["chosen_run"][:2] == row["rejected_run"][:2] for row in rows)


@given(st.lists(st.tuples(st.text("slm", min_size=1, max_size=3), st.booleans(), st.integers(1, 9)), max_size=7))
def test_dpo_pairs_are_what_runs_did_where_they_part(drawn: list[tuple[str, bool, int]]) -> None:
    runs = [logged(f"r{n}", tools, solved=solved, cents=cents) for n, (tools, solved, cents) in enumerate(drawn)]
    made = {run.run_id: {tuple(read): written for read, written in replies(run)} for run in runs}
    pairs = list(dpo(runs, Selection(needs="ids"), reward=guarded))
    for pair in pairs:
        chosen, rejected = made[pair["chosen_run"]], made[pair["rejected_run"]]
        assert chosen[tuple(pair["prompt_ids"])] == pair["chosen_ids"]
        assert rejected[tuple(pair["prompt_ids"])] == pair["rejected_ids"] != pair["chosen_ids"]
        through = [n for n, run in enumerate(runs) if tuple(pair["prompt_ids"]) in made[run.run_id]]
        rewards = guarded([measure(run) for run in runs], Preferences())
        for ids, mean in ((pair["chosen_ids"], "chosen_reward"), (pair["rejected_ids"], "rejected_reward")):
            went = [rewards[n] for n in through if made[f"r{n}"][tuple(pair["prompt_ids"])] == ids]
            assert pair[mean] == pytest.approx(fmean(went))
        assert pair["chosen_reward"] - pair["rejected_reward"] >= LEAST_SPREAD
    asked = Counter(tuple(pair["prompt_ids"]) for pair in pairs)
    assert all(count <= 2 for count in asked.values()), "three tools part in one better and at most two worse"


def replies(run: Trajectory) -> list[tuple[list[int], list[int]]]:
    return [(capture.prompt_token_ids, capture.token_ids) for capture in run.captures.values()]


def test_kto_labels_single_replies(tmp_path: Path) -> None:
    runs = [*cheap_and_dear(), logged("d", "sM", solved=False), logged("e", "s", verdict=None)]
    rows, facts = made(tmp_path, "kto", *runs)
    assert [(row["turn"], row["completion_ids"], row["label"]) for row in rows] == [
        ("t1a-0", [101, 9], True),
        ("t1a-1", [102, 9], True),
        ("t1b-0", [101, 9], True),
        ("t1b-1", [103, 9], True),
        ("t1c-0", [103, 9], False),
        ("d-0", [101, 9], False),
    ]
    assert rows[1]["prompt_ids"] == [1, 2, *b"t1", 101, 9, 301]
    assert facts["runs"]["left_out"] == {"unjudged: no_verdict": 1}
    assert facts["turns"] == {"kept": 6, "left_out": {"bad_format: no_call": 1}}
    assert facts["columns"]["label"] == {"true": 4, "false": 2}


def test_kto_calls_no_reply_bad_whose_router_was_lost_later(tmp_path: Path) -> None:
    lost = logged("f", "sS", solved=False, stopped_by="router")
    lost.turns[-1]["decision"]["problem"] = {"kind": "router_error", "detail": "connection refused"}
    rows, facts = made(tmp_path, "kto", logged("a", "s"), lost)
    assert [row["run_id"] for row in rows] == ["a"]
    assert facts["runs"] == {"kept": 1, "left_out": {"unreached: router_error": 1}}


def test_grpo_lists_each_task_once(tmp_path: Path) -> None:
    rows, _ = made(tmp_path, "grpo", *cheap_and_dear("t1"), run("x", purpose="serve"), logged("y", "s", verdict=None))
    assert [(row["task_id"], row["runs"], row["judged"], row["solved"]) for row in rows] == [
        ("t1", 4, 3, 2),
        ("t1", 1, 1, 1),
    ]
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is t1?"}]
    assert '"accuracy"' in rows[0]["preferences"] and '"search"' in rows[0]["catalog"]


def test_replay_holds_exact_rows_with_advantages(tmp_path: Path) -> None:
    alike = [logged(f"x{n}", "s", task="t3") for n in range(2)]
    served = logged("s", "s", constraint="required")
    rows, facts = made(tmp_path, "replay", *cheap_and_dear(), *alike, served)
    assert [row["run_id"] for row in rows] == ["t1a", "t1b", "t1c"]
    assert rows[0]["completion_ids"] == [101, 9, 301, 102, 9]
    assert rows[0]["mask"] == [1, 1, 0, 1, 1] and rows[0]["logprobs"] == [-0.5, -0.25, 0.0, -0.5, -0.25]
    assert [row["policy_tokens"] for row in rows] == [4, 4, 2] and {row["step"] for row in rows} == {3}
    assert sum(row["advantage"] for row in rows) == pytest.approx(0)
    assert rows[1]["reward"] > rows[0]["reward"] > rows[2]["reward"] == 0
    assert facts["runs"]["left_out"] == {"fidelity: ids": 1}
    assert facts["chosen"]["left_out"] == {"homogeneous: all_solved": 2}


def test_replay_learns_from_what_a_step_online_would(tmp_path: Path) -> None:
    runs = [*cheap_and_dear(), logged("g", "s", solved=False, stopped_by="router")]
    rows, facts = made(tmp_path, "replay", *runs)
    assert "g" not in {row["run_id"] for row in rows}
    assert sum(row["advantage"] for row in rows) > 0, "it counts in the mean of its group"
    turns = sum(len(row["turns"]) for row in rows)
    assert facts["turns"] == {"kept": turns, "left_out": {"invalid_output: gave_up": 1}}
    assert facts["fidelity"] == {"exact": 3}
    found = {one.row.run_id: one.weight for one in make_batch(runs).rows}
    assert found == pytest.approx({row["run_id"]: row["advantage"] / row["policy_tokens"] for row in rows})


def test_replay_passes_explorers_over(tmp_path: Path) -> None:
    alone, _ = made(tmp_path / "alone", "replay", *cheap_and_dear())
    first = cheap_and_dear()[0]
    task = first.task.model_copy(update={EXPLORES: 0})
    explorer = first.model_copy(update={"run_id": "x", "task": task})
    rows, facts = made(tmp_path / "both", "replay", *cheap_and_dear(), explorer)
    assert rows == alone
    assert facts["runs"]["left_out"] == {"explored: explorer": 1}


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard  # noqa: PLC0415  (slow to import)

    torn = log_of(tmp_path / "data" / "train.jsonl", *cheap_and_dear())
    torn.write_bytes(torn.read_bytes() + b'{"version":1,"run_id":"torn"')
    facts = build("sft", logs_of(tmp_path / "data", "train"), tmp_path / "sft")
    card = DatasetCard.load(tmp_path / "sft" / "README.md")
    assert card.data.tags == ["orchestra-graph", "router", "sft"]
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": facts["file"]}]
    assert card.data["orchestra_graph"] == facts == read_card(tmp_path / "sft")
    assert facts["sources"] == [
        {"file": "train.jsonl", "bytes": torn.stat().st_size, "sha256": file_hash(torn)},
    ]
    assert facts["sha256"] == file_hash(tmp_path / "sft" / facts["file"])
    for shown in (facts["sha256"], facts["sources"][0]["sha256"], "| lines | torn | 1 |", "| exact | 1 |"):
        assert shown in card.text
    assert str(tmp_path) not in card.content


def test_a_build_that_fails_leaves_nothing_and_overwrites_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing for replay"):
        made(tmp_path, "replay", run("text"))
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]
    made(tmp_path, "kto", *cheap_and_dear())
    with pytest.raises(ConfigError, match="is there already; expected a new folder"):
        made(tmp_path, "kto", *cheap_and_dear())
    with pytest.raises(OrchestraError, match="no such run log"):
        build(
            "sft",
            logs_of(log_of(tmp_path / "gone.jsonl", *cheap_and_dear())),
            tmp_path / "sft",
            watch=removing(tmp_path),
        )
    assert not (tmp_path / "sft").exists() and not list(tmp_path.glob(".*"))


def test_an_empty_folder_is_filled_even_the_one_that_the_user_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = logs_of(log_of(tmp_path / "runs.jsonl", *cheap_and_dear()))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    facts = build("kto", logs, ".")
    assert sorted(os.listdir()) == ["README.md", facts["file"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "runs.jsonl"]


def removing(folder: Path) -> Any:
    def watch(runs: Any) -> Any:
        (folder / "gone.jsonl").unlink(missing_ok=True)
        return runs

    return watch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": 0}, "best = 0; expected a number from 1 on"),
        ({"margin": -1.0}, r"margin = -1\.0; expected"),
        ({"max_dollars": float("nan")}, "max_dollars = nan"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**options)


def test_the_percentile_is_by_nearest_rank() -> None:
    assert [spread(range(1, n + 1))["p95"] for n in (1, 2, 19, 20, 21, 100)] == [1, 2, 19, 19, 20, 95]


@pytest.mark.parametrize("kind", list(COLUMNS))
def test_hugging_face_reads_it(tmp_path: Path, kind: Kind) -> None:
    from datasets import load_dataset  # noqa: PLC0415  (takes seconds)

    rows, _ = made(tmp_path, kind, *cheap_and_dear("t1"), *cheap_and_dear("t2"))
    loaded = load_dataset(str(tmp_path / kind), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"].to_list() == rows
