"""What a recorder answers to who reads: LangSmith's old interface (`/runs/query`) and its new one (`/api/v2`).

Runs come newest first, a page at a time, with the fields that were asked for. Of the filter language it knows what the
harvest asks, and `eq(name, "...")`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.langsmith_recorder import Recorder

PROJECT = "00000000-0000-4000-8000-000000000001"

Run = dict[str, Any]


def read(recorder: Recorder, path: str, query: dict[str, Any]) -> Any:
    """The answer to a request."""
    trace = re.fullmatch(r"/api/v2/traces/([^/]+)/runs", path)
    if trace:
        found = [run for run in recorder.runs.values() if run["trace_id"] == trace[1]]
        return {"items": [_new(run, query["selects"]) for run in found]}
    if path == "/sessions":
        project = {
            "id": PROJECT,
            "name": query["name"][0],
            "tenant_id": PROJECT,
            "reference_dataset_id": None,
            "start_time": "2026-01-01T00:00:00",
        }
        return [project] if query["name"][0] == "test" else []
    if path == "/feedback":
        wanted, keys = set(query["run"]), set(query["key"])
        found = [each for each in recorder.feedback if _trace_of(each) in wanted and each["key"] in keys]
        if not recorder.pages_feedback:
            return found
        start = int(query["offset"][0])
        return found[start : start + int(query["limit"][0])]
    is_new = path == "/api/v2/runs/query"
    assert is_new or path == "/runs/query", f"nothing is expected to be read from {path}"
    found = _wanted(recorder, query)
    start = int(query.get("cursor") or 0)
    end = start + min(recorder.read_page, query.get("page_size", 100))
    following = str(end) if end < len(found) else None
    if is_new:
        assert query["project_ids"] == [PROJECT]
        return {"items": [_new(run, query["selects"]) for run in found[start:end]], "next_cursor": following}
    assert query["session"] == [PROJECT]
    return {"runs": [_old(run, query["select"]) for run in found[start:end]], "cursors": {"next": following}}


def _trace_of(record: dict[str, Any]) -> str:
    return str(record.get("trace_id") or record["run_id"])


def _wanted(recorder: Recorder, query: dict[str, Any]) -> list[Run]:
    runs: Iterable[Run] = recorder.runs.values()
    if query.get("trace"):
        runs = [run for run in runs if run["trace_id"] == query["trace"]]
    if query.get("is_root"):
        runs = [run for run in runs if not run.get("parent_run_id")]
    if query.get("tree_filter") == 'eq(metadata_key, "catalog_hash")':
        ours = {run["trace_id"] for run in recorder.runs.values() if "catalog_hash" in _metadata(run)}
        runs = [run for run in runs if run["trace_id"] in ours]
    filter = query.get("filter") or ""
    name = re.search(r'eq\(name, "(.*?)"\)', filter)
    before = re.search(r'lt\(start_time, "(.*?)"\)', filter)
    since = query.get("start_time") or query.get("min_start_time")
    until = before[1] if before else query.get("max_start_time")
    runs = [run for run in runs if name is None or run["name"] == name[1]]
    runs = [run for run in runs if since is None or _time(run["start_time"]) >= _time(since)]
    runs = [run for run in runs if until is None or _time(run["start_time"]) < _time(until)]
    return sorted(runs, key=lambda run: str(run["start_time"]), reverse=True)


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=None) if moment.tzinfo is None else moment.astimezone().replace(tzinfo=None)


def _metadata(run: Run) -> dict[str, Any]:
    return (run.get("extra") or {}).get("metadata") or {}


def _old(run: Run, select: list[str]) -> Run:
    return {name: run.get(name) for name in select}


def _new(run: Run, selects: list[str]) -> Run:
    return {**{name.lower(): run.get(name.lower()) for name in selects}, "metadata": _metadata(run)}
