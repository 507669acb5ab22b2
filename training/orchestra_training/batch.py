"""From judged runs to what a policy gradient step takes: rows with the share of the loss that each of their tokens has.

The same for rollouts and for logged runs. Three filters of the paper leave out groups whose runs earn about the same,
turns that are no well-formed call, and runs without a valid answer; the last still count in their group's mean. Runs
that nobody judged, broken rollouts among them, count nowhere.

Every trajectory weighs the same, see `orchestra_training.rows`: a row's weight is `A / tokens of its trajectory`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, Literal

from orchestra_graph.runlog.record import Trajectory
from orchestra_training.exploration import EXPLORES, explores
from orchestra_training.filters import LEAST_SPREAD, Fault, FilterReport, homogeneous, invalid_output
from orchestra_training.groups import Group, Reward, collect
from orchestra_training.reward import advantages, guarded
from orchestra_training.rows import Row, policy_tokens, rows_of

LEAST_GAIN: Final = 0.02
"""How much more than the policy an explorer must earn: seconds are never quite the same. What the policy replied where
nobody explored weighs as much."""

_Own = dict[tuple[int, ...], tuple[Row, list[float]]]
"""By prompt, the policy's first reply to it, and what the runs earned that replied so."""

_DIGITS: Final = 2
"""Behind the point, in which logprobs of the same tokens and weights agree but for the edges of rounding."""


@dataclass(frozen=True, slots=True)
class WeighedRow:
    """A row and what each of its policy tokens weighs in the loss."""

    row: Row
    weight: float
    """Advantage over the policy tokens of the trajectory."""


@dataclass(slots=True)
class Batch:
    """What one step learns from."""

    rows: list[WeighedRow] = field(default_factory=list)
    trajectories: int = 0
    """That have rows: the loss is the mean over them."""
    groups: list[Group] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)
    """Of each group, the dropped ones among them."""
    explored: int = 0
    """Groups of which an explorer did better."""
    report: FilterReport = field(default_factory=FilterReport)
    """Runs in no group, groups, runs and turns that were left out."""

    @property
    def filtered_share(self) -> float:
        """Share of the groups that the homogeneity filter left out; 1 without groups."""
        return self.dropped["homogeneous"] / len(self.groups) if self.groups else 1.0

    @property
    def dropped(self) -> Counter[str]:
        """How many things each filter left out."""
        return Counter(dropped.fault.filter for dropped in self.report.dropped)


def make_batch(
    runs: Sequence[Trajectory],
    *,
    reward: Reward = guarded,
    scale_rewards: Literal["group", "none"] = "group",
    floor: float = LEAST_SPREAD,
) -> Batch:
    """Score, filter and weigh runs.

    Args:
        runs: Judged runs with captures; sorted into groups by what they have in common. Explorers are passed over: the
            policy did not draw what they wrote.
        reward: What a run earns within its group.
        scale_rewards: As for `orchestra_training.reward.advantages`.
        floor: Least spread of rewards of a group that stays.
    """
    batch, by_id = _scored([run for run in runs if not explores(run)], reward)
    for group, rewards in zip(batch.groups, batch.rewards, strict=True):
        if not batch.report.passes(group.id, homogeneous(rewards, group.earned, floor=floor)):
            continue
        for run_id, advantage in zip(group.run_ids, advantages(rewards, scale_rewards=scale_rewards), strict=True):
            if batch.report.passes(run_id, invalid_output(by_id[run_id])):
                _add(batch, by_id[run_id], advantage)
    return batch


def _scored(runs: Sequence[Trajectory], reward: Reward) -> tuple[Batch, dict[str, Trajectory]]:
    """A batch with its groups and what their runs earn, and the runs by id."""
    batch = Batch()
    batch.groups = collect(runs, batch.report)
    batch.rewards = [group.rewards(reward) for group in batch.groups]
    return batch, {run.run_id: run for run in runs}


def _add(batch: Batch, run: Trajectory, advantage: float) -> None:
    rows = rows_of(run, report=batch.report)
    if any(row.logprobs is None for row in rows):
        detail = "a reply has no logprobs; expected one a token: ask the server with logprobs"
        batch.report.passes(run.run_id, Fault("without_tokens", "no_logprobs", detail))
        return
    tokens = policy_tokens(rows)[run.run_id]
    if tokens:
        batch.trajectories += 1
        batch.rows += [WeighedRow(row, advantage / tokens) for row in rows]


def make_best(runs: Sequence[Trajectory], *, reward: Reward = guarded) -> Batch:
    """The best run of each group that solved its task, for learning by imitation: each weighs 1.

    Args:
        runs: As for `make_batch`.
        reward: By which the best is chosen; of equal ones the first.
    """
    batch, by_id = _scored([run for run in runs if not explores(run)], reward)
    for group, rewards in zip(batch.groups, batch.rewards, strict=True):
        solved = [n for n, earned in enumerate(group.earned) if earned]
        fault = None if solved else Fault("homogeneous", "all_failed", "no run of the group earned its outcome")
        if batch.report.passes(group.id, fault):
            _add(batch, by_id[group.run_ids[max(solved, key=rewards.__getitem__)]], 1.0)
    return batch


def make_explored(runs: Sequence[Trajectory], *, reward: Reward = guarded) -> Batch:
    """Where one explored, the explorer's reply or the policy's, the better one; it weighs by how much it is better.

    So a reply comes to be likelier than another one where it earns more in the mean, whatever its probability was:
    classification with costs, as in learning to search (LOLS, arXiv 1502.02206). A gain of at most `LEAST_GAIN` is
    none, and the policy's other replies weigh as much, that they stay as they are. The loss is the mean over groups of
    the sum over their tokens.

    Args:
        runs: As for `make_batch`, with explorers; of these, those that met the same prompt as the policy.
        reward: What a run earns among all those of its group.
    """
    batch, by_id = _scored(runs, reward)
    for group, rewards in zip(batch.groups, batch.rewards, strict=True):
        members = [(by_id[id], earned) for id, earned in zip(group.run_ids, rewards, strict=True)]
        own = _own_replies([one for one in members if not explores(one[0])])
        rows = {prompt: WeighedRow(row, LEAST_GAIN) for prompt, (row, _) in own.items()}
        gains = list(_gains(members, own))
        for tried, usual, gain in gains:
            learnt = tried if gain > LEAST_GAIN else usual
            rows[tuple(usual.prompt_ids)] = WeighedRow(learnt, max(abs(gain), LEAST_GAIN))
        batch.explored += any(gain > LEAST_GAIN for *_, gain in gains)
        batch.trajectories += bool(rows)
        batch.rows += rows.values()
    return batch


def _gains(members: Sequence[tuple[Trajectory, float]], own: _Own) -> Iterator[tuple[Row, Row, float]]:
    """What an explorer tried, what the policy replied to the same prompt, and what the explorer earned more."""
    for run, earned in members:
        if explores(run) and (tried := _explored(run)) is not None and (prompt := tuple(tried.prompt_ids)) in own:
            usual, worth = own[prompt]
            if tried.completion_ids != usual.completion_ids:
                yield tried, usual, earned - fmean(worth)


def _own_replies(drawn: Sequence[tuple[Trajectory, float]]) -> _Own:
    found: _Own = {}
    for run, earned in drawn:
        for row in _replies(run):
            first, worth = found.setdefault(tuple(row.prompt_ids), (row, []))
            if row.completion_ids == first.completion_ids:
                worth.append(earned)
    return found


def _explored(run: Trajectory) -> Row | None:
    """What an explorer wrote in the place of the policy; None where its run ended before."""
    replies, place = _replies(run), (run.task.model_extra or {})[EXPLORES]
    return replies[place] if place < len(replies) else None


def _replies(run: Trajectory) -> list[Row]:
    """All replies of a run in order, each as a row of its own."""
    replies = [(turn["id"], run.captures[name]) for turn in run.turns for name in turn.get("captures", ())]
    return [
        Row(run.run_id, (turn,), one.prompt_token_ids, one.token_ids, [1] * len(one.token_ids), one.logprobs)
        for turn, one in replies
    ]


def merged(rows: Sequence[WeighedRow]) -> list[WeighedRow]:
    """Rows with the same tokens as one, with the sum of their weights: the runs of a group decide much alike.

    The clipped surrogate (4) of one row is in proportion to its weight, by its sign; so the loss stays the same, and
    rows whose weights differ in sign stay apart, and those that other weights of the policy sampled. Of logprobs that
    differ by rounding only, the first stand.
    """
    found: dict[tuple[object, ...], WeighedRow] = {}
    for one in rows:
        row = one.row
        old = tuple(round(logprob, _DIGITS) for logprob in row.logprobs or ())
        key = (tuple(row.prompt_ids), tuple(row.completion_ids), tuple(row.mask), one.weight > 0, old)
        first = found.get(key)
        found[key] = one if first is None else WeighedRow(first.row, first.weight + one.weight)
    return list(found.values())
