"""Which bars of the tiny router an evaluation passes: it is the bound that counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from orchestra_training.tiny.bars import Bar, bars_of, main, table


def bounds(value: float, by: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - by, "high": value + by}


def pair(*, success: float = 0.1, dollars: float = 0.2, utility: float = 0.1, share: float = 0.9) -> dict[str, Any]:
    """How `tiny` compares with another router."""
    return {
        "success": {"difference": bounds(success), "ratio": bounds(1.0)},
        "dollars": {"difference": bounds(-0.001), "ratio": bounds(dollars)},
        "utility": {"difference": bounds(utility), "ratio": bounds(share)},
        "kinds": {"1 turn": {"success": {"difference": bounds(success)}}},
    }


def rung(**pairs: dict[str, Any]) -> dict[str, Any]:
    return {"pairs": {"tiny": pairs}, "routers": {"tiny": {}}}


def test_each_rung_has_its_bars() -> None:
    bars = list(bars_of("unseen", rung(strongest=pair(), oracle=pair(utility=-0.1), rules=pair(), lessons=pair())))
    assert [bar.name for bar in bars] == [
        "success, less the strongest expert's",
        "dollars, of the strongest expert's",
        "utility, less that of rules",
        "utility, less that of lessons",
        "utility, of the oracle's",
    ]
    assert all(bar.passed for bar in bars)
    assert bars[1] == Bar("unseen", bars[1].name, "0.2 [0.19, 0.21]", "at most 0.3", passed=True)


@pytest.mark.parametrize(
    ("other", "changes", "missed"),
    [
        ("strongest", {"success": 0.005}, "success, less the strongest expert's"),
        ("strongest", {"dollars": 0.295}, "dollars, of the strongest expert's"),
        ("rules", {"utility": 0.01}, "utility, less that of rules"),
        ("oracle", {"share": 0.855}, "utility, of the oracle's"),
    ],
)
def test_a_mean_that_passes_is_not_enough(other: str, changes: dict[str, float], missed: str) -> None:
    pairs = {"strongest": pair(), "oracle": pair(), "rules": pair(), other: pair(**changes)}
    assert [bar.name for bar in bars_of("prices", rung(**pairs)) if not bar.passed] == [missed]


@pytest.mark.parametrize(("avoided", "cheap", "passed"), [(0.005, 0.9, True), (0.015, 0.9, False), (0.0, 0.995, False)])
def test_wishes_are_to_be_followed(avoided: float, cheap: float, passed: bool) -> None:
    figures = rung(strongest=pair(), oracle=pair(utility=-0.1))
    figures["routers"]["tiny"] = {"kinds": {"avoid": {"wished_share": bounds(avoided)}}}
    ratio = {"dollars": {"ratio": bounds(cheap)}, "seconds": {"ratio": bounds(0.9)}}
    figures["wishes"] = {"tiny": {"cheap": {"fast": ratio}, "fast": {"cheap": ratio}}}
    bars = list(bars_of("preferences", figures))
    assert bars[0].name == "utility, less that of strongest"
    assert len(bars) == 4
    assert all(bar.passed for bar in bars) is passed


def test_at_each_budget_the_closest_baseline_counts() -> None:
    bars = list(
        bars_of("budget", rung(rules=pair(success=-0.005), random=pair(success=0.2), oracle=pair(success=-0.5)))
    )
    assert [(bar.name, bar.passed) for bar in bars] == [("1 turn: success, less that of rules", True)]
    assert not next(bars_of("budget", rung(rules=pair(success=-0.015)))).passed


@pytest.mark.parametrize(
    ("share", "success", "passed"),
    [(0.2, 0.8, True), (0.215, 0.8, True), (0.3, 0.8, False), (0.3, 0.815, False), (0.3, 0.9, True)],
)
def test_more_budget_is_no_reason_for_the_priciest_tool_alone(share: float, success: float, passed: bool) -> None:
    budgets = [("$0.001", 0.2, 0.8), ("1 turn", 0.9, 0.5), ("$0.01", share, success)]
    kinds = {name: {"priciest_share": bounds(part), "success": bounds(solved)} for name, part, solved in budgets}
    nothing: dict[str, Any] = dict.fromkeys(("value", "low", "high"))
    kinds = {"$0": {"priciest_share": nothing, "success": nothing}, **kinds}
    found = list(bars_of("budget", {"pairs": {"tiny": {}}, "routers": {"tiny": {"kinds": kinds}}}))
    assert [(bar.name, bar.passed) for bar in found] == [("$0.001 to $0.01: share of the priciest tool", passed)]


def test_what_an_evaluation_lacks_is_not_told() -> None:
    assert list(bars_of("unseen", {"pairs": {"rules": {}}, "routers": {"rules": {}}})) == []
    pairs = {name: pair() for name in ("rules", "strongest", "oracle")}
    for one in pairs.values():
        del one["utility"]
    assert [bar.name for bar in bars_of("unseen", rung(**pairs))] == [
        "success, less the strongest expert's",
        "dollars, of the strongest expert's",
    ]


def test_a_figure_that_nobody_knows_passes_no_bar() -> None:
    unknown = {**pair(), "dollars": {"ratio": {"value": None, "low": None, "high": None}}}
    bar = next(bar for bar in bars_of("unseen", rung(strongest=unknown)) if bar.name.startswith("dollars"))
    assert (bar.passed, bar.figure) == (False, "unknown [unknown, unknown]")


def test_the_command_tells_all_and_fails_where_one_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"conditions": {"unseen": rung(rules=pair())}}))
    bad.write_text(json.dumps({"conditions": {"prices": rung(rules=pair(utility=-0.1))}}))
    with pytest.raises(typer.Exit) as passed:
        main([good])
    assert passed.value.exit_code == 0
    with pytest.raises(typer.Exit) as missed:
        main([good, bad])
    assert missed.value.exit_code == 1
    told = capsys.readouterr().out
    assert "| prices | utility, less that of rules | -0.1 [-0.11, -0.09] | above 0 | **missed** |" in told
    assert told.endswith("1 of 2 passed\n")
    assert table([]).count("\n") == 1
