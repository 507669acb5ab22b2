"""Reads a corpus: a file of passages, one JSON object a line, plain or compressed, however long the file is.

A line holds the passage in `contents`, `content` or `text`, and may hold a `title` and an `id`; what else it holds is
passed over. A passage stays whole. `contents` often begins with the title; it is not repeated then.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import zstandard
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from orchestra_graph.errors import ConfigError

CORPUS_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")

_TEXTS = ("contents", "content", "text")
_WORD = re.compile(r"\w")
_CHUNK_BYTES = 1 << 16
_SHOWN = 3
"""Bad lines that the summary quotes."""


class _Line(BaseModel):
    id: str | int | None = Field(None, validation_alias=AliasChoices("id", "_id", "docid"))
    title: str | None = None
    text: str = Field(validation_alias=AliasChoices(*_TEXTS))


@dataclass
class CorpusReader:
    """One reading of a corpus; iterate over it once.

    Attributes:
        bad_lines: Lines so far that hold no passage.
        bytes_read: Of the file, so far.
    """

    path: Path
    bad_lines: int = 0
    bytes_read: int = 0
    _quoted: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """One sentence on the bad lines; empty where there are none."""
        if not self.bad_lines:
            return ""
        lines = "1 line holds" if self.bad_lines == 1 else f"{self.bad_lines:,} lines hold"
        more = "; ..." if self.bad_lines > len(self._quoted) else ""
        return f"{lines} no passage and were left out: {'; '.join(self._quoted)}{more}"

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Source, title and text of each passage.

        Raises:
            ConfigError: The file breaks off or is not compressed as its ending says.
            OSError: It cannot be read.
        """
        number = 0
        with self.path.open("rb") as raw:
            try:
                for number, line in enumerate(_decompressed(self.path, raw), start=1):
                    self.bytes_read = raw.tell()
                    if (line := line.strip()) and (passage := self._passage(number, line)):
                        yield passage
            except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
                raise ConfigError(
                    f"{str(self.path)!r} cannot be read after line {number} ({type(error).__name__}: {error}); "
                    "expected a whole file, compressed as its ending says; fix: fetch or write it again"
                ) from error

    def _passage(self, number: int, line: bytes) -> tuple[str, str, str] | None:
        try:
            read = _Line.model_validate_json(line)
        except ValidationError as error:
            self._refuse(number, _reason(error))
            return None
        if not read.text.strip():
            self._refuse(number, "its text is empty")
            return None
        title = (read.title or "").strip()
        start = read.text.lstrip('" ')
        if start.startswith(title) and not _WORD.match(start, len(title)):
            title = ""
        return str(read.id) if read.id is not None else f"{self.path.name}:{number}", title, read.text

    def _refuse(self, number: int, reason: str) -> None:
        self.bad_lines += 1
        if len(self._quoted) < _SHOWN:
            self._quoted.append(f"line {number}: {reason}")


def is_corpus(path: Path) -> bool:
    """Whether a file's name ends as a corpus does."""
    return path.name.lower().endswith(CORPUS_ENDINGS)


def _decompressed(path: Path, raw: BinaryIO) -> Iterable[bytes]:
    """The file's lines."""
    match path.suffix.lower():
        case ".gz":
            return gzip.GzipFile(fileobj=raw)
        case ".zst":
            return _lines(_frames(raw))
    return raw


def _frames(raw: BinaryIO) -> Iterator[bytes]:
    """What a file of zstd frames holds. The library's own reader takes a file that breaks off for one that ends."""
    decoder = None
    while chunk := raw.read(_CHUNK_BYTES):
        while chunk:
            decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
            yield decoder.decompress(chunk)
            chunk = decoder.unused_data
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise EOFError("the last zstd frame is not whole")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "missing":
        return f"expected one of {', '.join(_TEXTS)}"
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
