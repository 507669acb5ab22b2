"""What a line of the run log holds: header, turns and verdict of one run, as pydantic models for reading.

Writers hand plain dictionaries to `RunLog.finish`; these models are the contract they are read by. What serving does
not know (group, split, weights) is optional. Unknown fields are kept, so that a log written by a later release of the
same format version still reads.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from orchestra_graph.catalog import Catalog
from orchestra_graph.ledger import LedgerTotals
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.runlog.encoding import TRAJECTORY_VERSION
from orchestra_graph.turns import Purpose, StoppedBy, Turn

Ended = Literal["answered", "failed", "abandoned"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Task(_Record):
    """What the run was asked."""

    question: str
    id: str | None = None
    """Name of the task in its data set."""


class Policy(_Record):
    """The router that decided."""

    name: str
    weights_hash: str | None = None
    step: int | None = None
    """Training step of the weights."""


class Capture(_Record):
    """The tokens of one reply of the router, as its server read and wrote them: `orchestra_graph.captures.Capture`."""

    id: str
    turn: str
    """Id of the turn."""
    prompt_token_ids: list[int] = Field(default_factory=list)
    token_ids: list[int] = Field(default_factory=list)
    """What the router wrote."""
    logprobs: list[float] | None = None
    """Natural logarithms of the probabilities of `token_ids`, one each."""


class Verdict(_Record):
    """Whether the task was solved, and who says so."""

    outcome: float | None
    """From 0, not solved, to 1, solved; None when it was not judged."""
    by: str


def _unlimited(value: Any) -> Any:
    """JSON has no infinity: null in a budget means no limit."""
    if isinstance(value, dict):
        return {key: math.inf if limit is None else limit for key, limit in value.items()}
    return value


LoggedBudget = Annotated[Budget, BeforeValidator(_unlimited)]
"""A budget as logs hold it."""


class Trajectory(_Record):
    """One run."""

    version: Literal[1] = TRAJECTORY_VERSION
    run_id: str

    task: Task
    group_id: str | None = None
    """Rollouts of one task that are compared with each other share it."""
    rollout: int | None = None
    """Position in the group, counted from 0."""
    split: str | None = None
    purpose: Purpose = "serve"
    seeds: dict[str, int] = Field(default_factory=dict)

    protocol: str | None = None
    catalog: Catalog | None = None
    """As the run saw it, with its prices."""
    catalog_hash: str | None = None
    preferences: Preferences = Preferences()
    budget: LoggedBudget = Budget()

    policy: Policy | None = None
    tokenizer: str | None = None
    template_hash: str | None = None
    """SHA-256 of the chat template."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Sampling parameters, under the names of the router's server."""
    constraint: str | None = None
    """How the reply was constrained, for example `required`: logprobs are then those of a masked distribution."""
    logprobs_mode: str | None = None
    """As vLLM names it: `processed_logprobs` or `raw_logprobs`."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of packages."""
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None

    turns: list[Turn] = Field(default_factory=list)
    captures: dict[str, Capture] = Field(default_factory=dict)
    """By the ids that turns name in `captures`."""
    answer: str | None = None
    stopped_by: StoppedBy | None = None
    runs: dict[str, Trajectory] = Field(default_factory=dict)
    """Runs of orchestrators that were nested in its calls, at any depth, by id; their `parent` is the call."""
    parent: str | None = None
    """The call of another run in which this one ran; its dollars are in the totals of that run, too."""
    ended: Ended
    error: str | None = None
    """Why a failed run failed."""
    totals: LedgerTotals | None = None
    verdict: Verdict | None = None
