"""The laws of the rewards, and which of them the paper's breaks."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orchestra_training.evaluate.score import utility
from orchestra_training.groups import Reward
from orchestra_training.reward import REWARDS, Measures, RewardName, guarded, paper, proportional
from orchestra_training.reward.guarded import COST_FLOOR, LATENCY_FLOOR
from orchestra_training.reward.normalise import normalised

from orchestra_graph.preferences import Preferences
from tests.examples import examples

PREFERRED, AVOIDED, OTHER = ("search", "small"), ("large",), "runner"
TOOLS = (*PREFERRED, *AVOIDED, OTHER)
WEIGHTS = st.floats(0, 1)
AMOUNTS = st.floats(0, 100) | st.integers(0, 5).map(float) | st.sampled_from([1.0, 1.005, 1.01, 1.02, 1.04, 1.05, 1.06])
"""Ties are likely, and so are ranges just below, at and above the floors."""
PREFERENCES = st.builds(
    Preferences,
    accuracy=WEIGHTS,
    cost=WEIGHTS,
    latency=WEIGHTS,
    prefer=st.dictionaries(st.sampled_from(PREFERRED), WEIGHTS),
    avoid=st.dictionaries(st.sampled_from(AVOIDED), WEIGHTS),
)


COUNTS = st.tuples(*[st.integers(0, 3)] * len(TOOLS))
MEASURES = st.builds(
    lambda chosen, others, outcome, dollars, seconds, pauses: Measures(
        solved=outcome > 0,
        earned=outcome > 1,
        calls={tool: sum(n) for tool, *n in zip(TOOLS, chosen, others, strict=True) if sum(n)},
        chosen={tool: n for tool, n in zip(TOOLS, chosen, strict=True) if n},
        dollars=dollars,
        seconds=seconds,
        wall_seconds=seconds + pauses,
    ),
    COUNTS,
    COUNTS,
    st.integers(0, 4),
    AMOUNTS,
    AMOUNTS,
    AMOUNTS,
)


@dataclass(frozen=True)
class World:
    """A group, its preferences, one of its runs, and what a law needs to change something."""

    group: list[Measures]
    preferences: Preferences
    n: int
    tool: str
    extra: tuple[float, float]

    def changed(self, **parts: Any) -> list[Measures]:
        """The group with parts of the one run changed."""
        return [replace(run, **parts) if n == self.n else run for n, run in enumerate(self.group)]

    def called(self, tool: str) -> dict[str, Any]:
        """One more call of a tool by the one run."""
        run = self.group[self.n]
        calls, chosen = ({**part, tool: part.get(tool, 0) + 1} for part in (run.calls, run.chosen))
        return {"calls": calls, "chosen": chosen}


WORLDS = st.builds(
    lambda group, preferences, n, tool, extra: World(group, preferences, n % len(group), tool, extra),
    st.lists(MEASURES, min_size=1, max_size=5),
    PREFERENCES,
    st.integers(0, 4),
    st.sampled_from(TOOLS),
    st.tuples(AMOUNTS, AMOUNTS),
)


Law = Callable[[Reward, World], bool]


def no_gain_by_cost(reward: Reward, world: World) -> bool:
    """Raising one run's cost or latency never raises its reward."""
    run, (dollars, seconds) = world.group[world.n], world.extra
    dearer = world.changed(dollars=run.dollars + dollars)
    slower = world.changed(seconds=run.seconds + seconds, wall_seconds=run.wall_seconds + seconds)
    before = reward(world.group, world.preferences)[world.n]
    return all(reward(group, world.preferences)[world.n] <= before for group in (dearer, slower))


def names_do_not_matter(reward: Reward, world: World) -> bool:
    """Renaming tools changes nothing."""
    new = {tool: f"tool_{9 - n}" for n, tool in enumerate(TOOLS)}

    def renamed(counts: Any) -> Any:
        return {new[tool]: count for tool, count in sorted(counts.items())}

    group = [replace(run, calls=renamed(run.calls), chosen=renamed(run.chosen)) for run in world.group]
    preferences = world.preferences.model_copy(
        update={"prefer": renamed(world.preferences.prefer), "avoid": renamed(world.preferences.avoid)}
    )
    return reward(group, preferences) == reward(world.group, world.preferences)


def failure_is_least(reward: Reward, world: World) -> bool:
    """No run that did not solve its task earns more than one that did."""
    rewards = reward(world.group, world.preferences)
    solved = [r for run, r in zip(world.group, rewards, strict=True) if run.earned]
    failed = [r for run, r in zip(world.group, rewards, strict=True) if not run.earned]
    return max(failed, default=-math.inf) <= min(solved, default=math.inf)


def no_gain_by_repeating(reward: Reward, world: World) -> bool:
    """An extra call of a preferred tool, at whatever price, never raises the reward."""
    run = world.group[world.n]
    repeated = [tool for tool in world.preferences.prefer if run.chosen.get(tool)]
    before = reward(world.group, world.preferences)[world.n]
    more = [world.changed(**world.called(tool), dollars=run.dollars + world.extra[0]) for tool in repeated]
    return all(reward(group, world.preferences)[world.n] <= before for group in more)


def no_gain_by_splitting(reward: Reward, world: World) -> bool:
    """A call split in two at equal total never raises the reward."""
    if not world.group[world.n].chosen.get(world.tool):
        return True
    split = world.changed(**world.called(world.tool))
    return reward(split, world.preferences)[world.n] <= reward(world.group, world.preferences)[world.n]


def no_gain_by_avoided(reward: Reward, world: World) -> bool:
    """A call of an avoided tool never raises the reward."""
    more = world.changed(**world.called(AVOIDED[0]))
    return reward(more, world.preferences)[world.n] <= reward(world.group, world.preferences)[world.n]


def no_weight_no_matter(reward: Reward, world: World) -> bool:
    """What has no weight changes nothing."""
    zero = world.preferences.model_copy(
        update={
            "cost": 0.0,
            "prefer": {**world.preferences.prefer, OTHER: 0.0, PREFERRED[0]: 0.0},
            "avoid": {**world.preferences.avoid, OTHER: 0.0},
        }
    )
    without = zero.model_copy(
        update={
            "prefer": {t: w for t, w in zero.prefer.items() if t not in (OTHER, PREFERRED[0])},
            "avoid": {t: w for t, w in zero.avoid.items() if t != OTHER},
        }
    )
    run = world.group[world.n]
    other = world.changed(**world.called(PREFERRED[0]), dollars=run.dollars + world.extra[0])
    other = [replace(run, chosen={**run.chosen, OTHER: 7}, calls={**run.calls, OTHER: 7}) for run in other]
    return reward(world.group, zero) == reward(world.group, without) == reward(other, zero)


def units_do_not_matter(reward: Reward, world: World) -> bool:
    """Other units of money and time change nothing; by powers of two, so that no rounding does either."""
    group = [
        replace(run, dollars=run.dollars * 128, seconds=run.seconds / 64, wall_seconds=run.wall_seconds / 64)
        for run in world.group
    ]
    return reward(group, world.preferences) == reward(world.group, world.preferences)


def outlying_failure_is_nothing(reward: Reward, world: World) -> bool:
    """A failed run that was very dear and slow, and called whatever, changes nothing for the others."""
    runaway = Measures(
        solved=False, earned=False, calls={world.tool: 50}, chosen={world.tool: 50}, dollars=1e4, wall_seconds=1e5
    )
    group = [*world.group, replace(runaway, seconds=1e5)]
    return reward(group, world.preferences) == [*reward(world.group, world.preferences), 0.0]


def noise_is_nothing(reward: Reward, world: World) -> bool:
    """Where all runs cost the same and take as long, noise below the floor changes nothing."""
    dollars, seconds = (1.0 + amount for amount in world.extra)
    alike = [replace(run, dollars=dollars, seconds=seconds, wall_seconds=seconds) for run in world.group]
    noisy = [
        replace(
            run,
            dollars=dollars * (1 + 0.9 * COST_FLOOR * share),
            seconds=seconds * (1 + 0.9 * LATENCY_FLOOR * share),
            wall_seconds=seconds * (1 + 0.9 * LATENCY_FLOOR * share),
        )
        for run, share in ((run, n / len(alike)) for n, run in enumerate(alike))
    ]
    return reward(noisy, world.preferences) == reward(alike, world.preferences)


KEPT_BY_BOTH: list[Law] = [
    no_gain_by_cost,
    names_do_not_matter,
    failure_is_least,
    no_gain_by_avoided,  # the paper's holds it without knowing of it, see below
    no_weight_no_matter,
    units_do_not_matter,
]


def alike(**parts: Any) -> Measures:
    return Measures(**{"solved": True, "earned": True, "dollars": 1.0, "seconds": 60.0, "wall_seconds": 60.0} | parts)


def searched(times: int) -> Measures:
    return alike(calls={"search": times}, chosen={"search": times})


WISH = Preferences(accuracy=1, cost=0.4, latency=0.1, prefer={"search": 0.5})
BROKEN_BY_PAPER: dict[Law, World] = {
    no_gain_by_repeating: World([searched(1), searched(3), alike()], WISH, 0, "search", (0.0, 0.0)),
    no_gain_by_splitting: World([searched(1), searched(3), alike()], WISH, 0, "search", (0.0, 0.0)),
    outlying_failure_is_nothing: World([alike(), alike(dollars=2.0)], WISH, 0, "search", (0.0, 0.0)),
    noise_is_nothing: World([alike(), alike()], WISH, 0, "search", (1.0, 60.0)),
}
"""With a case each where it does."""

LAWS = [*KEPT_BY_BOTH, *BROKEN_BY_PAPER]
THOROUGH = settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@given(world=WORLDS)
@THOROUGH
def test_guarded_keeps(law: Law, world: World) -> None:
    assert law(guarded, world)


def test_every_reward_has_a_name_that_recipes_take() -> None:
    assert set(get_args(RewardName)) == set(REWARDS)


def rounded(group: Sequence[Measures], preferences: Preferences) -> list[float]:
    """`proportional` but for the last digits: a share of a mean is seldom exact."""
    return [round(reward, 9) for reward in proportional(group, preferences)]


@pytest.mark.parametrize("law", [law for law in LAWS if law is not noise_is_nothing], ids=lambda law: law.__name__)
@given(world=WORLDS)
@THOROUGH
def test_proportional_keeps(law: Law, world: World) -> None:
    assert law(rounded, world)


@given(world=WORLDS)
@THOROUGH
def test_proportional_counts_noise_as_little_as_it_is(world: World) -> None:
    group = [replace(run, dollars=1 + n / 1000, seconds=60 + n / 100) for n, run in enumerate(world.group)]
    alike = [replace(run, dollars=1.0, seconds=60.0) for run in world.group]
    pairs = zip(proportional(group, world.preferences), proportional(alike, world.preferences), strict=True)
    assert all(abs(noisy - even) < 0.002 for noisy, even in pairs)


@given(world=WORLDS)
@THOROUGH
def test_proportional_is_the_absolute_utility_against_the_mean_of_the_group(world: World) -> None:
    solved = [run for run in world.group if run.earned]
    if not solved or any(set(run.chosen) != set(run.calls) for run in world.group):
        return
    mean = Measures(
        solved=True,
        earned=True,
        dollars=statistics.fmean(run.dollars for run in solved),
        seconds=statistics.fmean(run.seconds for run in solved),
    )
    expected = [utility(run, mean, world.preferences) if run.earned else 0.0 for run in world.group]
    assert proportional(world.group, world.preferences) == pytest.approx(expected)


@pytest.mark.parametrize("law", KEPT_BY_BOTH, ids=lambda law: law.__name__)
@given(world=WORLDS)
@THOROUGH
def test_paper_keeps(law: Law, world: World) -> None:
    assert law(paper, world)


@pytest.mark.parametrize(("law", "world"), BROKEN_BY_PAPER.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_paper_breaks(law: Law, world: World) -> None:
    assert not law(paper, world)
    assert law(guarded, world)


@given(world=WORLDS)
@THOROUGH
def test_rewards_are_between_0_and_the_sum_of_the_weights(world: World) -> None:
    preferences = world.preferences
    most = math.fsum([preferences.accuracy, preferences.cost, preferences.latency, *preferences.prefer.values()])
    assert all(0 <= reward <= most for reward in paper(world.group, preferences))
    most += math.fsum(preferences.avoid.values())
    assert all(0 <= reward <= most + 1e-12 for reward in guarded(world.group, preferences))
    assert all(0 <= reward <= 1 + 1e-12 for reward in proportional(world.group, preferences))


def test_cents_and_minutes_are_as_good_as_dollars_and_seconds() -> None:
    group = [alike(dollars=0.04), alike(dollars=0.13, seconds=20.0, wall_seconds=20.0), alike(dollars=0.07)]
    other = [
        replace(run, dollars=run.dollars * 100, seconds=run.seconds / 60, wall_seconds=run.wall_seconds / 60)
        for run in group
    ]
    for reward in (paper, guarded):
        assert reward(other, Preferences()) == pytest.approx(reward(group, Preferences()))


@pytest.mark.parametrize("floor", [0.0, COST_FLOOR, LATENCY_FLOOR])
def test_no_group_of_up_to_four_runs_pays_one_of_them_for_costing_more(floor: float) -> None:
    """All groups of these amounts: ties, a run that overtakes others, ranges on both sides of a floor."""
    amounts = [0.0, 1.0, 1.0 + floor / 2, 1.0 + floor, 1.0 / (1 - floor), 1.2, 5.0]
    for n in range(1, 5):
        for group in itertools.combinations_with_replacement(amounts, n):
            for i, more in itertools.product(range(n), amounts):
                if more > group[i]:
                    dearer = (*group[:i], more, *group[i + 1 :])
                    before, after = (normalised([-amount for amount in g], floor=floor)[i] for g in (group, dearer))
                    assert after <= before, (group, i, more)


def test_paper_pays_each_further_call_of_a_preferred_tool() -> None:
    preferences = Preferences(prefer={"search": 1})
    group = [alike(chosen={"search": n}) for n in (1, 3, 50)]
    assert paper(group, preferences) == pytest.approx([0, 2 / 49, 1])
    assert guarded(group, preferences) == [1, 1, 1]


def test_paper_keeps_a_group_alive_by_noise() -> None:
    group = [alike(dollars=1.0), alike(dollars=1.005)]
    assert paper(group, Preferences(cost=1)) == [1, 0]
    assert guarded(group, Preferences(cost=1)) == [1, 1]


def test_paper_lets_a_failed_runaway_squeeze_the_others() -> None:
    group = [alike(dollars=1.0), alike(dollars=2.0), alike(dollars=1000.0, solved=False, earned=False)]
    preferences = Preferences(accuracy=1, cost=1, latency=0)
    cheap, dear, failed = paper(group, preferences)
    assert (cheap, failed) == (2, 0) and cheap - dear < 0.002
    assert guarded(group, preferences) == [2, 1, 0]


def test_in_paper_a_dear_success_ties_with_a_failure_where_accuracy_has_no_range() -> None:
    group = [alike(dollars=1.0), alike(dollars=2.0)]
    assert paper(group, Preferences(latency=0)) == [0.4, 0]
    assert guarded(group, Preferences(latency=0)) == [1.4, 1]


def test_avoidance_is_felt_by_guarded_only() -> None:
    preferences = Preferences(avoid={"large": 0.5})
    group = [alike(), alike(calls={"large": 1}, chosen={"large": 1})]
    assert paper(group, preferences) == [0, 0]
    assert guarded(group, preferences) == [1.5, 1]


def test_an_avoided_tool_that_others_called_was_called() -> None:
    group = [alike(), alike(calls={"large": 1})]
    assert guarded(group, Preferences(avoid={"large": 0.5})) == [1.5, 1]


def test_a_preferred_tool_that_others_called_earns_nothing() -> None:
    preferences = Preferences(prefer={"search": 0.5})
    group = [alike(chosen={"search": 1}, calls={"search": 1}), alike(calls={"search": 1})]
    assert guarded(group, preferences) == [1.5, 1]
    assert paper(group, preferences) == [0.5, 0]


@pytest.mark.parametrize("reward", [paper, guarded])
def test_a_tools_range_includes_the_runs_that_never_used_it(reward: Reward) -> None:
    """Else a tool used in one run only would have no range."""
    preferences = Preferences(accuracy=0, cost=0, latency=0, prefer={"search": 1})
    assert reward([alike(chosen={"search": 1}), alike()], preferences) == [1, 0]


@pytest.mark.parametrize("reward", [paper, guarded])
def test_cheaper_and_faster_runs_earn_more(reward: Reward) -> None:
    group = [alike(), alike(dollars=0.5), alike(seconds=30.0, wall_seconds=30.0)]
    both, cheap, fast = reward(group, Preferences(cost=0.4, latency=0.1))
    assert cheap - both == pytest.approx(0.4) and fast - both == pytest.approx(0.1)


def test_a_group_of_one_run_and_of_none() -> None:
    assert guarded([alike()], Preferences()) == [1]
    assert paper([alike()], Preferences()) == [0]
    assert guarded([], Preferences()) == paper([], Preferences()) == []


def test_latency_is_work_for_guarded_and_wall_clock_for_paper() -> None:
    group = [alike(wall_seconds=600.0), alike(seconds=600.0)]
    preferences = Preferences(accuracy=0, cost=0, latency=1)
    assert guarded(group, preferences) == [1, 0]
    assert paper(group, preferences) == [0, 1]
