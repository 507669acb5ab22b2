"""What the words of a wish come to."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra_graph.wish import read_wish

TOOLS = ["large", "small", "large-v2", "fast", "math"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("what do you think?", {}),
        ("cheap", {"cost": 1.0}),
        ("the cheapest, please", {"cost": 1.0}),
        ("low-cost and quick", {"cost": 1.0, "latency": 0.8}),
        ("the best answer, whatever it costs", {"cost": 0.0, "latency": 0.0}),
        ("accurate but fast", {"cost": 0.0, "latency": 0.8}),
        ("avoid large", {"avoid": {"large": 1.0}}),
        ("Avoid the LARGE,\n small and math", {"avoid": {"large": 1.0, "small": 1.0, "math": 1.0}}),
        ("avoid large-v2", {"avoid": {"large-v2": 1.0}}),
        ("do not use large", {"avoid": {"large": 1.0}}),
        ("don\u2019t use large", {"avoid": {"large": 1.0}}),
        ("not large but use math", {"avoid": {"large": 1.0}, "prefer": {"math": 1.0}}),
        ("avoid large, use small", {"avoid": {"large": 1.0}, "prefer": {"small": 1.0}}),
        ("never use large or math", {"never": ("large", "math")}),
        ("without large; prefer math", {"never": ("large",), "prefer": {"math": 1.0}}),
        ("never large, and not large", {"never": ("large",)}),
        ("use fast", {"prefer": {"fast": 1.0}}),
        ("large is big", {}),
        ("avoid larger ones", {}),
    ],
)
def test_words(text: str, expected: dict[str, Any]) -> None:
    wish = read_wish(text, TOOLS)
    assert wish.model_dump(exclude_defaults=True, exclude={"text"}) == expected
    assert wish.text == text


def test_no_tools() -> None:
    assert read_wish("avoid large, cheap", []).model_dump(exclude_defaults=True, exclude={"text"}) == {"cost": 1.0}
