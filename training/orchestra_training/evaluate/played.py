"""What a run of an evaluation comes to: the few numbers that tables are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.report.summary import priciest_tool
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.state import is_malformed
from orchestra_training.evaluate.examples import Example
from orchestra_training.evaluate.score import Reference, score, utility
from orchestra_training.reward.measures import measure

PURPOSE: Final = "evaluate"


class Key(NamedTuple):
    """What makes a run of an evaluation the one it is."""

    router: str
    member: int
    condition: str
    seed: int
    place: int
    """Of the example in its set."""


@dataclass(frozen=True, slots=True)
class Played:
    """One run."""

    key: Key
    unit: int
    kind: str
    run_id: str | None
    """None for a run whose router failed."""
    solved: bool
    dollars: float = 0.0
    seconds: float = 0.0
    """Wall-clock seconds from question to answer, modelled ones among them."""
    turns: int = 0
    decisions: int = 0
    """Turns that the router decided."""
    malformed: int = 0
    """Those of them without a call that could be executed."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """Calls by expert, whatever its name in the catalog; the router's own answer is none."""
    priciest: int = 0
    """Calls to the tool that costs most in the run's own catalog."""
    places: Mapping[int, int] = field(default_factory=dict)
    """Calls by place in the catalog, counted from 1: a router that reads it has no favourite place."""
    wished: bool | None = None
    """Whether a tool was called that the wish is about, to be preferred or to be avoided; None without such a wish."""
    score: float | None = None
    """(6), where there is a reference."""
    utility: float | None = None
    error: str | None = None
    """Why its router failed, or why it has no verdict."""


def about(key: Key, example: Example, *, split: str | None, identity: str) -> dict[str, Any]:
    """What the run log says of a run's task."""
    return {
        "id": example.task_id,
        "group_id": f"{key.condition}/{key.seed}/{key.place}",
        "rollout": key.member,
        "split": split,
        "purpose": PURPOSE,
        "seeds": {"set": key.seed},
        "router": key.router,
        "condition": key.condition,
        "index": key.place,
        "kind": example.kind,
        "decided_by": identity,
        "judged_by": example.judged_by,
    }


def key_of(run: Trajectory) -> Key | None:
    """The key of a logged run; None where it is of no evaluation."""
    known = run.task.model_extra or {}
    fields = (known.get("router"), run.rollout, known.get("condition"), run.seeds.get("set"), known.get("index"))
    if run.purpose != PURPOSE or None in fields:
        return None
    return Key(*fields)  # type: ignore[arg-type]  # none is None


def decided_by(run: Trajectory, identity: str) -> bool:
    """Whether this policy decided a logged run; one that does not say is believed."""
    return bool((run.task.model_extra or {}).get("decided_by", identity) == identity)


def judged_by(run: Trajectory, example: Example) -> bool:
    """Whether a logged run was judged by the example's right answer; one that does not say is believed."""
    return (run.task.model_extra or {}).get("judged_by") in (None, example.judged_by)


def played(key: Key, example: Example, run: Trajectory, reference: Reference | None) -> Played:
    """Sum up a judged run.

    Args:
        key: Which run of the evaluation it is.
        example: What it was given.
        run: As the log has it.
        reference: M_0 of each example.

    Raises:
        ConfigError: It was not judged, or the reference lacks its example.
    """
    measured = measure(run)
    names = list(example.catalog.tools)
    calls: Counter[str] = Counter()
    for tool, count in measured.calls.items():
        if tool != FINAL_ANSWER:
            calls[example.expert(tool)] += count
    wishes = (*example.preferences.prefer, *example.preferences.avoid)
    own = [turn for turn in run.turns if turn["decision"]["by"] == "router"]
    known = None if reference is None else reference.of(run)
    return Played(
        key=key,
        unit=example.unit,
        kind=example.kind,
        run_id=run.run_id,
        solved=measured.solved,
        dollars=measured.dollars,
        seconds=measured.wall_seconds,
        turns=len(run.turns),
        decisions=len(own),
        malformed=sum(map(is_malformed, own)),
        calls=dict(calls),
        priciest=measured.calls.get(priciest_tool(example.catalog), 0),
        places={names.index(tool) + 1: count for tool, count in measured.calls.items() if tool in names},
        wished=any(name in measured.calls for name in wishes) if wishes else None,
        score=None if known is None else score(measured, known, example.preferences),
        utility=None if known is None else utility(measured, known, example.preferences),
    )
