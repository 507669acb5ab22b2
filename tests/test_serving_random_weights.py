"""The preset `random-weights`: where its model lies, and what happens without torch; made in `tests/integration`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestra_graph.errors import ConfigError
from orchestra_graph.serving import random_weights


def test_each_version_of_the_model_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = random_weights.folder_in(tmp_path)
    assert first == random_weights.folder_in(tmp_path)
    assert first.parent == tmp_path
    (tmp_path / "other.jinja").write_text("another template")
    monkeypatch.setattr(random_weights, "TEMPLATE", tmp_path / "other.jinja")
    assert random_weights.folder_in(tmp_path) != first


async def test_a_folder_that_is_there_is_used(tmp_path: Path) -> None:
    await random_weights.make_with("/nowhere/python", tmp_path)  # which there is nothing left to do for
    assert list(tmp_path.iterdir()) == []


async def test_without_transformers_it_is_one_line(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -IS "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ConfigError, match=r"could not be made with .*: \w+Error: .*; it needs torch and transformers$"):
        await random_weights.make_with(str(bare), tmp_path / "model")
    assert not (tmp_path / "model").exists()
