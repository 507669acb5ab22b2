from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from langsmith.schemas import Feedback, FeedbackSourceBase
from orchestra_training.filters import FilterReport
from orchestra_training.verdicts import read_feedback

from orchestra_graph.errors import ConfigError

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TRACE = "00000000-0000-0000-0000-000000000001"


def record(id: str = "f1", **parts: Any) -> dict[str, Any]:
    return {
        "id": id,
        "key": "solved",
        "trace_id": TRACE,
        "run_id": "00000000-0000-0000-0000-000000000002",
        "score": 1,
        "created_at": NOW.isoformat(),
        "modified_at": NOW.isoformat(),
        "feedback_source": {"type": "app", "user_id": "u7", "metadata": {}},
        "comment": "well done",
        "session_id": "s",
        **parts,
    }


def read(*records: Any, **options: Any) -> tuple[dict[str, Any], FilterReport]:
    report = FilterReport()
    return read_feedback(records, report, key="solved", **options), report


def test_a_persons_verdict_on_a_trace() -> None:
    found, report = read(record())
    verdict = found[TRACE]
    assert (verdict.outcome, verdict.by, verdict.reason) == (1, "feedback:solved:u7", "well done")
    assert (report.kept, report.dropped) == (1, [])


def test_langsmiths_own_objects_are_read() -> None:
    feedback = Feedback(
        id=uuid4(),
        key="solved",
        run_id=None,
        trace_id=UUID(TRACE),
        score=False,
        created_at=NOW,
        modified_at=NOW,
        feedback_source=FeedbackSourceBase(type="api", user_name="ana"),
    )
    found, _ = read(feedback)
    assert (found[TRACE].outcome, found[TRACE].by) == (0, "feedback:solved:ana")


def test_without_a_trace_the_run_is_meant() -> None:
    found, _ = read(record(trace_id=None))
    assert list(found) == ["00000000-0000-0000-0000-000000000002"]


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"key": "style"}, "other_key"),
        ({"feedback_source": {"type": "model"}}, "not_a_person"),
        ({"feedback_source": {"type": "auto_eval"}}, "not_a_person"),
        ({"score": None}, "no_score"),
        ({"score": 5}, "out_of_scale"),
        ({"score": 5, "key": "stars"}, "other_key"),
        ({"trace_id": None, "run_id": None}, "no_trace"),
    ],
)
def test_what_is_left_out_is_counted(parts: dict[str, Any], kind: str) -> None:
    found, report = read(record(**parts), record("f2"))
    assert list(found) == [TRACE]
    assert (report.kept, report.counts) == (1, {("feedback", kind): 1})
    assert [dropped.id for dropped in report.dropped] == ["f1"]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_newest_counts_whatever_the_order(order: list[int]) -> None:
    records = [record(f"f{n}", score=n / 2, modified_at=(NOW + timedelta(days=n)).isoformat()) for n in range(3)]
    found, report = read(*(records[n] for n in order))
    assert found[TRACE].outcome == 1
    assert (report.kept, report.counts) == (1, {("feedback", "outdated"): 2})
    assert {dropped.id for dropped in report.dropped} == {"f0", "f1"}


def test_times_without_a_zone_or_none_at_all_can_be_compared() -> None:
    found, _ = read(record(modified_at="2026-11-02T00:00:00"), record("f2", score=0, modified_at=None, created_at=None))
    assert found[TRACE].outcome == 1


@pytest.mark.parametrize(
    ("score", "scale", "outcome"), [(5, (1, 5), 1), (1, (1, 5), 0), (3, (1, 5), 0.5), (0, (1, 0), 1)]
)
def test_scores_on_another_scale(score: float, scale: tuple[float, float], outcome: float) -> None:
    found, _ = read(record(score=score), scale=scale)
    assert found[TRACE].outcome == outcome


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"score": "good"}, r"^notes:2: score\.\w+ = 'good': "),
        ({"key": None}, r"^notes:2: key = None: "),
        ({"created_at": "soon"}, r"^notes:2: created_at = 'soon': "),
        ({"feedback_source": {"type": 3}}, r"^notes:2: feedback_source\.type = 3: "),
    ],
)
def test_what_cannot_be_read_is_named(parts: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read(record(), record("f2", **parts), source="notes")


def test_a_scale_needs_two_ends() -> None:
    with pytest.raises(ConfigError, match=r"scale = \(1, 1\): expected two different scores"):
        read(record(), scale=(1, 1))
