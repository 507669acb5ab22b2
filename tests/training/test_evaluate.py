"""Evaluations as a whole: played through the graph, logged, resumed, spread over processes, compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.evaluate.conditions import CONDITIONS, WorkbenchSet
from orchestra_training.evaluate.evaluation import Evaluation, Outcome, carry_out, make_reference
from orchestra_training.evaluate.examples import as_given
from orchestra_training.evaluate.played import Played
from orchestra_training.evaluate.routers import file_hash, parse_router
from orchestra_training.filters import for_evaluation
from orchestra_training.groups import example_id
from orchestra_training.tiny.model import TinyShape, make, train_tokenizer

from orchestra_graph.errors import ConfigError, OrchestraError, RouterError
from orchestra_graph.runlog.read import read_runs
from tests.openai_server import OpenAIServer, Refusal, Reply, closed_url

N = 7


def evaluation(
    log: Path, routers: Sequence[str] = ("rules", "oracle"), name: str = "in-distribution", **options: Any
) -> Evaluation:
    sets = [partial(WorkbenchSet, name, tasks=options.pop("tasks", N))]
    return Evaluation(routers=[parse_router(r) for r in routers], sets=sets, log=log, **options)


def figures(outcome: Outcome, name: str = "in-distribution", against: str = "rules") -> Any:
    return outcome.tables(against=against, draws=200)["conditions"][name]


def timeless(runs: dict[Any, Played]) -> dict[Any, Any]:
    return {key: (run.solved, run.dollars, run.turns, run.calls, run.places) for key, run in runs.items()}


def test_runs_are_logged_with_their_verdicts_and_refused_as_training_data(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    outcome = carry_out(evaluation(log))
    runs = list(read_runs(log))
    assert len(runs) == len(outcome.runs) == 2 * N
    assert all(for_evaluation(run) and run.verdict and run.verdict.by == "workbench" for run in runs)
    assert {run.policy.name for run in runs if run.policy} == {"rules", "oracle"}
    assert {run.split for run in runs} == {"held_out"}
    solved = sum(run.verdict.outcome == 1.0 for run in runs if run.verdict)
    assert solved == sum(run.solved for run in outcome.runs.values())


def test_what_is_in_the_log_is_not_run_again(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    first = carry_out(evaluation(log))
    size = log.stat().st_size
    told: list[Played] = []
    again = carry_out(evaluation(log, ["rules", "oracle", "cheapest"]), on_run=told.append)
    assert again.resumed == 2 * N and len(told) == 3 * N
    assert {k: r for k, r in again.runs.items() if k.router != "cheapest"} == first.runs
    with log.open("rb") as file:
        file.seek(size)
        assert b'"oracle"' not in file.read()


def test_other_tasks_of_the_same_places_are_run(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    carry_out(evaluation(log))
    other = Evaluation(
        routers=[parse_router("rules")], sets=[partial(WorkbenchSet, "in-distribution", tasks=2, seed=1)], log=log
    )
    assert carry_out(other).resumed == 0


def test_another_router_of_the_same_name_is_run(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    carry_out(evaluation(log, ["mine=rules"]))
    assert carry_out(evaluation(log, ["mine=cheapest"])).resumed == 0
    assert carry_out(evaluation(log, ["mine=rules"])).resumed == N


def test_a_log_with_a_torn_line_is_told_and_mended(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    first = carry_out(evaluation(log, ["rules"], concurrent=1))
    data = log.read_bytes()
    log.write_bytes(data[: len(data) // 2])
    again = carry_out(evaluation(log, ["rules"]))
    assert 0 < again.resumed < N and again.unreadable
    assert timeless(again.runs) == timeless(first.runs)


@pytest.mark.slow
def test_processes_play_the_same_as_one(tmp_path: Path) -> None:
    one = carry_out(evaluation(tmp_path / "one.jsonl"))
    two = carry_out(evaluation(tmp_path / "two.jsonl", workers=2))
    assert timeless(one.runs) == timeless(two.runs)
    assert len(list(read_runs(tmp_path / "two.jsonl"))) == 2 * N


@pytest.mark.slow
def test_an_error_in_a_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(OrchestraError, match="'glue' is no tool; expected one of large"):
        carry_out(evaluation(tmp_path / "runs.jsonl", ["fixed:glue"], workers=2))


def test_utility_and_score_need_a_reference_that_fits(tmp_path: Path) -> None:
    log, reference = tmp_path / "runs.jsonl", tmp_path / "reference.jsonl"
    assert "utility" not in figures(carry_out(evaluation(log)))["routers"]["rules"]
    hash = make_reference(evaluation(log, ["rules"]), reference)
    outcome = carry_out(evaluation(log, reference=reference))
    tables = outcome.tables(against="rules", draws=200)
    assert tables["reference"] == {"policy": "rules", "sha256": hash}
    rows = tables["conditions"]["in-distribution"]["routers"]
    # Solved runs of the reference itself cost half: (1 + 0.4 / 2 + 0.1 / 2) / 1.5 of each.
    assert rows["rules"]["utility"]["value"] == pytest.approx(rows["rules"]["success"]["value"] * 1.25 / 1.5)
    assert rows["oracle"]["utility"]["value"] > rows["rules"]["utility"]["value"]
    with pytest.raises(ConfigError, match="no example with the task"):
        carry_out(evaluation(log, reference=reference, tasks=N + 1))


def test_a_reference_of_other_examples_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    log, reference = tmp_path / "runs.jsonl", tmp_path / "reference.jsonl"
    carry_out(evaluation(log, ["rules"], tasks=2))
    make_reference(evaluation(log, ["rules"], tasks=2), reference)
    sets = [partial(WorkbenchSet, "in-distribution", tasks=2, seed=1)]
    other = Evaluation(routers=[parse_router("rules")], sets=sets, log=tmp_path / "other.jsonl", reference=reference)
    with pytest.raises(ConfigError, match=r"reference\.jsonl: no example with the task.* fix: name the seed"):
        carry_out(other)
    assert not other.log.exists()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_runs_are_given_is_known_before_they_are_played(tmp_path: Path, condition: str) -> None:
    log, examples = tmp_path / "runs.jsonl", WorkbenchSet(condition, tasks=8)
    carry_out(evaluation(log, ["rules"], condition, tasks=8))
    runs = {str(run.task.model_extra["index"]): run for run in read_runs(log) if run.task.model_extra}
    assert len(runs) == len(examples)
    for index, run in runs.items():
        assert example_id(run) == example_id(as_given(examples.example(int(index))))


def test_a_reference_has_a_run_of_one_policy_for_each_example(tmp_path: Path) -> None:
    log, reference = tmp_path / "runs.jsonl", tmp_path / "reference.jsonl"
    carry_out(evaluation(log, ["rules"], tasks=N - 2))
    with pytest.raises(ConfigError, match=f"2 of {N} runs are missing"):
        make_reference(evaluation(log, ["rules"]), reference)
    with pytest.raises(ConfigError, match="router dice: 2 members; expected one"):
        make_reference(evaluation(log, ["dice=random:1,random:2"]), reference)
    assert not reference.exists()


def test_figures(tmp_path: Path) -> None:
    outcome = carry_out(evaluation(tmp_path / "runs.jsonl", ["rules", "fixed:large", "dice=random:1,random:2"]))
    found = figures(outcome)
    fixed, dice = found["routers"]["fixed:large"], found["routers"]["dice"]
    assert fixed["shares"] == {"large": 1.0} and fixed["priciest_share"]["value"] == 1.0
    assert fixed["places"] == {"1": 1.0}
    assert dice["runs"] == 2 * N and len(dice["shares"]) > 4
    assert sum(dice["shares"].values()) == pytest.approx(1)
    assert sum(part["runs"] for part in dice["kinds"].values()) == 2 * N
    mean = sum(run.dollars for key, run in outcome.runs.items() if key.router == "dice") / (2 * N)
    assert dice["dollars"]["value"] == pytest.approx(mean)
    difference = found["differences"]["fixed:large"]["dollars"]
    assert difference["ratio"]["value"] == pytest.approx(
        fixed["dollars"]["value"] / found["routers"]["rules"]["dollars"]["value"]
    )
    assert difference["difference"]["low"] > 0
    assert found["pairs"]["fixed:large"]["rules"]["dollars"] == difference
    back = found["pairs"]["rules"]["fixed:large"]
    assert back["dollars"]["difference"]["high"] == pytest.approx(-difference["difference"]["low"])
    assert back["kinds"].keys() == fixed["kinds"].keys()


def test_wishes_are_held_against_the_same_tasks_without_them(tmp_path: Path) -> None:
    outcome = carry_out(evaluation(tmp_path / "runs.jsonl", ["oracle"], "preferences", tasks=8))
    found = figures(outcome, "preferences", "oracle")
    assert found["routers"]["oracle"]["kinds"]["avoid"]["wished_share"]["value"] == 0
    assert found["routers"]["oracle"]["kinds"]["prefer"]["wished_share"]["value"] == 1
    assert found["wishes"]["oracle"]["cheap"]["fast"]["dollars"]["ratio"]["value"] <= 1
    assert found["wishes"]["oracle"]["fast"]["cheap"]["seconds"]["ratio"]["value"] <= 1.05
    assert found["wishes"]["oracle"].keys() == {"avoid", "cheap", "fast", "accurate", "prefer"}
    assert found["wishes"]["oracle"]["avoid"].keys() == {"none"}
    # Tasks of either wish count, so that both ways are the same figures.
    cheap, fast = (found["wishes"]["oracle"][wish][other] for wish, other in (("cheap", "fast"), ("fast", "cheap")))
    assert cheap["dollars"]["ratio"]["value"] == pytest.approx(1 / fast["dollars"]["ratio"]["value"])
    kinds = found["routers"]["oracle"]["kinds"]
    dollars = [kinds[kind]["dollars"]["value"] for kind in ("cheap", "cheap instead of fast")]
    others = [kinds[kind]["dollars"]["value"] for kind in ("fast instead of cheap", "fast")]
    assert cheap["dollars"]["ratio"]["value"] == pytest.approx(sum(dollars) / sum(others))
    assert "wished_share" not in found["routers"]["oracle"]["kinds"]["no avoid"]


def test_budgets_are_kept(tmp_path: Path) -> None:
    outcome = carry_out(evaluation(tmp_path / "runs.jsonl", ["strongest"], "budget", tasks=2))
    kinds = figures(outcome, "budget", "strongest")["routers"]["strongest"]["kinds"]
    assert kinds["$0.0002"]["dollars"]["value"] <= 0.0002 < kinds["$0.01"]["dollars"]["value"]


def test_a_served_router(tmp_path: Path, openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply(calls=[("large", {})])]
    outcome = carry_out(evaluation(tmp_path / "runs.jsonl", ["fixed:large", f"m=m@{openai_server.base_url}"], tasks=3))
    served, fixed = ([r for k, r in sorted(outcome.runs.items()) if k.router == name] for name in ("m", "fixed:large"))
    assert [r.solved for r in served if r.turns == 1] == [r.solved for r in fixed if r.turns == 1]
    assert all(request.body["temperature"] == 0 for request in openai_server.requests)


def test_a_router_that_cannot_be_reached_stops_the_evaluation(tmp_path: Path, openai_server: OpenAIServer) -> None:
    openai_server.script = [Refusal(404, "no such model")]
    with pytest.raises(RouterError, match=r"router 'm': its first 5 runs broke: .*no such model"):
        carry_out(evaluation(tmp_path / "runs.jsonl", [f"m=m@{openai_server.base_url}"]))


def test_a_run_that_breaks_later_counts_as_not_solved_and_is_run_again(
    tmp_path: Path, openai_server: OpenAIServer
) -> None:
    openai_server.script = [Reply(calls=[("small", {})]), Refusal(400, "too long"), Reply(calls=[("small", {})])]
    wanted = evaluation(tmp_path / "runs.jsonl", [f"m=m@{openai_server.base_url}"], tasks=4, concurrent=1)
    outcome = carry_out(wanted)
    (broken,) = outcome.broken
    assert "too long" in str(broken.error) and not broken.solved
    assert figures(outcome, against="m")["routers"]["m"]["broken"] == 1
    again = carry_out(wanted)
    assert (again.resumed, again.broken) == (3, [])


def test_what_nobody_can_play(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two routers are named"):
        carry_out(evaluation(tmp_path / "runs.jsonl", ["rules", "rules"]))


def test_a_server_that_is_down(tmp_path: Path) -> None:
    """Asked again in vain, the router has no reply: that is no answer of its model, and the run is played again."""
    down = [f"m=m@{closed_url()}"]
    outcome = carry_out(evaluation(tmp_path / "runs.jsonl", down, tasks=1))
    (run,) = outcome.broken
    assert "gave no reply" in str(run.error) and not run.solved
    assert carry_out(evaluation(tmp_path / "runs.jsonl", down, tasks=1)).resumed == 0
    with pytest.raises(RouterError, match=r"router 'm': its first 5 runs broke: .*gave no reply"):
        carry_out(evaluation(tmp_path / "runs.jsonl", down))


def test_a_broken_run_is_worth_nothing(tmp_path: Path, openai_server: OpenAIServer) -> None:
    reference = tmp_path / "reference.jsonl"
    carry_out(evaluation(tmp_path / "rules.jsonl", ["rules"], tasks=2))
    make_reference(evaluation(tmp_path / "rules.jsonl", ["rules"], tasks=2), reference)
    openai_server.script = [Reply(calls=[("small", {})]), Refusal(400, "too long")]
    served = [f"m=m@{openai_server.base_url}"]
    wanted = evaluation(tmp_path / "runs.jsonl", served, tasks=2, concurrent=1, reference=reference)
    (broken,) = carry_out(wanted).broken
    assert (broken.utility, broken.score) == (0.0, 0.0)


def test_a_small_model_in_this_process(tmp_path: Path) -> None:
    """Two seeds of random weights: they decide line by line; other weights under the same name are other runs."""
    texts = [f"Task: what is {n}?\nTool: takes and skips {n}" for n in range(40)]
    shape = TinyShape(vocabulary=320, hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, inner=32)
    for seed in (0, 1):
        make(tmp_path / f"seed{seed}", train_tokenizer(texts, shape.vocabulary), shape, seed=seed)
    spec = f"tiny=local:{tmp_path}/seed0,local:{tmp_path}/seed1"
    log = tmp_path / "runs.jsonl"
    outcome = carry_out(evaluation(log, [spec], tasks=2))
    assert {(key.router, key.member) for key in outcome.runs} == {("tiny", 0), ("tiny", 1)}
    assert {run.protocol for run in read_runs(log)} == {"scan"}
    shutil.copy(tmp_path / "seed0" / "model.safetensors", tmp_path / "seed1" / "model.safetensors")
    file_hash.cache_clear()
    assert carry_out(evaluation(log, [spec], tasks=2)).resumed == 2
