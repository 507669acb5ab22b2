"""Episodes: pure functions of (seed, split, index), always solvable, and of texts that the other split never shows."""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from orchestra_graph.catalog import Price
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Preferences
from orchestra_graph.workbench import FAMILIES, SKILLS, Episode, Workbench, plan
from orchestra_graph.workbench.descriptions import DESCRIPTIONS
from orchestra_graph.workbench.sample import Aspect
from orchestra_graph.workbench.wishes import WishKind, preference_phrases
from orchestra_graph.workbench.wording import SPLITS, Split, pattern_of

BENCH = Workbench()
N = 150
HELD_OUT_DIGEST = "852d9b140df78e81d170a4a4942c937e6c7311295cc7a26a0a1cb95e2cc3a3ce"


@cache
def episodes(split: Split) -> list[Episode]:
    return [BENCH.sample(0, index, split=split) for index in range(N)]


def test_the_same_arguments_give_the_same_episode_and_others_another() -> None:
    for index in range(10):
        assert BENCH.sample(1, index) == Workbench().sample(1, index) != BENCH.sample(2, index)
    assert BENCH.sample(1, 3) != BENCH.sample(1, 3, split="held_out")


def test_another_process_draws_the_same_and_needs_no_sympy_until_then() -> None:
    draw = "print(repr((Workbench().tasks('train', 14), [Workbench().sample(0, i) for i in range(5)])))"
    code = f"import sys\nfrom orchestra_graph.workbench import Workbench\nassert 'sympy' not in sys.modules\n{draw}"
    here = repr((BENCH.tasks("train", 14), [BENCH.sample(0, i) for i in range(5)]))
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout.strip()) == ("", here)


def test_a_plan_solves_every_episode() -> None:
    for split in SPLITS:
        for episode in episodes(split):
            steps = plan(
                episode.task.question, episode.catalog, identity=episode.identity, preferences=episode.preferences
            )
            assert steps
            assert set(steps) <= set(episode.catalog.tools) == set(episode.identity)


def test_catalogs_differ_in_tools_names_order_texts_and_prices() -> None:
    drawn = episodes("train")
    assert len({frozenset(e.identity.values()) for e in drawn}) > N / 2
    names = [name for e in drawn for name in e.identity]
    assert len(set(names)) > 0.95 * len(names)
    assert not set(names) & set(SKILLS)
    orders = {tuple(e.identity.values()) for e in drawn}
    assert len(orders) > 0.9 * N
    assert {e.task.family for e in drawn} == set(FAMILIES)
    large = [
        e.catalog.tools[n].price.dollars(input_tokens=200, output_tokens=60, calls=1)
        for e in drawn
        for n, expert in e.identity.items()
        if expert == "large"
    ]
    assert max(large) / min(large) > 30


def test_prices_keep_a_plausible_spread() -> None:
    for episode in episodes("train"):
        for name, expert in episode.identity.items():
            usual, drawn = (dollars(c.price) for c in (BENCH.catalog.tools[expert], episode.catalog.tools[name]))
            assert usual / 11 < drawn < usual * 11


def test_the_dearest_tool_by_the_fixed_catalog_is_sometimes_not_the_dearest() -> None:
    dearest = [
        max(e.identity, key=lambda name, e=e: dollars(e.catalog.tools[name].price))  # type: ignore[misc]
        for e in episodes("train")
        if "large" in e.identity.values()
    ]
    drawn = [e for e in episodes("train") if "large" in e.identity.values()]
    share = statistics.mean(e.identity[name] == "large" for e, name in zip(drawn, dearest, strict=True))
    assert 0.3 < share < 0.95


def test_descriptions_and_wishes_of_the_splits_are_disjoint() -> None:
    described: dict[Split, set[str]] = {
        s: {t.description for e in episodes(s) for t in e.catalog.tools.values()} for s in SPLITS
    }
    assert described["train"].isdisjoint(described["held_out"])
    assert described["held_out"] == {text for phrases in DESCRIPTIONS.values() for text in phrases.held_out}
    for split in SPLITS:
        wishes = [e.preferences.text for e in episodes(split) if e.preferences.text]
        assert len(wishes) > N / 2
        known = [pattern_of(text) for phrases in preference_phrases() for text in phrases.of(split)]
        assert all(any(pattern.match(text) for pattern in known) for text in wishes)


def test_held_out_texts_stay_as_they_are_whatever_is_added_for_training() -> None:
    task, episode = BENCH.tasks("held_out", 1)[0], BENCH.sample(0, 2, split="held_out")
    assert (task.id, task.question) == (
        "arithmetic/held_out/1/651472813",
        "Could you tell me what 59 + (48 + 71) comes to?",
    )
    assert (
        episode.task.question
        == "Could you derive the signed area under y = 5*x**3 + 3*x**2 - 5*x - 7 between x = 3 and x = 4 for me?"
    )
    assert episode.preferences.text == "Get this right, no matter the effort."
    texts = [task.question for task in BENCH.tasks("held_out", 70)]
    for episode in episodes("held_out")[:70]:
        described = (tool.description for tool in episode.catalog.tools.values())
        texts += [episode.task.question, episode.preferences.text, *described]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == HELD_OUT_DIGEST


def test_preferences_fit_their_catalog_and_their_text() -> None:
    kinds = set()
    for episode in episodes("train"):
        wishes = episode.preferences
        assert wishes.apply(episode.catalog) == episode.catalog
        for name in (*wishes.prefer, *wishes.avoid):
            assert name in wishes.text
        kinds.add((bool(wishes.prefer), bool(wishes.avoid), wishes.cost, wishes.latency))
    assert len(kinds) >= 10


def dollars(price: Price) -> float:
    return price.dollars(input_tokens=200, output_tokens=60, calls=1)


@pytest.mark.parametrize(
    ("vary", "same"),
    [
        ((), {"names", "descriptions", "prices", "order", "wishes"}),
        (("tools", "prices"), {"names", "descriptions", "wishes"}),
        (("tools", "prices", "names"), {"wishes"}),
        (("prices",), {"names", "descriptions", "order", "wishes"}),
    ],
)
def test_only_what_is_asked_for_is_drawn(vary: tuple[Aspect, ...], same: set[str]) -> None:
    fixed = BENCH.catalog.tools
    episodes = [BENCH.sample(0, index, split="held_out", vary=vary) for index in range(40)]
    kept = {"names", "descriptions", "prices", "order", "wishes"}
    for e in episodes:
        kept -= {"names"} if not e.catalog.tools.keys() <= fixed.keys() else set()
        kept -= {"order"} if list(e.identity.values()) != list(fixed) else set()
        kept -= {"wishes"} if e.preferences != Preferences() else set()
        for name, spec in e.catalog.tools.items():
            known = fixed[e.identity[name]]
            kept -= {"descriptions"} if spec.description != known.description else set()
            kept -= {"prices"} if (spec.price, spec.latency) != (known.price, known.latency) else set()
    assert kept == same
    assert len({e.task.id for e in episodes}) == 40


def test_what_else_is_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vary = \['weather'\]; expected some of tools, prices, names, wishes"):
        BENCH.sample(0, 0, vary=("weather",))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["avoid", "prefer"])
def test_a_wish_about_a_tool_counts(kind: WishKind) -> None:
    """Without the wish the best plan calls the tool that is to be avoided, and does not call the one preferred."""
    for index in range(30):
        episode = BENCH.sample(0, index, split="held_out", wish=kind)
        ((tool, weight),) = getattr(episode.preferences, kind).items()
        question, catalog, identity = episode.task.question, episode.catalog, episode.identity
        without = plan(question, catalog, identity=identity) or []
        wished = plan(question, catalog, identity=identity, preferences=episode.preferences)
        assert wished and weight == 1.0 and tool in episode.preferences.text
        assert (tool in without, tool in wished) == ((True, False) if kind == "avoid" else (False, True))


@pytest.mark.parametrize(("kind", "weight"), [("cheap", "cost"), ("fast", "latency"), ("accurate", "accuracy")])
def test_a_wish_about_no_tool_is_in_words_and_weights(kind: WishKind, weight: str) -> None:
    wishes = [BENCH.sample(0, index, wish=kind).preferences for index in range(5)]
    assert all(getattr(wish, weight) == 1.0 and wish.text and not wish.avoid and not wish.prefer for wish in wishes)
    assert BENCH.sample(0, 0, wish=kind) == Workbench().sample(0, 0, wish=kind)


def test_cheap_and_fast_are_different_plans_where_they_are_wished_for() -> None:
    for index in range(10):
        episode = BENCH.sample(0, index, split="held_out", vary=("tools", "prices", "names"), wish="fast")
        cheap, fast = (
            plan(episode.task.question, episode.catalog, identity=episode.identity, preferences=wish)
            for wish in (Preferences(accuracy=0.8, cost=1, latency=0), episode.preferences)
        )
        assert cheap != fast
