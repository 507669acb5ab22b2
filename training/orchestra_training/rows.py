"""From a trajectory to training rows: the very tokens that the policy read and wrote, for every protocol.

Requests that only append to what was read and written before fold into one row; a prompt that was written anew begins
another one. So a chat is one row, and a protocol that rebuilds its prompt gives one row a request:

    report = FilterReport()
    rows = [row for run in runs for row in rows_of(run, report=report)]
    tokens = policy_tokens(rows)

Every trajectory weighs the same however many rows and turns it has: give each of its rows the advantage
`A / tokens[row.run_id]` under TRL's `loss_type="dapo"` with `num_items_in_batch = len(tokens)` and `beta = 0`. The loss
is then the mean over trajectories of the mean over their tokens, which folding does not change.

Nothing is tokenised here. Left out: trajectories without token ids, see `orchestra_training.render`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestra_graph.runlog.record import Capture, Trajectory
from orchestra_graph.turns import Turn
from orchestra_training.filters import TURN_FILTERS, Fault, FilterReport, TurnFilter, keep_turns


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens that a policy is trained on, and what it read before them."""

    run_id: str
    """The run whose reward it earns; rows of a run nested in it bear that of the run around."""
    turns: tuple[str, ...]
    """Ids of the turns whose tokens are trained, in order."""
    prompt_ids: list[int]
    """Read before the first token that is trained."""
    completion_ids: list[int]
    """What follows, to the last token that is trained; in folded rows what was read between them as well."""
    mask: list[int]
    """One for each of `completion_ids`: 1 for the policy's own tokens that are trained, 0 for others."""
    logprobs: list[float] | None
    """Of `completion_ids`, as natural logarithms; 0.0 where the mask is 0. None where the server gave none."""


def rows_of(
    run: Trajectory, *, filters: Sequence[TurnFilter] = TURN_FILTERS, report: FilterReport | None = None
) -> list[Row]:
    """The rows of a run, in the order of its turns, and after them those of runs nested in it that its policy decided.

    A turn that is filtered out trains nothing; where later turns read it, it stands in their rows with mask 0.

    Args:
        run: A trajectory with captures.
        filters: Turns that are left out of training.
        report: Notes the turns that are trained and those that are not, and nested runs of other policies.
    """
    report = FilterReport() if report is None else report
    runs = [run, *_same_policy(run, report)]
    return [row for own in runs for row in _folded(_requests(own, filters, report), run.run_id)]


def requests_of(
    run: Trajectory, *, filters: Sequence[TurnFilter] = TURN_FILTERS, report: FilterReport | None = None
) -> Iterator[tuple[Turn, Capture]]:
    """The single requests that `rows_of` folds, each with its turn: what was read for one reply, and the reply.

    Args:
        run: As for `rows_of`.
        filters: As for `rows_of`.
        report: As for `rows_of`.
    """
    report = FilterReport() if report is None else report
    for own in [run, *_same_policy(run, report)]:
        yield from _requests(own, filters, report)


def policy_tokens(rows: Iterable[Row]) -> Counter[str]:
    """How many tokens each trajectory trains, by run id; a row's weight within its trajectory is one over it."""
    tokens: Counter[str] = Counter()
    for row in rows:
        tokens[row.run_id] += sum(row.mask)
    return tokens


def _same_policy(run: Trajectory, report: FilterReport) -> list[Trajectory]:
    """The runs nested in a run that its policy decided; the others are noted."""
    found = []
    for nested in run.runs.values():
        fault = _other_policy(nested, run)
        if fault is None:
            found.append(nested)
        else:
            report.passes(nested.run_id, fault)
    return found


def _requests(run: Trajectory, filters: Sequence[TurnFilter], report: FilterReport) -> Iterator[tuple[Turn, Capture]]:
    for turn in keep_turns(run, report, [*filters, lambda turn: _without_tokens(turn, run.captures)]):
        for name in turn["captures"]:
            yield turn, run.captures[name]


def _folded(requests: Iterable[tuple[Turn, Capture]], run_id: str) -> Iterator[Row]:
    row: _Open | None = None
    for turn, capture in requests:
        if row is None or not row.continues_in(capture):
            if row is not None:
                yield row.closed(run_id)
            row = _Open(capture.prompt_token_ids)
        row.append(turn["id"], capture)
    if row is not None:
        yield row.closed(run_id)


class _Open:
    """A row that may go on."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._read = len(prompt)
        self._ids = list(prompt)
        self._mask: list[int] = []
        self._logprobs: list[float] | None = []
        self._turns: dict[str, None] = {}

    def continues_in(self, capture: Capture) -> bool:
        """Whether what was read for the next reply begins with all that stands here."""
        return capture.prompt_token_ids[: len(self._ids)] == self._ids

    def append(self, turn: str, capture: Capture) -> None:
        """Add what was read since, and the reply."""
        between = capture.prompt_token_ids[len(self._ids) :]
        self._ids += [*between, *capture.token_ids]
        self._mask += [0] * len(between) + [1] * len(capture.token_ids)
        if self._logprobs is not None and capture.logprobs is not None:
            self._logprobs += [0.0] * len(between) + capture.logprobs
        else:
            self._logprobs = None
        self._turns[turn] = None

    def closed(self, run_id: str) -> Row:
        """The row as it stands."""
        return Row(
            run_id, tuple(self._turns), self._ids[: self._read], self._ids[self._read :], self._mask, self._logprobs
        )


def _without_tokens(turn: Turn, captures: Mapping[str, Capture]) -> Fault | None:
    """Turns whose tokens are not known, or not all of them."""
    names = turn.get("captures", [])
    if not names:
        return Fault("without_tokens", "no_capture", "the turn names no capture; expected one of a ChatVLLM router")
    for name in names:
        fault = _unusable(name, captures.get(name))
        if fault is not None:
            return fault
    return None


def _unusable(name: str, capture: Capture | None) -> Fault | None:
    if capture is None:
        return Fault("without_tokens", "lost", f"capture {name} is not in the log")
    if not capture.prompt_token_ids or not capture.token_ids:
        read, written = len(capture.prompt_token_ids), len(capture.token_ids)
        detail = f"capture {name} has {read} prompt and {written} completion ids; expected some of both"
        return Fault("without_tokens", "no_ids", f"{detail}: ask the server with return_token_ids")
    if capture.logprobs is not None and len(capture.logprobs) != len(capture.token_ids):
        told = f"capture {name} has {len(capture.logprobs)} logprobs for {len(capture.token_ids)} ids"
        return Fault("without_tokens", "logprobs", f"{told}; expected one each")
    return None


def _other_policy(nested: Trajectory, run: Trajectory) -> Fault | None:
    """Nested runs that another policy decided, or nobody knows which."""
    if run.policy is not None and nested.policy == run.policy:
        return None
    names = ["not stated" if policy is None else policy.name for policy in (nested.policy, run.policy)]
    return Fault("other_policy", "nested", f"policy = {names[0]}; expected that of the run around, {names[1]}")
