"""A preference in words with its vector, and files of them: one JSON object a line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences, Weight
from orchestra_graph.workbench.wording import Split
from orchestra_training.checked import checked

PAIR_VERSION: Final = 1

_WORD: Final = re.compile(r"\w+")
_TOOL: Final = "toolname"
"""Stands for any name in a wording; a word, so that it is one among others."""


class Pair(BaseModel):
    """What a user says, and the weights that it means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = PAIR_VERSION
    text: str
    vector: tuple[Weight, ...]
    """`[prefer of each tool, accuracy, cost, latency, avoid of each tool]`, see `Preferences.vector`."""
    tools: tuple[str, ...]
    """Names in the order of the vector."""
    catalog_hash: str
    split: Split
    by: str
    """`rules`, or `model:NAME` of the model that wrote it."""

    @model_validator(mode="after")
    def _consistent(self) -> Pair:
        expected = 2 * len(self.tools) + 3
        if len(self.vector) != expected:
            raise ValueError(f"vector has {len(self.vector)} elements; expected {expected} for {len(self.tools)} tools")
        return self

    @classmethod
    def of(cls, preferences: Preferences, catalog: Catalog, *, split: Split, by: str) -> Pair:
        """The pair of preferences that hold their text."""
        tools = tuple(catalog.tools)
        return cls(
            text=preferences.text,
            vector=tuple(preferences.vector(tools)),
            tools=tools,
            catalog_hash=catalog.hash,
            split=split,
            by=by,
        )

    @property
    def preferences(self) -> Preferences:
        """The weights by name, with the text: what a run is given."""
        n = len(self.tools)
        accuracy, cost, latency = self.vector[n : n + 3]
        return Preferences(
            accuracy=accuracy,
            cost=cost,
            latency=latency,
            prefer={name: weight for name, weight in zip(self.tools, self.vector[:n], strict=True) if weight},
            avoid={name: weight for name, weight in zip(self.tools, self.vector[n + 3 :], strict=True) if weight},
            text=self.text,
        )


def read_pairs(path: str | Path) -> Iterator[Pair]:
    """The pairs of a file, one at a time.

    Raises:
        ConfigError: It cannot be read; names file, line and field.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield checked(Pair, line, f"{path}:{number}")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def wording(text: str, tools: Sequence[str]) -> tuple[str, ...]:
    """The words of a text without case and punctuation, names of tools left open.

    >>> wording("Avoid large, please!", ["large"])
    ('avoid', 'toolname', 'please')
    """
    for name in sorted(tools, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", _TOOL, text, flags=re.IGNORECASE)
    return tuple(_WORD.findall(text.casefold()))


def likeness(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """How much of two wordings is the same: pairs of neighbouring words in both, of those in either; from 0 to 1.

    >>> likeness(("avoid", "toolname", "please"), ("avoid", "toolname"))
    0.5
    """
    mine, theirs = _neighbours(one), _neighbours(other)
    return len(mine & theirs) / len(mine | theirs)


def _neighbours(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return set(itertools.pairwise(words)) or {words}
