"""Lines that the training package keeps: nothing heavy is imported, the core never imports it, files are short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orchestra_training
import pytest

import orchestra_graph

PACKAGE = Path(orchestra_training.__file__).parent
CORE = Path(orchestra_graph.__file__).parent
LONGEST_FILE = 400
MODULES = sorted(PACKAGE.rglob("*.py"))

IMPORT_ALL = """
import importlib, sys
sys.modules |= dict.fromkeys(["torch", "trl", "transformers", "vllm", "datasets", "pyarrow", "math_verify", "sympy"])
for package in sys.argv[1:]:
    importlib.import_module(package)
"""
"""A module that is None cannot be imported."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_core_never_imports_training() -> None:
    users = [path for path in CORE.rglob("*.py") if any(n.startswith("orchestra_training") for n in imports(path))]
    assert users == []


@pytest.mark.slow
def test_what_is_no_trainer_needs_nothing_heavy() -> None:
    names = [
        "reward",
        "filters",
        "groups",
        "harvest.gather",
        "harvest.logs",
        "rows",
        "render",
        "evaluate.score",
        "preference_pairs",
        "descriptions.findings",
        "questions",
        "structured",
        "verdicts",
    ]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *(f"orchestra_training.{name}" for name in names)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_say_what_they_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    assert ast.get_docstring(ast.parse(text))
