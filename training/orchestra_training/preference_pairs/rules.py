"""Pairs by rules: sentences of `phrases` about the tools of a catalog, drawn from seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench.wording import Split
from orchestra_training.filters import Fault, FilterReport
from orchestra_training.preference_pairs.pair import Pair
from orchestra_training.preference_pairs.phrases import (
    GENERAL,
    GROUPS,
    ONE_TOOL,
    PRIVATE,
    STRENGTHS,
    TONES,
    TOOLS,
    Stance,
    Strength,
    Tone,
)
from orchestra_training.preference_pairs.tool_groups import Groups, groups_of

STANCES: Final[tuple[tuple[Stance, ...], ...]] = (("prefer",), ("avoid",), ("prefer", "avoid"))
"""What is wished of tools in one text."""
TRIES: Final = 20
"""Texts drawn for each that is wanted, before the phrasings count as used up."""
PRIVACY_SHARE: Final = 0.1
"""Share of the texts that want all data on one's own machines, where the catalog knows such and others."""
WORKBENCH_SHARE: Final = 0.3
"""Share of the strong and plain wishes about one tool that are said in the workbench's words."""


def by_rules(catalog: Catalog, n: int, *, split: Split, seed: int = 0, report: FilterReport) -> Iterator[Pair]:
    """Draw pairs whose texts all differ; the same arguments give the same.

    Args:
        catalog: The tools.
        n: How many; fewer come where the phrasings do not give as many.
        split: Which phrasings.
        seed: Another seed gives other texts.
        report: Notes the texts that were drawn before.

    Raises:
        ConfigError: The catalog has no tools.
    """
    if not catalog.tools:
        raise ConfigError("the catalog has no tools; expected at least one to state preferences about")
    said: set[str] = set()
    groups = groups_of(catalog)
    for index in range(n * TRIES):
        if len(said) == n:
            return
        preferences = _draw(Random(f"pairs/{seed}/{split}/{index}"), split, list(catalog.tools), groups)
        fault = Fault("pairs", "repeated", preferences.text) if preferences.text in said else None
        if report.passes(f"{split}-{index}", fault):
            said.add(preferences.text)
            yield Pair.of(preferences, catalog, split=split, by="rules")


def _draw(rng: Random, split: Split, tools: Sequence[str], groups: Groups) -> Preferences:
    """What one user wants and says."""
    if {"own", "outside"} <= groups.keys() and rng.random() < PRIVACY_SHARE:
        own, outside = (dict.fromkeys(groups[name], 1.0) for name in ("own", "outside"))
        return Preferences(prefer=own, avoid=outside, text=PRIVATE.draw(rng, split))
    tone = rng.choice(TONES)
    about = rng.choice(("general", "tools", "both")) if len(tools) > 1 else "general"
    fields: dict[str, Any] = {}
    sentences: list[str] = []
    if about != "tools":
        wish = rng.choice(list(GENERAL.values()))
        fields |= wish.weights
        sentences.append(wish.said[tone].draw(rng, split))
    if about != "general":
        left = list(tools)
        for stance in rng.choice(STANCES):
            words, members = _target(rng, split, left, groups)
            strength = rng.choice(list(STRENGTHS))
            fields[stance] = dict.fromkeys(members, STRENGTHS[strength])
            sentences.append(_sentence(rng, split, tone, stance, strength, words, members))
            left = [name for name in left if name not in members]
    rng.shuffle(sentences)
    return Preferences.model_validate({**fields, "text": " ".join(sentences)})


def _target(rng: Random, split: Split, left: Sequence[str], groups: Groups) -> tuple[str, tuple[str, ...]]:
    """Words for a tool, for two or for a group, among those of which nothing was wished yet; and their names."""
    fitting = {name: members for name, members in groups.items() if set(members) <= set(left)}
    kind = rng.choice(("one", "one", "two", "group"))
    if kind == "group" and fitting:
        group, _, provider = rng.choice(list(fitting)).partition(":")
        members = fitting[f"{group}:{provider}" if provider else group]
        return GROUPS[group].draw(rng, split, provider=provider), members
    if kind == "two" and len(left) > 2:
        names = tuple(rng.sample(left, 2))
        return " and ".join(names), names
    name = rng.choice(left)
    return name, (name,)


def _sentence(
    rng: Random, split: Split, tone: Tone, stance: Stance, strength: Strength, words: str, members: Sequence[str]
) -> str:
    is_workbenchs = words == members[0] and (tone, strength) == ("plain", "strong")
    phrases = ONE_TOOL[stance] if is_workbenchs and rng.random() < WORKBENCH_SHARE else TOOLS[stance, strength][tone]
    return phrases.draw(rng, split, tool=words)
