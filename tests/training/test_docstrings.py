"""The examples in the docstrings are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import orchestra_training
import pytest

MODULES = [module.name for module in pkgutil.walk_packages(orchestra_training.__path__, "orchestra_training.")]
WITH_EXAMPLES = {
    "orchestra_training.evaluate.score",
    "orchestra_training.reward.guarded",
    "orchestra_training.reward.proportional",
    "orchestra_training.reward.paper",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0 or name not in WITH_EXAMPLES
