"""Installs the development server of LangGraph, for the tests that ask graphs through it.

    python -m tests.integration.install_langgraph_dev     # prints the environment's interpreter

In an environment of its own, since it needs a jsonschema-rs that is older than the one of the development environment.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from tests.integration.environments import environment

ROOT: Final = Path(__file__).parents[2]
PINS: Final = Path(__file__).with_name("langgraph_dev_constraints.txt")
SERVER: Final = "langgraph-cli[inmem]"


def install() -> Path:
    """The interpreter of the environment; the package in it is this folder's.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why on stderr.
    """
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pins = _pins()
    made_from = Path(__file__).read_bytes() + "\n".join([pins, *needed]).encode()
    return environment("langgraph-dev", made_from, lambda python: _fill(python, pins))


def _pins() -> str:
    """Those of the development environment, but for those that the server has otherwise."""
    own = PINS.read_text(encoding="utf-8").splitlines()
    names = {line.partition("==")[0] for line in own}
    shared = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join([*own, *(line for line in shared if line.partition("==")[0] not in names)])


def _fill(python: Path, pins: str) -> None:
    constraints = python.parents[1] / "constraints.txt"
    constraints.write_text(pins, encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(constraints)]
    subprocess.run([*pip, SERVER, "-e", f"{ROOT}[tokenizers]"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    print(install())
