"""The files that an index is made of: those of a folder that hold text, or a corpus."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.corpus import CORPUS_ENDINGS, is_corpus
from orchestra_graph.tools.documents import READERS

State = tuple[int, int]
"""Size in bytes and time of change in nanoseconds of a file."""


def find_sources(root: Path) -> dict[str, State]:
    """Size and time of change of each file to index, by its path in the folder; of a corpus it is the file's name.

    Raises:
        ConfigError: There is no such folder or corpus, or the folder holds no document.
    """
    if root.is_file():
        if not is_corpus(root):
            raise ConfigError(f"{str(root)!r}: expected a folder, or a corpus that ends in {', '.join(CORPUS_ENDINGS)}")
        return {root.name: _state_of(root)}
    if not root.is_dir():
        raise ConfigError(f"{str(root)!r}: expected a folder with documents, or a corpus; fix: check the path")
    found = dict(_scan(root))
    if not found:
        raise ConfigError(f"{str(root)!r} holds no document; expected files that end in {', '.join(READERS)}")
    return found


def path_of(root: Path, source: str) -> Path:
    """Where a source that `find_sources` named lies on the disk."""
    path = root / source
    if "\\x" not in source or path.exists():
        return path
    name = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), source.encode())
    return root / os.fsdecode(name)


def _scan(root: Path) -> Iterator[tuple[str, State]]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in READERS and path.is_file():
                yield _text_of(path.relative_to(root).as_posix()), _state_of(path)


def _text_of(name: str) -> str:
    r"""A file's name as text; bytes of it that are no UTF-8 are written as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _state_of(path: Path) -> State:
    told = path.stat()
    return told.st_size, told.st_mtime_ns
