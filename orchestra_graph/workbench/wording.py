"""Ways to say a thing, split into train and held-out, and reading them back.

A `Phrases` renders slots into one of its templates and reads a text back into slots. Rendering uses the templates of
one split; reading knows both, since an expert understands any phrasing while a policy has trained on some.

Train wordings of questions and experts lie in `wordings/`, held-out ones in the code, so that who writes the former
need not see the latter.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Phrases:
    """Templates with `{slot}` marks, for example `the founder of {x}`."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def draw(self, rng: Random, split: Split, **slots: object) -> str:
        """Fill one template of the split.

        Args:
            rng: Chooses the template.
            split: Which templates may be used.
            **slots: A value for each slot.
        """
        return rng.choice(self.of(split)).format(**slots)

    def of(self, split: Split) -> tuple[str, ...]:
        """Templates of one split."""
        return self.train if split == "train" else self.held_out

    def matches(self, text: str) -> Iterator[dict[str, str]]:
        """Slots of every template, of either split, that the whole text fits."""
        for pattern in self._patterns:
            match = pattern.fullmatch(text)
            if match:
                yield match.groupdict()

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(pattern_of(template) for template in (*self.train, *self.held_out))


def phrases(family: str, key: str, *held_out: str) -> Phrases:
    """The train templates of a key in `wordings/<family>.toml`, and these held-out ones."""
    return Phrases(tuple(written(family)[key]), held_out)


@cache
def written(family: str) -> dict[str, list[str]]:
    """What lies in `wordings/<family>.toml`."""
    text = (resources.files("orchestra_graph.workbench") / "wordings" / f"{family}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def pattern_of(template: str) -> re.Pattern[str]:
    """Turn `the founder of {x}` into a pattern with a group for each slot; a slot may come twice."""
    parts = _SLOT.split(template)
    text = re.escape(parts[0])
    for i in range(1, len(parts), 2):
        slot, after = parts[i], parts[i + 1]
        group = f"(?P={slot})" if slot in parts[1:i:2] else f"(?P<{slot}>.+?)"
        text += group + re.escape(after)
    return re.compile(text, re.DOTALL)
