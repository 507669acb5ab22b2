from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.evaluate.score import evaluate, read_reference, score, utility, write_reference
from orchestra_training.reward import Measures, measure

from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences
from tests.training.runs import decided, run

AMOUNTS = st.floats(0, 1000)
WEIGHTS = st.floats(0, 1)
COUNTS = st.dictionaries(st.sampled_from(["search", "large"]), st.integers(0, 5))
MEASURES = st.builds(
    Measures,
    solved=st.booleans(),
    earned=st.booleans(),
    calls=COUNTS,
    dollars=AMOUNTS,
    seconds=AMOUNTS,
    wall_seconds=AMOUNTS,
)
PREFERENCES = st.builds(
    Preferences,
    accuracy=WEIGHTS,
    cost=WEIGHTS,
    latency=WEIGHTS,
    prefer=st.dictionaries(st.just("search"), WEIGHTS),
    avoid=st.dictionaries(st.just("large"), WEIGHTS),
)


@given(MEASURES, MEASURES, PREFERENCES, AMOUNTS)
def test_utility_is_absolute(run: Measures, reference: Measures, preferences: Preferences, more: float) -> None:
    found = utility(run, reference, preferences)
    assert 0 <= found <= 1 + 1e-12
    assert run.solved or found == 0
    for name in ("dollars", "seconds"):
        dearer = replace(run, **{name: getattr(run, name) + more})
        assert utility(dearer, reference, preferences) <= found + 1e-12


@given(MEASURES, MEASURES, PREFERENCES, AMOUNTS)
def test_score_falls_with_cost(run: Measures, reference: Measures, preferences: Preferences, more: float) -> None:
    found = score(run, reference, preferences)
    for name in ("dollars", "wall_seconds"):
        assert score(replace(run, **{name: getattr(run, name) + more}), reference, preferences) <= found


def test_score_is_in_cents() -> None:
    """In dollars, two runs under a dollar would score the same."""
    preferences = Preferences(accuracy=0, cost=1, latency=0)
    reference = Measures(solved=True, earned=True, dollars=0.4)
    cheap, dear = (Measures(solved=True, earned=True, dollars=dollars) for dollars in (0.02, 0.2))
    assert (score(cheap, reference, preferences), score(dear, reference, preferences)) == pytest.approx((20, 2))


def test_utility_where_nothing_costs_anything_or_matters() -> None:
    free = Measures(solved=True, earned=True)
    assert utility(free, free, Preferences(accuracy=0, cost=1, latency=1)) == 0.5
    assert utility(replace(free, dollars=1), free, Preferences(accuracy=0, cost=1, latency=0)) == 0
    assert utility(free, free, Preferences(accuracy=0, cost=0, latency=0)) == 1


def test_what_the_user_saw_counts_whoever_chose_it() -> None:
    helped = Measures(solved=True, earned=False, calls={"search": 1})
    preferences = Preferences(accuracy=1, cost=0, latency=0, prefer={"search": 1})
    assert utility(helped, helped, preferences) == 1
    assert score(helped, helped, preferences) == 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reference.jsonl"


def test_a_reference_reads_back(path: Path) -> None:
    second = run("s", task={"id": "t2", "question": "Who?"}, turns=[decided(0, ["search", "search"])])
    hash = write_reference(path, [run(), second])
    reference = read_reference(path, sha256=hash)
    assert reference.hash == hash
    assert b"relative_dollars" not in path.read_bytes()
    assert reference.policy == "tiny w"
    assert [reference.of(r) for r in (run(), second)] == [measure(run()), measure(second)]
    assert reference.of(run("new", policy={"name": "trained"}, turns=[])) == measure(run())


def test_a_reference_is_the_same_for_the_same_runs(path: Path, tmp_path: Path) -> None:
    assert write_reference(path, [run()]) == write_reference(tmp_path / "again.jsonl", [run()])


def test_evaluate_sums_and_averages(path: Path) -> None:
    write_reference(path, [run()])
    failed = run("f", verdict={"outcome": 0.0, "by": "exact"})
    scores = evaluate([run("a"), failed], read_reference(path))
    assert scores.runs == 2
    assert scores.mean_score == scores.score / 2
    preferences = Preferences()
    assert scores.score == score(measure(run()), measure(run()), preferences)
    assert scores.utility == utility(measure(run()), measure(run()), preferences) / 2 == pytest.approx(1.25 / 1.5 / 2)
    assert scores.reference == read_reference(path).hash


def test_a_run_without_a_reference_is_named(path: Path) -> None:
    write_reference(path, [run()])
    other = run("o", task={"id": "t9", "question": "Who?"})
    with pytest.raises(ConfigError, match=r"reference\.jsonl: no example .* of run o \(task 't9'\); fix: run the unt"):
        evaluate([other], read_reference(path))


def test_nothing_to_evaluate(path: Path) -> None:
    write_reference(path, [run()])
    with pytest.raises(ConfigError, match="expected at least one run"):
        evaluate([], read_reference(path))


def test_a_reference_is_frozen(path: Path) -> None:
    write_reference(path, [run()])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is written once"):
        write_reference(path, [run("b")])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([run(), run("b")], "run b: its example has a run already"),
        ([run(), run("b", task={"question": "Who?"}, policy={"name": "x"})], "expected runs of one policy"),
        ([run(policy=None)], "run r: policy = None"),
        ([run(verdict=None)], "run r: verdict = None"),
        ([], "expected runs of one policy"),
    ],
)
def test_what_is_no_reference(path: Path, runs: list[Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        write_reference(path, runs)
    assert not path.exists()


def test_a_changed_reference_is_refused(path: Path) -> None:
    write_reference(path, [run()])
    path.write_bytes(path.read_bytes().replace(b'"solved":true', b'"solved":false'))
    with pytest.raises(ConfigError, match=r"reference\.jsonl:1: sha256 = .*: the file was changed"):
        read_reference(path)


def test_another_reference_is_refused(path: Path) -> None:
    write_reference(path, [run()])
    with pytest.raises(ConfigError, match="it is another reference"):
        read_reference(path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"", r"reference\.jsonl:1: record = "),
        (b"[]", r"reference\.jsonl:1: record = "),
        (b'{"version":2,"policy":"p","sha256":"x"}', r"reference\.jsonl:1: version = 2"),
        (b'{"version":1,"sha256":"x"}', r"reference\.jsonl:1: policy = "),
    ],
)
def test_a_line_that_cannot_be_read_is_named(path: Path, head: bytes, problem: str) -> None:
    path.write_bytes(head + b"\n")
    with pytest.raises(ConfigError, match=problem):
        read_reference(path)


def test_an_example_that_cannot_be_read_is_named(path: Path) -> None:
    write_reference(path, [run()])
    head, body = path.read_bytes().split(b"\n", 1)
    wrong = body.replace(b'"dollars":', b'"dollars":-')
    old, new = (hashlib.sha256(part).hexdigest().encode() for part in (body, wrong))
    path.write_bytes(head.replace(old, new) + b"\n" + wrong)
    with pytest.raises(ConfigError, match=r"reference\.jsonl:2: dollars = -0\.03.*greater than or equal to 0"):
        read_reference(path)


def test_a_missing_reference(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reference\.jsonl: cannot be read: No such file"):
        read_reference(path)
