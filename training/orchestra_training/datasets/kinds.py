"""The examples of each kind of data set, one at a time, from runs that are read once or twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean
from typing import Any, Final

import orjson

from orchestra_graph.catalog import Catalog
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.runlog.record import Capture, Trajectory
from orchestra_graph.turns import Turn
from orchestra_training.datasets.selection import Selection
from orchestra_training.exploration import explores
from orchestra_training.filters import (
    LEAST_SPREAD,
    Fault,
    FilterReport,
    homogeneous,
    invalid_output,
    unjudged,
    unreached,
)
from orchestra_training.groups import Group, Reward, collect, example_id, group_id
from orchestra_training.reward.advantage import advantages
from orchestra_training.reward.measures import Measures, measure
from orchestra_training.rows import policy_tokens, requests_of, rows_of

Example = dict[str, Any]
Runs = Iterable[Trajectory]
"""Can be read again and again, like a `Logs`."""

NOT_TRAINED: Final = -100
"""The label of tokens that are only read, as PyTorch's cross entropy has it."""


def sft(
    runs: Runs, selection: Selection, *, reward: Reward, best: int | None = 1, max_dollars: float = inf
) -> Iterator[Example]:
    """Rows of runs that their policy solved.

    Args:
        runs: Judged.
        selection: Which of them, and with which tokens.
        reward: Orders the runs of one example.
        best: How many of each example, the best first; None takes all.
        max_dollars: What a run may have cost.

    Yields:
        `input_ids` and `labels` of equal length, `run_id`, `turns`.
    """
    passes = selection.reports.chosen.passes
    chosen: set[str] = set()
    for group in _groups(runs, selection, example_id):
        faults = _not_followed(group, group.rewards(reward), best, max_dollars)
        chosen |= {id for id, fault in zip(group.run_ids, faults, strict=True) if passes(id, fault)}
    for run in selection.with_tokens(runs, chosen):
        for row in rows_of(run, report=selection.reports.turns):
            masked = zip(row.completion_ids, row.mask, strict=True)
            yield {
                "input_ids": row.prompt_ids + row.completion_ids,
                "labels": [NOT_TRAINED] * len(row.prompt_ids) + [id if ours else NOT_TRAINED for id, ours in masked],
                "run_id": row.run_id,
                "turns": list(row.turns),
            }


def dpo(
    runs: Runs, selection: Selection, *, reward: Reward, floor: float = LEAST_SPREAD, margin: float = LEAST_SPREAD
) -> Iterator[Example]:
    """Two decisions after the very same tokens, the better against each that is worse.

    Runs of one example share a prefix as long as they decided alike and were told the same. Where they part, a decision
    is worth the mean reward of the runs that went its way.

    Args:
        runs: Judged, several of each example.
        selection: Which of them, and with which tokens.
        reward: Of the runs of one example.
        floor: Least spread of rewards of an example that stays.
        margin: By how much the better one has to be better, in rewards.

    Yields:
        `prompt_ids`, `chosen_ids`, `rejected_ids`, with the mean reward and one run of each side.
    """
    earned, left = _compared(_groups(runs, selection, example_id), selection, reward, floor)
    forks: dict[str, _Forks] = {}
    for run in selection.with_tokens(runs, earned):
        id = example_id(run)
        fork = forks.setdefault(id, _Forks())
        for turn, capture in requests_of(run, report=selection.reports.turns):
            fork.add(turn, capture, earned[run.run_id], run.run_id)
        left[id] -= 1
        if not left[id]:  # the last run of the example: its tokens need not be held any longer
            yield from forks.pop(id).pairs(margin)


def kto(runs: Runs, selection: Selection) -> Iterator[Example]:
    """Single replies, each good or bad as its run was.

    Args:
        runs: Judged, by a program, a model or a person's feedback.
        selection: Which of them, and with which tokens.

    Yields:
        `prompt_ids`, `completion_ids`, `label`, `run_id`, `turn`.
    """
    reports = selection.reports
    for run in selection.admitted(runs):
        if not reports.runs.passes(run.run_id, unjudged(run) or unreached(run)):
            continue
        found = measure(run)
        fault = Fault("other_choice", "answer", "solved by a turn that the policy did not choose")
        if not reports.chosen.passes(run.run_id, fault if found.solved and not found.earned else None):
            continue
        for turn, capture in requests_of(selection.tokens_of(run), report=reports.turns):
            yield {
                "prompt_ids": capture.prompt_token_ids,
                "completion_ids": capture.token_ids,
                "label": found.earned,
                "run_id": run.run_id,
                "turn": turn["id"],
            }


def grpo(runs: Runs, selection: Selection) -> Iterator[Example]:
    """The tasks that were run, each example once, with how often it was run and solved.

    Args:
        runs: Of any fidelity.
        selection: Which of them.

    Yields:
        `prompt` as messages, `task_id`, `question`; `preferences`, `budget` and `catalog` as JSON, the catalog with the
        tools only; `runs`, `judged`, `solved`.
    """
    found: dict[str, Example] = {}
    for run in selection.admitted(runs):
        for report in (selection.reports.runs, selection.reports.chosen):
            report.passes(run.run_id, None)
        example = found.setdefault(example_id(run), _task(run))
        example["runs"] += 1
        if unjudged(run) is None:
            example["judged"] += 1
            example["solved"] += measure(run).solved
    yield from found.values()


def replay(runs: Runs, selection: Selection, *, reward: Reward, floor: float = LEAST_SPREAD) -> Iterator[Example]:
    """Exact rows with what their runs earned, for training on what was sampled before.

    Groups whose runs earn about the same are left out, and runs without a valid answer, which count in the mean of
    theirs: what a step online would not learn from.

    Args:
        runs: Judged, of fidelity `exact`.
        selection: Which of them.
        reward: Of the runs of one group.
        floor: Least spread of rewards of a group that stays.

    Yields:
        `prompt_ids`, `completion_ids`, `mask`, `logprobs`; `reward`, `advantage` and `policy_tokens` of the whole run;
        `run_id`, `group`, `step`, `turns`. A trainer gives the row the advantage `advantage / policy_tokens`, see
        `orchestra_training.rows`.
    """
    groups = collect(_drawn(runs, selection), selection.reports.runs, evaluate=selection.evaluate, key=group_id)
    earned, _ = _compared(groups, selection, reward, floor)
    relative = {
        id: value
        for group in groups
        if group.run_ids[0] in earned
        for id, value in zip(group.run_ids, advantages([earned[id] for id in group.run_ids]), strict=True)
    }
    turns = selection.reports.turns
    for run in selection.with_tokens(_answered(runs, earned, turns), earned):
        rows = rows_of(run, report=turns)
        tokens = policy_tokens(rows)
        for row in rows:
            yield {
                "prompt_ids": row.prompt_ids,
                "completion_ids": row.completion_ids,
                "mask": row.mask,
                "logprobs": row.logprobs,
                "reward": earned[run.run_id],
                "advantage": relative[run.run_id],
                "policy_tokens": tokens[run.run_id],
                "run_id": run.run_id,
                "group": group_id(run),
                "step": None if run.policy is None else run.policy.step,
                "turns": list(row.turns),
            }


def _drawn(runs: Runs, selection: Selection) -> Iterator[Trajectory]:
    """Admitted runs without explorers, which are noted: the policy did not draw what they wrote."""
    for run in selection.admitted(runs):
        fault = Fault("explored", "explorer", "a word that the policy did not draw") if explores(run) else None
        if fault is None or selection.reports.runs.passes(run.run_id, fault):
            yield run


def _answered(runs: Runs, chosen: Container[str], report: FilterReport) -> Iterator[Trajectory]:
    """Runs, without those of the chosen ones that have no valid answer, which are noted."""
    for run in runs:
        fault = invalid_output(run) if run.run_id in chosen else None
        # The report counts turns: a run that stays is none.
        if fault is None or report.passes(run.run_id, fault):
            yield run


def _groups(runs: Runs, selection: Selection, key: Callable[[Trajectory], str]) -> list[Group]:
    return collect(selection.admitted(runs), selection.reports.runs, evaluate=selection.evaluate, key=key)


def _not_followed(group: Group, rewards: Sequence[float], best: int | None, max_dollars: float) -> list[Fault | None]:
    """Why each run of a group is no example to follow; None for the best of those that are."""
    faults = [_unfit(run, max_dollars) for run in group.measures]
    fit = [n for n, fault in enumerate(faults) if fault is None]
    fit.sort(key=lambda n: (-rewards[n], group.measures[n].dollars, group.run_ids[n]))
    for n in [] if best is None else fit[best:]:
        faults[n] = Fault("not_chosen", "worse", f"expected the best of its example, up to {best}")
    return faults


def _unfit(run: Measures, max_dollars: float) -> Fault | None:
    """Why a run is no example to follow, whatever the others are."""
    if not run.earned:
        kind = "other_answer" if run.solved else "unsolved"
        return Fault("not_chosen", kind, "expected a run that its policy solved")
    if run.dollars > max_dollars:
        return Fault("not_chosen", "price", f"{run.dollars:g} dollars; expected at most {max_dollars:g}")
    return None


def _compared(
    groups: Sequence[Group], selection: Selection, reward: Reward, floor: float
) -> tuple[dict[str, float], Counter[str]]:
    """Rewards by run, and numbers of runs by group, of the groups that teach something."""
    earned: dict[str, float] = {}
    sizes: Counter[str] = Counter()
    for group in groups:
        rewards = group.rewards(reward)
        fault = homogeneous(rewards, group.earned, floor=floor)
        for run_id, value in zip(group.run_ids, rewards, strict=True):
            if selection.reports.chosen.passes(run_id, fault):
                earned[run_id] = value
                sizes[group.id] += 1
    return earned, sizes


@dataclass(slots=True)
class _Way:
    """One decision after a prefix, and what came of it."""

    replies: list[tuple[float, list[int], str]] = field(default_factory=list)
    """Reward, ids and run."""

    @property
    def worth(self) -> float:
        return fmean(earned for earned, *_ in self.replies)


@dataclass(slots=True)
class _Forks:
    """The decisions of one example's runs, by what was read for them."""

    ways: dict[tuple[int, ...], dict[Any, _Way]] = field(default_factory=dict)

    def add(self, turn: Turn, capture: Capture, earned: float, run_id: str) -> None:
        ways = self.ways.setdefault(tuple(capture.prompt_token_ids), {})
        ways.setdefault(_decided(turn, capture), _Way()).replies.append((earned, capture.token_ids, run_id))

    def pairs(self, margin: float) -> Iterator[Example]:
        for prompt, ways in self.ways.items():
            best, *others = sorted(ways.values(), key=lambda way: -way.worth)
            _, chosen, chosen_run = max(best.replies, key=lambda reply: reply[0])
            for way in others:
                if best.worth > way.worth and best.worth - way.worth >= margin:
                    _, rejected, rejected_run = min(way.replies, key=lambda reply: reply[0])
                    yield {
                        "prompt_ids": list(prompt),
                        "chosen_ids": chosen,
                        "rejected_ids": rejected,
                        "chosen_reward": best.worth,
                        "rejected_reward": way.worth,
                        "chosen_run": chosen_run,
                        "rejected_run": rejected_run,
                    }


def _decided(turn: Turn, capture: Capture) -> Any:
    """What tells a reply from others: its calls, however they are worded, or a part of a decision word by word."""
    if len(turn.get("captures", ())) > 1:
        return tuple(capture.token_ids)
    calls = [[call["tool"], call["args"]] for call in turn["decision"]["calls"]]
    return json.dumps(calls, sort_keys=True)  # integers of any size, as a run log has them


def _task(run: Trajectory) -> Example:
    return {
        "prompt": [{"role": "user", "content": run.task.question}],
        "task_id": run.task.id,
        "question": run.task.question,
        "preferences": _json(run.preferences.json_data),
        "budget": _json(run.budget.json_data),
        "catalog": None if run.catalog is None else _json(_tools(run.catalog).json_data),
        "runs": 0,
        "judged": 0,
        "solved": 0,
    }


def _tools(catalog: Catalog) -> Catalog:
    """The lines of a catalog that somebody else's router can be given: those of tools, and not what the graph adds."""
    return Catalog(tools={name: spec for name, spec in catalog.tools.items() if name != FINAL_ANSWER})


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
