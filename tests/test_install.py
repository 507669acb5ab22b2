"""The wheel, installed where the checkout is not: what a user gets from the package index."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "orchestra_graph"

pytestmark = pytest.mark.slow

# The libraries come from this environment, by a plain path. Its own .pth files, that of an editable install among them,
# count only in a site directory, so the checkout stays out of sight.
LOCATE = "import orchestra_graph; print(orchestra_graph.__file__)"


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP", "VIRTUAL"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, ROOT, cwd=folder)
    [built] = folder.glob("orchestra_graph-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that holds the wheel, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    programs = folder / "bin"
    site = Path(
        run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        programs / "python",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    )
    run(*pip, wheel, cwd=folder)
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return programs


def test_the_wheel_holds_the_package_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"orchestra_graph/py.typed", "orchestra_training/py.typed", "orchestra_graph/catalogs/example.toml"} <= names
    assert {f"orchestra_graph/catalogs/{path.name}" for path in (PACKAGE / "catalogs").glob("*.toml")} <= names
    assert {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")} <= names
    assert {f"orchestra_graph/report/assets/{path.name}" for path in (PACKAGE / "report" / "assets").iterdir()} <= names
    recipes = ROOT / "training" / "orchestra_training" / "recipes"
    assert {f"orchestra_training/recipes/{path.name}" for path in recipes.iterdir()} <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/")) or "__pycache__" in name]


def test_the_installed_command_works_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    installed = Path(run(environment / "python", "-c", LOCATE, cwd=tmp_path).strip()).parent
    assert installed.is_relative_to(environment.parent)
    orchestra = environment / "orchestra"
    assert "valid: 4 tools" in run(orchestra, "check", installed / "catalogs" / "example.toml", cwd=tmp_path)
    asked = run(orchestra, "ask", "What is 123456 * 98765?", "--log", "runs.jsonl", cwd=tmp_path)
    assert "answer  12193131840" in asked
    assert "12193131840" in run(orchestra, "runs", "list", "runs.jsonl", cwd=tmp_path)


def test_the_sdist_builds_and_holds_what_is_needed(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path, cwd=ROOT)
    [built] = tmp_path.glob("orchestra_graph-*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "orchestra_graph/py.typed"} <= names
    tops = {name.partition("/")[0] for name in names} - {""}
    ours = {"orchestra_graph", "training", "graphs", "tests", "examples", "constraints.txt", "Makefile", ".ci"}
    assert tops <= ours | {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", ".gitignore"}
