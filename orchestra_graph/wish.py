"""Reads preferences out of a sentence, by a handful of words; the sentence itself goes to the router as well.

cheap, low cost, save money        cost counts as much as accuracy
fast, quick, urgent, hurry         latency counts nearly as much as accuracy
best, accurate, whatever it costs  cost and latency count for nothing
prefer TOOL, use TOOL              wanted
avoid TOOL, not TOOL               unwanted
never TOOL, without TOOL           taken out of the catalog
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from orchestra_graph.preferences import Preferences

_WEIGHTS: Final[tuple[tuple[re.Pattern[str], dict[str, float]], ...]] = (
    (re.compile(r"\b(best|accura\w*|whatever it costs|quality)\b", re.IGNORECASE), {"cost": 0.0, "latency": 0.0}),
    (re.compile(r"\b(cheap\w*|low cost|save money|inexpensive)\b", re.IGNORECASE), {"cost": 1.0}),
    (re.compile(r"\b(fast\w*|quick\w*|urgent|hurry|soon)\b", re.IGNORECASE), {"latency": 0.8}),
)
_TOOL_WORDS: Final = {"never": r"never(?: use)?|without", "avoid": r"avoid|not|don't use", "prefer": r"prefer|use"}


def read_wish(text: str, tools: Sequence[str]) -> Preferences:
    """Preferences that a sentence asks for.

    Args:
        text: Any sentence; what is not understood is still told to the router.
        tools: Names that may be preferred, avoided or ruled out.
    """
    fields: dict[str, Any] = {"text": text}
    for pattern, weights in _WEIGHTS:
        if pattern.search(text):
            fields |= weights
    taken: set[str] = set()
    for what, words in _TOOL_WORDS.items():
        # "never use X" also holds "use X": the strictest reading comes first and takes the name.
        named = [name for name in tools if name not in taken and _names(text, words, name)]
        taken.update(named)
        if named:
            fields[what] = tuple(named) if what == "never" else dict.fromkeys(named, 1.0)
    return Preferences.model_validate(fields)


def _names(text: str, words: str, tool: str) -> bool:
    return re.search(rf"\b(?:{words}) (?:the )?{re.escape(tool)}\b", text, re.IGNORECASE) is not None
