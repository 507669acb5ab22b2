"""Reads preferences out of a sentence, by a handful of words; the sentence itself goes to the router as well.

cheap, low cost, save money, frugal     cost counts as much as accuracy
fast, quick, urgent, hurry, soon        latency counts nearly as much as accuracy
best, accurate, whatever it costs       cost and latency count for nothing
prefer TOOL, use TOOL                   wanted
avoid TOOL, not TOOL, do not use TOOL   unwanted
never TOOL, without TOOL                taken out of the catalog

Several tools may follow one word: "avoid large, small and math". Left out: negated wishes ("not cheap") and other
languages; a router that is a language model reads those in the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from orchestra_graph.preferences import Preferences


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


_WEIGHTS: Final[tuple[tuple[re.Pattern[str], dict[str, float]], ...]] = (
    (
        _words(r"best|accura\w*|correct\w*|quality|whatever it costs|no matter the cost"),
        {"cost": 0.0, "latency": 0.0},
    ),
    (_words(r"cheap\w*|low[- ]cost|save money|inexpensive|(?:not|less|least) expensive|frugal\w*"), {"cost": 1.0}),
    (_words(r"fast\w*|quick\w*|urgent\w*|hurry|soon\w*"), {"latency": 0.8}),
)
_USE: Final = r"(?: (?:use|using|call|ask))?"
_TOOL_WORDS: Final = {
    "never": rf"never{_USE}|without{_USE}",
    "avoid": rf"(?:avoid|do not|don['\u2019]t|not){_USE}",
    "prefer": rf"(?:prefer|preferably){_USE}|use|ask",
}
"""What stands before the names of tools; the strictest reading comes first and takes the name."""


def read_wish(text: str, tools: Sequence[str]) -> Preferences:
    """Preferences that a sentence asks for.

    Args:
        text: Any sentence; what is not understood is still told to the router.
        tools: Names that may be preferred, avoided or ruled out.

    Example:
        >>> wish = read_wish("cheap, and do not use large", ["large", "small"])
        >>> wish.cost, wish.avoid
        (1.0, {'large': 1.0})
    """
    fields: dict[str, Any] = {"text": text}
    taken: set[str] = set()
    for what, words in _TOOL_WORDS.items():
        named = [name for name in _named(text, words, tools) if name not in taken]
        taken.update(named)
        if named:
            fields[what] = tuple(named) if what == "never" else dict.fromkeys(named, 1.0)
    # A tool may be named `fast`, which says nothing of speed.
    rest = re.sub(_any_of(taken), " ", text, flags=re.IGNORECASE) if taken else text
    for pattern, weights in _WEIGHTS:
        if pattern.search(rest):
            fields |= weights
    return Preferences.model_validate(fields)


def _named(text: str, words: str, tools: Sequence[str]) -> list[str]:
    """The tools in lists that follow the words."""
    name = _any_of(tools)
    following = rf"\b(?:{words}) ({name}(?:(?:, ?(?:and |or )?| (?:and|or) ){name})*)"
    lists = [match[1] for match in re.finditer(following, " ".join(text.split()), re.IGNORECASE)]
    found = {
        each.lower().removeprefix("the ")
        for listed in lists
        for each in re.findall(_any_of(tools), listed, re.IGNORECASE)
    }
    return [tool for tool in tools if tool.lower() in found]


def _any_of(tools: Sequence[str] | set[str]) -> str:
    """A pattern of one whole name; the longest first, since names may begin alike."""
    names = "|".join(re.escape(tool) for tool in sorted(tools, key=len, reverse=True))
    return rf"(?:the )?(?<![\w-])(?:{names})(?![\w-])"
