"""From a trace to trajectories: what `orchestra_graph.tracing` left on the runs of LangSmith.

Turns are put together from the runs of the router and of the calls: decisions, outcomes, charges, seconds. Their order
is that of their numbers, not of clocks. A `create_agent` agent that has ended has its turns in its output; of one that
broke off the trace has parts of them only, and gives nothing.

What a trace does not hold: the catalog (its hash is there), tokens, artifacts, errors of single attempts, and the
middle of long texts. A question that was cut is of no use; other texts that were cut are noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestra_graph.ledger import LedgerTotals, totals
from orchestra_graph.protocols.base import AGENT_STEP
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.spans import is_cut
from orchestra_graph.state import agent_answer, header_of
from orchestra_graph.turns import Turn


class TraceRun(BaseModel):
    """One run of a trace, as any of LangSmith's interfaces gives it."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    id: str
    dotted_order: str
    trace_id: str
    start_time: datetime | None = None
    end_time: datetime | None = None
    error: str | None = None
    outputs: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)

    @field_validator("outputs", "metadata", "tags", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any, info: Any) -> Any:
        return ([] if info.field_name == "tags" else {}) if value is None else value

    @field_validator("start_time", "end_time")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)


class Unusable(NamedTuple):
    """A run of ours in a trace that gives no trajectory."""

    run_id: str
    kind: str
    reason: str


@dataclass(slots=True)
class _Parts:
    """What a trace holds of one of our runs."""

    graph: TraceRun | None = None
    turns: dict[int, TraceRun] = field(default_factory=dict)
    calls: dict[str, TraceRun] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where in the trace it is."""
        known = [run for run in (self.graph, *self.turns.values(), *self.calls.values()) if run is not None]
        return min(run.dotted_order for run in known)


def our_run(run: TraceRun) -> str | None:
    """The run id that a run of a trace belongs to; None where it is not ours."""
    found = run.metadata.get("run")
    return found if isinstance(found, str) else None


def trajectories(runs: Iterable[TraceRun]) -> Iterator[Trajectory | Unusable]:
    """The trajectories of one trace, those of nested runs inside the ones that they belong to.

    Args:
        runs: All runs of a trace, in any order.
    """
    parts = _sorted_out(runs)
    around = {run_id: _call_around(run_id, parts) for run_id in parts}
    built = {run_id: _trajectory(run_id, each, around[run_id]) for run_id, each in parts.items()}
    for run_id, found in built.items():
        if isinstance(found, Unusable):
            yield found
        elif around[run_id] is None:
            yield _with_nested(found, built, around)


def _sorted_out(runs: Iterable[TraceRun]) -> dict[str, _Parts]:
    parts: dict[str, _Parts] = {}
    for run in sorted(runs, key=lambda run: run.dotted_order):
        run_id = our_run(run)
        if run_id is None:
            continue
        each = parts.setdefault(run_id, _Parts())
        if isinstance(run.metadata.get("turn"), int):
            each.turns[run.metadata["turn"]] = run
        elif isinstance(run.metadata.get("call"), str):
            each.calls[run.metadata["call"]] = run
        elif each.graph is None:  # the outermost: steps of an agent are graphs of their own
            each.graph = run
    return parts


def _call_around(run_id: str, parts: Mapping[str, _Parts]) -> tuple[str, str] | None:
    """The innermost call of another run that a run is in: that run's id, and the call's.

    A run states its call; those of earlier releases are known by their place, save in the tools of an agent, which have
    no runs of ours.
    """
    graph = parts[run_id].graph
    stated = None if graph is None else graph.metadata.get("parent")
    if isinstance(stated, str):
        for other in parts:
            if other != run_id and stated.startswith(f"{other[:8]}-"):
                return other, stated
    place = parts[run_id].place
    around = [
        (len(call.dotted_order), other, call_id)
        for other, each in parts.items()
        if other != run_id
        for call_id, call in each.calls.items()
        if place.startswith(f"{call.dotted_order}.")
    ]
    return max(around)[1:] if around else None


def _with_nested(
    run: Trajectory, built: Mapping[str, Trajectory | Unusable], around: Mapping[str, tuple[str, str] | None]
) -> Trajectory:
    inside = {run.run_id}
    for _ in around:  # as deep as they may be
        inside |= {id for id, place in around.items() if place is not None and place[0] in inside}
    nested = {id: found for id, found in built.items() if id in inside - {run.run_id} and isinstance(found, Trajectory)}
    return run.model_copy(update={"runs": nested}) if nested else run


def _trajectory(run_id: str, parts: _Parts, around: tuple[str, str] | None) -> Trajectory | Unusable:
    graph = parts.graph
    if graph is None or "question" not in graph.metadata:
        reason = "the graph's own run, which says what was asked, is not in the trace, or its client hides inputs"
        return Unusable(run_id, "incomplete", reason)
    if graph.metadata.get("protocol") == AGENT_STEP:
        return Unusable(run_id, "agent_not_ended", "an agent that failed, waits or goes on; fix: harvest its run log")
    if graph.end_time is None:
        return Unusable(run_id, "running", "it has not ended")
    told = graph.metadata
    if "stopped_by" not in told and graph.error is None:
        return Unusable(run_id, "not_ended", "it waits for a person, or was left")
    if is_cut(told["question"]):
        return Unusable(run_id, "cut_question", "the middle of the question is not in the trace")
    outputs = graph.outputs
    turns: dict[str, Turn] = outputs["turns"] if _has_turns(outputs) else _turns(run_id, parts)
    sums = totals(turns)
    if _lacks(told, turns, sums):
        reason = "it began in another trace, before a pause, or not all was posted; fix: harvest its run log"
        return Unusable(run_id, "earlier_parts", reason)
    last = max(turns.values(), key=lambda turn: turn["index"], default=None)
    ended = {"ended": "answered", "stopped_by": told["stopped_by"]} if "stopped_by" in told else {"ended": "failed"}
    record = {
        "run_id": run_id,
        **header_of(told["question"], told.get("task") or {}),
        "started_at": told.get("started") or graph.start_time,
        "ended_at": graph.end_time,
        "catalog_hash": told.get("catalog_hash"),
        "preferences": told.get("preferences") or {},
        "budget": told.get("budget") or {},
        "policy": _policy(told),
        "protocol": told.get("protocol"),
        **ended,
        "error": graph.error,
        "answer": _answer(outputs, last),
        "turns": sorted(turns.values(), key=lambda turn: turn["index"]),
        "totals": sums,
        **({"parent": around[1]} if around is not None else {}),
    }
    try:
        return Trajectory.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return Unusable(run_id, "invalid", f"{place} = {first['input']!r:.60}: {first['msg']}")


def _policy(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Who decided, with the version of its weights, where the trace says so."""
    known = {"name": "policy", "weights_hash": "policy_weights_hash", "step": "policy_step"}
    return {key: told[name] for key, name in known.items() if name in told} if "policy" in told else None


def _lacks(told: Mapping[str, Any], turns: Mapping[str, Turn], sums: LedgerTotals) -> bool:
    """Whether the trace has less of an ended run than its ledger: runs that are resumed go on in another trace."""
    if "stopped_by" not in told:
        return False
    # A run that was answered was not closed: a call that nobody decided was decided elsewhere.
    decided_elsewhere = told["stopped_by"] == "answer" and any(t["decision"]["by"] == "closing" for t in turns.values())
    calls, dollars = (told.get(name, sums[name]) for name in ("calls", "dollars"))
    same = calls == sums["calls"] and math.isclose(dollars, sums["dollars"], abs_tol=1e-9)
    return decided_elsewhere or not same


def _has_turns(outputs: Mapping[str, Any]) -> bool:
    """Whether a graph's output holds its turns, as an agent's does; that of an orchestrator says how many there are."""
    return isinstance(outputs.get("turns"), dict)


def _answer(outputs: Mapping[str, Any], last: Turn | None) -> str | None:
    """The answer in a graph's output; an agent's last message; of somebody else's graph what the last turn brought."""
    if isinstance(outputs.get("answer"), str):
        return str(outputs["answer"])
    if _has_turns(outputs):
        return agent_answer([_message(said) for said in outputs.get("messages") or ()])
    outcomes = () if last is None else last["outcomes"].values()
    return next((outcome["answer"] for outcome in outcomes if "answer" in outcome), None)


def _message(said: Mapping[str, Any]) -> BaseMessage:
    """A message of an agent's output; of a person's only that it is one."""
    kind = said.get("type")
    if kind == "ai":
        return AIMessage.model_validate(said)
    return ToolMessage.model_validate(said) if kind == "tool" else HumanMessage("")


def _turns(run_id: str, parts: _Parts) -> dict[str, Turn]:
    """The turns as the runs of the router and of the calls tell them."""
    turns = {f"{run_id[:8]}-{index}": _decided(f"{run_id[:8]}-{index}", run) for index, run in parts.turns.items()}
    for call_id, run in parts.calls.items():
        turn_id = call_id.rpartition("-")[0]
        if turn_id not in turns:
            turns[turn_id] = _closing(turn_id, call_id, run)
        turn = turns[turn_id]
        turn["outcomes"][call_id] = cast(Any, _outcome(run))
        turn["charges"] |= run.metadata.get("charges") or {}
    for turn in turns.values():
        _name_calls(turn)
    return turns


def _decided(turn_id: str, run: TraceRun) -> Turn:
    told, shown = run.metadata, run.outputs
    kind = next((tag.removeprefix("problem:") for tag in run.tags if tag.startswith("problem:")), None)
    decision = {
        "calls": [{"id": "", **call} for call in shown.get("calls", ())],
        "reason": told.get("decision_reason") or "",
        "by": told.get("decided_by"),
        **({"problem": {"kind": kind, "detail": shown.get("problem", "")}} if kind else {}),
        **({"repaired": told["repaired"]} if "repaired" in told else {}),
    }
    turn = {
        "id": turn_id,
        "index": told["turn"],
        "decision": decision,
        "charges": dict(told.get("charges") or {}),
        "outcomes": dict(shown.get("outcomes") or {}),
        "seconds": told.get("wall_seconds", 0.0),
    }
    return cast(Turn, turn)


def _closing(turn_id: str, call_id: str, run: TraceRun) -> Turn:
    """A turn that no router decided; of its own time the trace says nothing."""
    tool = next((tag.removeprefix("tool:") for tag in run.tags if tag.startswith("tool:")), "")
    call = {"id": call_id, "tool": tool, "args": {}}
    decision = {"calls": [call], "reason": "", "by": "closing"}
    index = int(turn_id.rpartition("-")[2])
    turn = {"id": turn_id, "index": index, "decision": decision, "charges": {}, "outcomes": {}, "seconds": 0.0}
    return cast(Turn, turn)


def _outcome(run: TraceRun) -> dict[str, Any]:
    shown = run.outputs
    return {
        "content": shown.get("content") or run.error or "",
        "error": bool(shown.get("error", run.error is not None)),
        **({"answer": shown["answer"]} if shown.get("answer") is not None else {}),
        **({"by": run.metadata["answered_by"]} if "answered_by" in run.metadata else {}),
        **({"args": shown["args"]} if "args" in shown else {}),
        **{mark: True for mark in ("cached", "rejected") if mark in run.tags},
        "seconds": run.metadata.get("wall_seconds", 0.0),
    }


def _name_calls(turn: Turn) -> None:
    """Give each call its id: a trace tells the calls in order, and ids by what came back."""
    calls = turn["decision"]["calls"]
    ids = sorted(turn["outcomes"], key=lambda id: int(id.rpartition("-")[2]))
    if len(ids) != len(calls):  # one never came back
        ids = [f"{turn['id']}-{position}" for position in range(len(calls))]
    for call, id in zip(calls, ids, strict=True):
        call["id"] = id


def cut_texts(run: Trajectory) -> int:
    """How many results and answers of a run lost their middle on the way into the trace."""
    outcomes = [outcome for turn in run.turns for outcome in turn["outcomes"].values()]
    return sum(is_cut(outcome["content"]) for outcome in outcomes)
