"""Append-only files of records, plain or compressed, shared by several processes.

A plain log holds one record a line. In a log whose name ends in `.zst` each line is a zstd frame of its own, with a
checksum; the frames in a row are what `zstd -dc` reads. A writer that dies leaves a torn record at the end. In a plain
log the next writer closes it with a newline; in a compressed one the reader goes on at the next frame. Either way it
costs no other record. Writers lock the file (`flock`); nothing is synced to disk, so a power cut may take the last
lines.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

COMPRESSED = ".zst"
FRAME_START = b"\x28\xb5\x2f\xfd"
"""The four bytes with which a zstd frame begins (RFC 8878, section 3.1.1)."""

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """One record as it stands in a log."""

    number: int
    """Counted from 1; in a compressed log the number of the frame."""
    offset: int
    """Byte at which it begins."""
    data: bytes | None
    """Its text, or None for a frame that cannot be decompressed."""


class Forkable(ABC):
    """Has files open that a forked process must not share with its parent: for both, their lock would be the same."""

    def __init__(self) -> None:
        _forkables.add(self)

    @abstractmethod
    def start_over(self) -> None:
        """Let go of what the parent has open; called in a forked process before anything else."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def _start_over() -> None:
    for forkable in list(_forkables):
        forkable.start_over()


os.register_at_fork(after_in_child=_start_over)


class Appender(Forkable):
    """A file of records that any number of threads and processes append to; it stays open between records.

    A file that was moved, deleted or replaced since the last record is left; the next record goes where the path leads.

    Args:
        path: Made when the first record is written, its folder too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._lock = threading.Lock()  # threads share the descriptor, so `flock` does not keep them apart
        self._compressor = _compressor()
        self._descriptor: int | None = None

    def __del__(self) -> None:
        self._close()

    def start_over(self) -> None:
        """Close the file; another thread of the parent may have held the lock, and used the compressor."""
        self._lock = threading.Lock()
        self._compressor = _compressor()
        self._close()

    def append(self, line: bytes) -> None:
        """Append one record under the file's lock.

        Args:
            line: The record, ending in a newline.

        Raises:
            OSError: The record could not be written, or only a part of it.
        """
        with self._lock:
            packed = self._compressor.compress(line) if self.path.suffix == COMPRESSED else None
            descriptor = self._current()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if packed is None and _is_torn(descriptor):
                    line = b"\n" + line
                write_all(descriptor, line if packed is None else packed)
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _current(self) -> int:
        """Descriptor of the file that has the path now."""
        if self._descriptor is not None:
            if is_at(self._descriptor, self.path):
                return self._descriptor
            self._close()
        descriptor = self._descriptor = open_to_append(self.path, os.O_RDWR)
        return descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_at(descriptor: int, path: Path | str) -> bool:
    """Whether an open file is the one that the path leads to now."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def open_to_append(path: Path | str, mode: int = os.O_WRONLY) -> int:
    """Open a file for appending; make it and its folder when they are not there."""
    flags = mode | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o644)


def write_all(descriptor: int, data: bytes) -> None:
    """Write, and write on where the system took only a part."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def size_between_writes(file: BinaryIO) -> int:
    """Bytes in the file at a moment when no writer is in the middle of a record."""
    fcntl.flock(file.fileno(), fcntl.LOCK_SH)
    try:
        return os.fstat(file.fileno()).st_size
    finally:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def lines(file: BinaryIO, *, end: int, compressed: bool) -> Iterator[Line]:
    """All records that begin before `end`; blank lines are passed over.

    Args:
        file: The log, opened for reading bytes; other reads may come between.
        end: Bytes to read, from `size_between_writes`.
        compressed: Whether the log holds zstd frames.
    """
    offset = number = 0
    while offset < end:
        number += 1
        if compressed:
            data, size = _read_frame(file, offset)
            if data is None:
                size = _next_frame(file, offset + 1, end) - offset
        else:
            data = read_line(file, offset, compressed=False)
            size = len(data)
        if data is None or not data.isspace():
            yield Line(number, offset, data)
        offset += size


def read_line(file: BinaryIO, offset: int, *, compressed: bool) -> bytes:
    """The record that begins at a byte; empty for a frame that cannot be decompressed."""
    if compressed:
        return _read_frame(file, offset)[0] or b""
    file.seek(offset)
    return file.readline()


def _is_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _compressor() -> zstandard.ZstdCompressor:
    """For one thread at a time."""
    return zstandard.ZstdCompressor(write_checksum=True)


def _read_frame(file: BinaryIO, offset: int) -> tuple[bytes | None, int]:
    """Text of the frame at a byte, and the bytes it takes; None where there is no whole frame."""
    file.seek(offset)
    decoder = zstandard.ZstdDecompressor().decompressobj()
    parts: list[bytes] = []
    size = 0
    while not decoder.eof:
        chunk = file.read(_CHUNK)
        if not chunk:
            return None, 0
        size += len(chunk)
        try:
            parts.append(decoder.decompress(chunk))
        except zstandard.ZstdError:
            return None, 0
    return b"".join(parts), size - len(decoder.unused_data)


def _next_frame(file: BinaryIO, start: int, end: int) -> int:
    """Byte at which the next frame may begin, or `end`."""
    file.seek(start)
    tail = b""
    position = start
    while position < end and (chunk := file.read(_CHUNK)):
        found = (tail + chunk).find(FRAME_START)
        if found >= 0:
            return position - len(tail) + found
        position += len(chunk)
        tail = (tail + chunk)[-3:]
    return end
