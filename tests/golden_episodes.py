"""Reads the golden episodes of the released protocols: what a router replies, what that brings, what it is then sent.

A text in a file is a string, or where it would be long a recipe: `{"repeat": ["text", 3]}`,
`{"count": ["line #", 1, 9]}` (the sign # is replaced by each number from first to last), or a list of texts that are
joined. A text that is expected and long is kept as a digest: its SHA-256, its length in characters, its first and its
last 200 characters.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"
TOKENIZER = Path(__file__).parent / "data" / "tokenizer" / "tokenizer.json"

LONGEST = 4_000
"""Characters of an expected text up to which it is written out."""

ENDS = 200
"""Characters of a longer text that its digest shows at either end."""


def episodes(protocol: str) -> list[Path]:
    """The files of a protocol's episodes, in order; `tools.json` beside them is none."""
    return sorted(path for path in (FOLDER / protocol).glob("*.json") if path.name != "tools.json")


def read(path: Path) -> Any:
    """A golden file."""
    return json.loads(path.read_text(encoding="utf-8"))


def text_of(recipe: Any) -> str:
    """The text that a recipe stands for."""
    if isinstance(recipe, str):
        return recipe
    if isinstance(recipe, list):
        return "".join(map(text_of, recipe))
    if "repeat" in recipe:
        text, times = recipe["repeat"]
        return text_of(text) * int(times)
    text, first, last = recipe["count"]
    return "".join(str(text).replace("#", str(n)) for n in range(first, last + 1))


def shown(text: str) -> Any:
    """How an expected text stands in a file: written out, or as a digest."""
    if len(text) <= LONGEST:
        return text
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"sha256": sha256, "characters": len(text), "first": text[:ENDS], "last": text[-ENDS:]}


def requests_of(episode: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests that an episode expects, long texts as digests."""
    return [{**request, "user": _digest(request["user"])} for request in episode["requests"]]


def _digest(expected: Any) -> Any:
    is_digest = isinstance(expected, dict) and "sha256" in expected
    return expected if is_digest else shown(text_of(expected))


def calls_of(reply: dict[str, Any]) -> list[tuple[str, dict[str, Any] | str]]:
    """Calls of a scripted reply, name and arguments; arguments that are a string go out as they stand."""
    return [(name, arguments) for name, arguments in reply.get("calls", ())]
