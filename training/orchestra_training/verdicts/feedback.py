"""Verdicts of people: feedback records of LangSmith, given as data.

Left out: fetching them, and finding the run of the log that a trace belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Verdict
from orchestra_training.checked import checked
from orchestra_training.filters import Fault, FilterReport
from orchestra_training.verdicts.ruling import ruling

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class Source(BaseModel):
    """Who gave a feedback."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    type: str = "api"
    """`app` and `api` come from people; `model` from a language model."""
    user_id: UUID | str | None = None
    user_name: str | None = None


class Feedback(BaseModel):
    """What is read of a record; see `langsmith.schemas.Feedback`."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: UUID | str | None = None
    key: str
    run_id: UUID | str | None = None
    trace_id: UUID | str | None = None
    score: float | bool | None = None
    comment: str | None = None
    created_at: datetime | None = None
    modified_at: datetime | None = None
    feedback_source: Source | None = None

    @property
    def trace(self) -> str | None:
        """The run of the whole graph that was judged, or a part of it."""
        found = self.trace_id or self.run_id
        return None if found is None else str(found)

    @property
    def given_at(self) -> datetime:
        """When it was given its present form."""
        given = self.modified_at or self.created_at or _LONG_AGO
        return given if given.tzinfo is not None else given.replace(tzinfo=UTC)


def read_feedback(
    records: Iterable[Mapping[str, Any] | object],
    report: FilterReport,
    *,
    key: str,
    scale: tuple[float, float] = (0.0, 1.0),
    source: str = "feedback",
) -> dict[str, Verdict]:
    """The newest verdict of a person on each trace.

    Args:
        records: Objects of `langsmith.schemas.Feedback`, or their JSON.
        report: Notes the records that are left out: of another key, of a model, without a score, with one out of
            scale, outdated.
        key: Name of the feedback that says whether the task was solved.
        scale: The scores that mean not solved and solved.
        source: Name for errors, for example the file that the records are from.

    Returns:
        By id of the trace.

    Raises:
        ConfigError: Names source, number of the record and field.
    """
    if scale[0] == scale[1]:
        raise ConfigError(f"scale = {scale!r}: expected two different scores, of not solved and of solved")
    newest: dict[str, tuple[str, Feedback]] = {}
    for number, record in enumerate(records, start=1):
        feedback = checked(Feedback, record, f"{source}:{number}")
        id = str(feedback.id or f"{source}:{number}")
        trace = feedback.trace
        if not report.passes(id, _unfit(feedback, key, scale)) or trace is None:
            continue
        other = newest.get(trace)
        if other is None or feedback.given_at >= other[1].given_at:
            newest[trace], outdated = (id, feedback), other
        else:
            outdated = (id, feedback)
        if outdated is not None:
            report.kept -= 1
            report.passes(outdated[0], Fault("feedback", "outdated", f"trace {trace} has a newer one"))
    return {trace: _verdict(feedback, scale) for trace, (_, feedback) in newest.items()}


def _unfit(feedback: Feedback, key: str, scale: tuple[float, float]) -> Fault | None:
    if feedback.trace is None:
        return Fault("feedback", "no_trace", "neither trace_id nor run_id is stated")
    if feedback.key != key:
        return Fault("feedback", "other_key", f"key = {feedback.key!r}; expected {key!r}")
    if feedback.feedback_source is not None and feedback.feedback_source.type not in ("app", "api"):
        return Fault("feedback", "not_a_person", f"feedback_source.type = {feedback.feedback_source.type!r}")
    if feedback.score is None:
        return Fault("feedback", "no_score", "score = None; expected a number")
    if not min(scale) <= feedback.score <= max(scale):
        low, high = scale
        return Fault("feedback", "out_of_scale", f"score = {feedback.score!r}; expected from {low:g} to {high:g}")
    return None


def _verdict(feedback: Feedback, scale: tuple[float, float]) -> Verdict:
    low, high = scale
    outcome = (float(feedback.score or 0.0) - low) / (high - low)
    source = feedback.feedback_source
    person = None if source is None else source.user_name or source.user_id
    by = f"feedback:{feedback.key}" + (f":{person}" if person else "")
    return ruling(outcome, by, feedback.comment or "")
