"""Values to lines of JSON and back.

Written by orjson where it can; what it refuses is mended first. Not all that Python holds is JSON: NaN and infinity
become null, a lone surrogate becomes U+FFFD, a key becomes a string, an array of NumPy a list, any other object its
`repr`. Integers over 64 bits survive; those of about 4,000 digits, and what is nested too deeply, become a text that
says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic_core import from_json

TRAJECTORY_VERSION: Final = 1
"""Format of a line of the log, written into each."""

MAX_DEPTH = 150
"""Levels of nesting that are kept; readers of JSON commonly stop at 200."""
MAX_BITS = 13_000
"""Size of integers that are kept: Python reads no more than 4,300 digits."""


def dump(value: Mapping[str, Any]) -> bytes:
    """Encode a record as one line, with its newline."""
    try:
        return orjson.dumps(value, default=repr, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a surrogate, an integer over 64 bits, a key that is no string, or deep nesting
        mended = json.dumps(_mend(value), ensure_ascii=False, separators=(",", ":"))
        return mended.encode() + b"\n"


def storable(value: Any) -> Any:
    """A copy in plain JSON that a checkpoint can hold: integers over 64 bits become a text, arrays lists."""
    try:
        data = orjson.dumps(value, default=repr, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return _narrowed(_mend(value))
    return load(data)


def load(line: bytes) -> Any:
    """Decode a line.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return from_json(line)
    except ValueError:
        # Slower, but reads what the fast one does not: deeper nesting and lone surrogates, as other writers leave them.
        return _load_slowly(line)


def _load_slowly(line: bytes) -> Any:
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _mend(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        return f"(a {type(value).__name__} nested deeper than {MAX_DEPTH} levels)"
    match value:
        case None | bool():
            return value
        case str():
            return _mend_text(value)
        case int():
            bits = value.bit_length()
            return int(value) if bits <= MAX_BITS else f"(an integer of {bits} bits)"
        case float():
            return float(value) if abs(value) < float("inf") else None
        case Mapping():
            return {_mend_text(str(key)): _mend(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple():
            return [_mend(inner, depth + 1) for inner in value]
        case _:
            return _mend_object(value)


def _narrowed(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, dict):
        return {key: _narrowed(inner) for key, inner in value.items()}
    return [_narrowed(inner) for inner in value] if isinstance(value, list) else value


def _mend_object(value: object) -> Any:
    """What orjson makes of it (a date, an enum, a dataclass, an array), else its `repr`."""
    try:
        return load(orjson.dumps(value, default=repr, option=orjson.OPT_SERIALIZE_NUMPY))
    except TypeError:
        return _mend_text(repr(value))


def _mend_text(text: str) -> str:
    """The text with each lone surrogate replaced, so that UTF-8 can hold it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
