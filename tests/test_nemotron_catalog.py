"""The packaged experts of the released checkpoint: who they are, what they cost, what they may read."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.nemotron_qa import FRAMES_LIMITS, NemotronQA, VariantName, nemotron_catalog
from tests.qa_runs import TOKENIZER

CATALOG = nemotron_catalog()


def test_the_catalog_holds_the_experts_of_the_release() -> None:
    rows = [
        (s.name, s.role, s.model, s.price.input, s.price.output, s.latency.p50, s.terminal)
        for s in CATALOG.tools.values()
    ]
    gpt, mini, coder = ("gpt-5", 1.25, 10), ("gpt-5-mini", 0.25, 2), ("Qwen/Qwen2.5-Coder-32B-Instruct", 0.8, 0.8)
    llama, qwen = ("meta-llama/Llama-3.3-70B-Instruct", 0.9, 0.9), ("Qwen/Qwen3-32B", 0.8, 0.8)
    maths = ("Qwen/Qwen2.5-Math-72B-Instruct", 0.9, 0.9), ("Qwen/Qwen2.5-Math-7B-Instruct", 0.2, 0.2)
    expected: list[tuple[str, str, tuple[str, float, float], int]] = [
        ("reasoner-1", "code", gpt, 31),
        ("reasoner-2", "code", mini, 25),
        ("reasoner-3", "code", coder, 9),
        ("answer-1", "answer", gpt, 96),
        ("answer-2", "answer", mini, 27),
        ("answer-3", "answer", llama, 15),
        ("answer-4", "answer", qwen, 11),
        ("answer-math-1", "answer", maths[0], 13),
        ("answer-math-2", "answer", maths[1], 9),
        ("search-1", "search", gpt, 22),
        ("search-2", "search", mini, 16),
        ("search-3", "search", qwen, 8),
    ]
    assert rows == [(name, role, *model, seconds, role == "answer") for name, role, model, seconds in expected]
    assert all(spec.description for spec in CATALOG.tools.values())


def limits_by_model(variant: VariantName) -> dict[str, set[tuple[int | None, int, int | None]]]:
    found: dict[str, set[tuple[int | None, int, int | None]]] = {}
    for spec in nemotron_catalog(variant).tools.values():
        limits = spec.limits
        key = (limits.code_tokens, limits.context_tokens, limits.document_characters)
        found.setdefault(str(spec.model).rpartition("/")[2], set()).add(key)
    return found


def test_what_each_expert_may_read() -> None:
    assert limits_by_model("hle") == {
        "gpt-5": {(40_000, 120_000, None)},
        "gpt-5-mini": {(40_000, 120_000, None)},
        "Qwen2.5-Coder-32B-Instruct": {(16_000, 24_000, 1000)},
        "Llama-3.3-70B-Instruct": {(10_000, 80_000, None)},
        "Qwen3-32B": {(12_000, 24_000, 1000)},
        "Qwen2.5-Math-72B-Instruct": {(1_000, 2_000, 1000)},
        "Qwen2.5-Math-7B-Instruct": {(1_000, 2_000, 1000)},
    }
    assert limits_by_model("frames") == {
        "gpt-5": {(40_000, 160_000, None)},
        "gpt-5-mini": {(40_000, 160_000, None)},
        "Qwen2.5-Coder-32B-Instruct": {(16_000, 24_000, None)},
        "Llama-3.3-70B-Instruct": {(40_000, 80_000, None)},
        "Qwen3-32B": {(12_000, 24_000, None)},
        "Qwen2.5-Math-72B-Instruct": {(1_000, 2_000, None)},
        "Qwen2.5-Math-7B-Instruct": {(1_000, 2_000, None)},
    }


def test_frames_changes_limits_only_and_of_models_that_are_there() -> None:
    frames = nemotron_catalog("frames")
    assert set(FRAMES_LIMITS) <= {spec.model for spec in CATALOG.tools.values()}
    for name, spec in CATALOG.tools.items():
        assert frames.tools[name].model_copy(update={"limits": spec.limits}) == spec


def test_an_unknown_variant_is_refused() -> None:
    wrong: Any = "gaia"
    for make in (lambda: NemotronQA(TOKENIZER, wrong), lambda: nemotron_catalog(wrong)):
        with pytest.raises(ConfigError, match="variant = 'gaia'; expected one of hle, frames"):
            make()
