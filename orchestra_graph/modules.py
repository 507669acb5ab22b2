"""Imports modules that a user names, in a catalog, a recipe or an option."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def import_named(name: str) -> ModuleType:
    """Import a module out of what is installed, or else out of the working folder.

    Installed commands do not look into the working folder. It is added only where a module is not found otherwise: a
    folder in it, say an environment named `vllm`, would pass for a package with whoever asks what is installed.

    Raises:
        ImportError: There is no such module. Besides, whatever it raises while it is imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        parts = name.split(".")
        if error.name not in {".".join(parts[:n]) for n in range(1, len(parts) + 1)} or "" in sys.path:
            raise
    sys.path.append("")
    importlib.invalidate_caches()
    return importlib.import_module(name)
