"""Reading a server's metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.serving.metrics import Load, read_metrics
from tests.stand_in_server import METRICS

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
LABEL_VALUES = st.text(alphabet=st.sampled_from('ab {}",=\\#é 1')).map(
    lambda text: text.replace("\\", "\\\\").replace('"', '\\"')
)
SAMPLES = st.tuples(NAMES, st.none() | st.dictionaries(NAMES, LABEL_VALUES), st.integers(-1000, 1000))


@given(st.lists(SAMPLES), st.sampled_from(["", " 1700000000000"]))
def test_samples_are_summed_by_name_whatever_the_labels_hold(
    samples: list[tuple[str, dict[str, str] | None, int]], stamp: str
) -> None:
    lines, sums = ["# HELP a_total {x} 5", "", "not a sample"], dict[str, float]()
    for name, labels, value in samples:
        inside = "" if labels is None else "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"
        lines.append(f"{name}{inside} {float(value)}{stamp}")
        sums[name] = sums.get(name, 0.0) + value
    assert read_metrics("\n".join(lines)) == sums


def test_values_that_prometheus_writes() -> None:
    assert read_metrics("a +Inf\nb 1e3\nc 1.5e-05\r\n") == {"a": float("inf"), "b": 1000.0, "c": 1.5e-05}


def load() -> Load:
    return Load.of(read_metrics(METRICS.replace("TOKENS", "500")))


def test_load() -> None:
    assert load() == Load(
        requests=7,
        running=2,
        waiting=1,
        prompt_tokens=100,
        generated_tokens=500,
        cache_queries=100,
        cache_hits=80,
        cache_used=0.25,
    )
    assert load().hit_rate == 0.8
    assert replace(load(), cache_queries=0).hit_rate is None


def test_another_server_is_refused() -> None:
    with pytest.raises(KeyError):
        Load.of(read_metrics("sglang:num_running_reqs 1"))


def test_since() -> None:
    later = replace(load(), requests=9, generated_tokens=800, cache_queries=200, cache_hits=100, running=0)
    recent = later.since(load())
    assert (recent.requests, recent.generated_tokens, recent.running, recent.hit_rate) == (2, 300, 0, 0.2)
    anew = replace(load(), requests=1, prompt_tokens=10)
    assert anew.since(load()) == anew
