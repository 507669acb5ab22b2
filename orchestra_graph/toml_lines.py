"""Finds the line on which each key of a TOML text stands, which `tomllib` does not tell.

The text must have passed `tomllib` already: the scan follows its structure (headers, dotted and quoted keys, strings
of all four kinds, arrays, inline tables) and checks nothing itself.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]
"""Keys from the top of the document down; a number is a position in an array."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")


class KeyLines:
    """Line numbers of the keys of one document.

    Args:
        text: A valid TOML document.
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._ends = [match.start() for match in re.finditer("\n", self._text)]
        self._lines: dict[KeyPath, int] = {}
        self._last_element: dict[KeyPath, int] = {}
        self._at = 0
        self._document()

    def line(self, path: KeyPath) -> int:
        """Line of a key, counted from 1; of the nearest table around it where the key is not in the text."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _document(self) -> None:
        table: KeyPath = ()
        while self._peek():
            if self._text.startswith("[[", self._at):
                self._at += 2
                table = self._enter((), self._key(), element=True)
                self._at += 2
            elif self._peek() == "[":
                self._at += 1
                table = self._enter((), self._key())
                self._at += 1
            else:
                self._assignment(table)

    def _peek(self) -> str:
        """Skip blanks and comments; the character that follows, or nothing at the end."""
        self._skip(_BLANK)
        return self._text[self._at : self._at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match.group()

    def _key(self) -> list[str]:
        """Read a dotted key up to the sign that ends it."""
        keys = []
        while True:
            self._peek()
            quoted = self._skip(_STRING)
            keys.append(tomllib.loads(f"key = {quoted}")["key"] if quoted else self._skip(_BARE_KEY))
            if self._peek() != ".":
                return keys
            self._at += 1

    def _enter(self, path: KeyPath, keys: list[str], *, element: bool = False) -> KeyPath:
        """Note the line of each part of a key; `element` starts the next table of an array of tables."""
        for depth, key in enumerate(keys):
            path = (*path, key)
            self._note(path)
            if element and depth == len(keys) - 1:
                self._last_element[path] = self._last_element.get(path, -1) + 1
            if path in self._last_element:
                path = (*path, self._last_element[path])
                self._note(path)
        return path

    def _note(self, path: KeyPath) -> None:
        self._lines.setdefault(path, bisect_right(self._ends, self._at - 1) + 1)

    def _assignment(self, table: KeyPath) -> None:
        path = self._enter(table, self._key())
        self._at += 1
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._peek()
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        elif not self._skip(_STRING):
            self._skip(_BARE_VALUE)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._peek() != "]":
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            if self._peek() == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._peek() != "}":
            self._assignment(path)
            if self._peek() == ",":
                self._at += 1
        self._at += 1
