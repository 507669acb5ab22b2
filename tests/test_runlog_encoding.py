from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_graph.runlog.encoding import MAX_DEPTH, dump, load
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.read import read_run
from tests.examples import examples
from tests.runs import trajectory, turn

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**64, max_value=2**200),
    st.floats(),
    st.text(),
    st.text(st.characters()),  # lone surrogates among them
)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters()), inner))
)


def _one_character(pair: re.Match[str]) -> str:
    high, low = map(ord, pair.group())
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def as_json(value: Any) -> Any:
    """What JSON makes of a value: no surrogates, no infinity."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", re.sub("[\ud800-\udbff][\udc00-\udfff]", _one_character, value))
        case list():
            return [as_json(inner) for inner in value]
        case dict():
            return {as_json(key): as_json(inner) for key, inner in value.items()}
        case _:
            return value


@settings(max_examples=examples(300))
@given(values)
def test_any_value_survives_as_json(value: Any) -> None:
    line = dump({"value": value})
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    assert load(line) == {"value": as_json(value)}


def test_any_value_survives_the_whole_way(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    log = RunLog(path)

    @settings(max_examples=examples(50), deadline=None)
    @given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values))
    def survives(args: dict[str, Any]) -> None:
        call = {"id": "r-0-0", "tool": "a", "args": args}
        decision = {"calls": [call], "reason": "\ud800", "by": "router"}
        log.finish("r", trajectory(turns=[turn("r", decision=decision)]))
        run = read_run(path, "r")
        assert run.turns[0]["decision"]["reason"] == "\ufffd"
        assert run.turns[0]["decision"]["calls"][0]["args"] == as_json(args)
        path.unlink()

    survives()


class Odd:
    def __repr__(self) -> str:
        return "<odd \ud800>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**70, 2**70),
        (-(2**70), -(2**70)),
        pytest.param(10**5000, "(an integer of 16610 bits)", id="huge"),
        ({1: 2, None: 3}, {"1": 2, "None": 3}),
        ((1, 2), [1, 2]),
        ({3}, "{3}"),
        (Odd(), "<odd \ufffd>"),
        ([datetime(2026, 1, 1, tzinfo=UTC), 2**70], ["2026-01-01T00:00:00+00:00", 2**70]),
        ([math.inf, -math.inf, math.nan, 2**70], [None, None, None, 2**70]),
    ],
)
def test_what_is_no_json(value: Any, expected: Any) -> None:
    assert load(dump({"value": value})) == {"value": expected}


@pytest.mark.parametrize("depth", [100, 190, 210, 300, 900, 5000])
def test_deep_nesting_is_cut_and_reads(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    back = load(dump({"value": value}))["value"]
    reached = 0
    while isinstance(back, list):
        back = back[0]
        reached += 1
    assert (reached, back) == (depth, 1) if depth < 250 else (MAX_DEPTH, "(a list nested deeper than 150 levels)")
