"""What an interpreter has installed, told by package metadata: nothing heavy is imported to find out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from orchestra_graph.errors import ConfigError

VLLM = "vllm>=0.22,<0.32"
"""What the extra `serve` installs: the versions that TRL can train with."""

_LIST = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_PATIENCE = 60.0
"""Seconds; a cold disk and a full environment take their time."""


async def installed(python: str, names: Sequence[str]) -> dict[str, str]:
    """Versions of those of the packages that an interpreter has installed.

    Args:
        python: Path or name of the interpreter.
        names: Names of distributions.

    Raises:
        ConfigError: It is no interpreter that runs.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _LIST, *names), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        found: dict[str, str] = json.loads(output)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(f"--python {python} is no Python interpreter that runs; give the path of one") from error
    return found
