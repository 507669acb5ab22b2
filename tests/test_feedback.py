"""Scores of runs, and what of them reaches LangSmith."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import langsmith
import pytest

from orchestra_graph.report.feedback import preference_score, scores_of, send_feedback
from orchestra_graph.runlog.record import Trajectory
from tests.langsmith_recorder import KEY, served


def trajectory(*tools: str, **fields: Any) -> Trajectory:
    calls = [{"id": f"0-{n}", "tool": tool, "args": {}} for n, tool in enumerate(tools)]
    turn = {"id": "0", "index": 0, "decision": {"calls": calls, "reason": "", "by": "router"}}
    outcomes = {call["id"]: {"content": "", "error": False} for call in calls}
    turn |= {"charges": {}, "outcomes": outcomes, "seconds": 0.0}
    known = {"run_id": "r", "task": {"question": "q"}, "turns": [turn], "ended": "answered"}
    return Trajectory.model_validate({**known, **fields})


TOTALS: dict[str, Any] = {
    **{key: 0 for key in ("calls", "attempts", "input_tokens", "cached_tokens", "output_tokens")},
    **{"dollars": 0.0123, "uncertain_dollars": 0.0, "seconds": 1.0, "wall_seconds": 2.5, "tools": {}},
}


@pytest.mark.parametrize(
    ("preferences", "score"),
    [
        ({}, None),
        ({"prefer": {"a": 0.5}}, 1.0),
        ({"prefer": {"c": 0.5}}, 0.0),
        ({"avoid": {"a": 1.0}, "prefer": {"b": 0.25}}, 0.2),
        ({"never": ["c"]}, 1.0),
    ],
)
def test_preferences(preferences: dict[str, Any], score: float | None) -> None:
    assert preference_score(trajectory("a", "b", "a", preferences=preferences)) == score


def test_a_call_that_a_person_refused_was_not_made() -> None:
    run = trajectory("a", preferences={"avoid": {"a": 1.0}})
    run.turns[0]["outcomes"]["0-0"]["rejected"] = True
    assert preference_score(run) == 1.0


def test_who_answered_in_a_tools_place_was_called() -> None:
    run = trajectory("a", preferences={"avoid": {"large": 1.0}})
    run.turns[0]["outcomes"]["0-0"]["by"] = "large"
    assert preference_score(run) == 0.0


def test_what_is_not_known_is_left_out() -> None:
    assert scores_of(trajectory()) == {}
    assert scores_of(trajectory(verdict={"outcome": None, "by": "nobody"})) == {}


def test_feedback_reaches_the_server() -> None:
    run = trajectory("a", totals=TOTALS, verdict={"outcome": 1.0, "by": "test"}, preferences={"avoid": {"a": 1.0}})
    trace_id = uuid4()
    with served() as recorder:
        client = langsmith.Client(api_url=recorder.url, api_key=KEY)
        sent = send_feedback(client, trace_id, run, project_id=uuid4())
        client.flush()
        client.close()
    assert sent == {"outcome": 1.0, "cost_cents": pytest.approx(1.23), "latency_seconds": 2.5, "preference": 0.0}
    assert {each["key"]: each["score"] for each in recorder.feedback} == sent
    assert {each["trace_id"] for each in recorder.feedback} == {str(trace_id)}
