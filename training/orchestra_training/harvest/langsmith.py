"""A LangSmith project as a source, through either of its read interfaces.

`client.runs.query` and `client.traces.list_runs` where the server has them (0.16 and later), else what
`Client.list_runs` reads.
The server is asked for traces that hold runs of ours, a page at a time, and for the runs of each trace that is new.
A rate limit and an error of the server are waited out: as long as it says, else longer each time.

Feedback of people becomes the verdict of the trace's run, where a key is named.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, TypeVar

import langsmith
import orjson
from langsmith import utils
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from orchestra_graph.errors import ConfigError
from orchestra_graph.portal import Portal
from orchestra_graph.runlog.record import Trajectory, Verdict
from orchestra_training.filters import FilterReport
from orchestra_training.harvest.source import Found, SourceReport
from orchestra_training.harvest.sources import Wanted
from orchestra_training.harvest.trace import TraceRun, Unusable, cut_texts, our_run, trajectories
from orchestra_training.verdicts.feedback import read_feedback

OURS: Final = 'eq(metadata_key, "catalog_hash")'
"""Filter of traces that hold a run of ours."""
NEW_SINCE: Final = Version("0.16.0")
PAGE: Final = 100
TRIES: Final = 6
FIRST_PAUSE: Final = 2.0
"""Seconds before the second try where the server names none; doubled for each further one."""
LONGEST_PAUSE: Final = 120.0

_EARLY: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Before any trace: without a lower bound the new interface takes the last day."""
_FIELDS: Final = ("id", "trace_id", "dotted_order", "start_time", "end_time", "error", "outputs", "extra", "tags")
_ROOT_FIELDS: Final = ("id", "trace_id", "dotted_order", "start_time", "end_time", "extra", "status")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LangSmithSource:
    """The traces of one project."""

    project: str
    wanted: Wanted = field(default_factory=Wanted)
    make_client: Callable[[], langsmith.Client] = langsmith.Client
    """By default what the environment says; the client is closed after reading."""
    interface: Literal["new", "old"] | None = None
    """By default what the server has."""
    first_pause: float = FIRST_PAUSE

    @property
    def name(self) -> str:
        """As the command line names it."""
        return f"langsmith:{self.project}"

    @property
    def asked(self) -> Mapping[str, str]:
        """Filter, dates and feedback, as far as they are given."""
        return {name: str(value) for name, value in asdict(self.wanted).items() if value is not None}

    def read(self, report: SourceReport, known: Container[str]) -> Iterator[Found]:
        """See `Source.read`.

        Raises:
            ConfigError: The project is not there, or LangSmith refuses or fails.
        """
        client = self.make_client()
        patience = _Patience(self.name, self.first_pause)
        project_id = str(patience.wait_out(lambda: client.read_project(project_name=self.project)).id)
        reader: _Reader = (_New if self._is_new(client) else _Old)(client, project_id, self.wanted, patience)
        try:
            roots = reader.roots()
            while page := list(islice(roots, PAGE)):
                yield from self._page(reader, page, report, known)
        finally:
            reader.close()
            client.close()

    def _is_new(self, client: langsmith.Client) -> bool:
        if self.interface is not None:
            return self.interface == "new"
        try:
            return Version(client.info.version or "") >= NEW_SINCE
        except InvalidVersion:  # it does not say; what it lacks will be told by its first answer
            return True

    def _page(
        self, reader: _Reader, page: list[Mapping[str, Any]], report: SourceReport, known: Container[str]
    ) -> Iterator[Found]:
        roots = []
        for record in page:
            report.read += 1
            root = checked(record, report, self.name)
            if root is None:
                continue
            if (our_run(root) or "") in known:
                report.known += 1
            else:
                roots.append(root)
        verdicts = self._verdicts(reader, [root.trace_id for root in roots], report)
        for root in roots:
            runs = [checked(record, report, self.name) for record in reader.runs(root)]
            yield from self._trace(root, [run for run in runs if run], verdicts.get(root.trace_id), report, known)

    def _verdicts(self, reader: _Reader, traces: list[str], report: SourceReport) -> dict[str, Verdict]:
        key = self.wanted.feedback
        if key is None or not traces:
            return {}
        found = FilterReport()
        verdicts = read_feedback(reader.feedback(traces, key), found, key=key, source=f"{self.name}, feedback")
        for (_, kind), count in found.counts.items():
            report.noted[f"feedback_{kind}"] += count
        return verdicts

    def _trace(
        self,
        root: TraceRun,
        runs: list[TraceRun],
        verdict: Verdict | None,
        report: SourceReport,
        known: Container[str],
    ) -> Iterator[Found]:
        for found in given(runs, report, f"{self.name}, trace {root.trace_id}", known):
            yield Found(found if verdict is None else found.model_copy(update={"verdict": verdict}))


def given(runs: list[TraceRun], report: SourceReport, place: str, known: Container[str]) -> Iterator[Trajectory]:
    """The trajectories of a trace, and counts of what there is beside them."""
    found = list(trajectories(runs))
    if not found:
        report.skip("foreign", place, "no run of an orchestrator in it")
    for each in found:
        if isinstance(each, Unusable):
            report.skip(each.kind, f"{place}, run {each.run_id}", each.reason)
        elif each.run_id in known:
            report.known += 1
        else:
            if cut_texts(each):
                report.noted["cut_texts"] += 1
            report.runs += 1
            yield each


def checked(record: Mapping[str, Any], report: SourceReport, place: str) -> TraceRun | None:
    """A run of a trace; None, and noted, where it lacks an id or holds something else."""
    extra = record.get("extra") or {}
    try:
        return TraceRun.model_validate({**record, "metadata": record.get("metadata") or extra.get("metadata")})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        missing = first["type"] == "missing" or first["input"] is None
        field_name = ".".join(map(str, first["loc"]))
        told = f"{field_name}: {first['msg']}"
        report.skip("missing_ids" if missing else "invalid", f"{place}, run {record.get('id')}", told)
        return None


@dataclass(frozen=True, slots=True)
class _Patience:
    """Waits out what passes."""

    name: str
    first_pause: float

    def wait_out(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer.

        Raises:
            ConfigError: The server refuses, or does not recover.
        """
        for number in range(TRIES):
            try:
                return ask()
            except (langsmith.RateLimitError, langsmith.InternalServerError) as error:
                last: Exception = error
                told = error.response.headers.get("retry-after", "")
                pause = float(told) if told.replace(".", "", 1).isdigit() else self.first_pause * 2.0**number
            except (
                utils.LangSmithRateLimitError,
                utils.LangSmithAPIError,
                utils.LangSmithConnectionError,
                langsmith.APIConnectionError,
            ) as error:
                last, pause = error, self.first_pause * 2.0**number
            except (langsmith.APIStatusError, utils.LangSmithError) as error:
                raise ConfigError(f"{self.name}: {_one_line(error)}") from error
            if number < TRIES - 1:
                time.sleep(min(pause, LONGEST_PAUSE))
        raise ConfigError(f"{self.name}: {_one_line(last)}; fix: start again later, it goes on from here") from last


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


class _Reader(ABC):
    """One of LangSmith's read interfaces."""

    def __init__(self, client: langsmith.Client, project_id: str, wanted: Wanted, patience: _Patience) -> None:
        self.client = client
        self.project_id = project_id
        self.wanted = wanted
        self.patience = patience

    @abstractmethod
    def roots(self) -> Iterator[Mapping[str, Any]]:
        """Root runs of the traces that are wanted."""

    @abstractmethod
    def runs(self, root: TraceRun) -> list[Mapping[str, Any]]:
        """All runs of a trace."""

    def feedback(self, traces: list[str], key: str) -> list[Any]:
        """Feedback of a key on the roots of traces, each once."""
        return self.patience.wait_out(partial(self._feedback, traces, key))

    def _feedback(self, traces: list[str], key: str) -> list[Any]:
        found: dict[Any, Any] = {}
        for each in self.client.list_feedback(run_ids=traces, feedback_key=[key]):
            if each.id == next(iter(found), None):
                break  # a server that does not page: the client would ask it for ever, since its answers are full
            found[each.id] = each
        return list(found.values())

    def close(self) -> None:  # noqa: B027  (only one has something to let go of)
        """Let go of connections."""


class _Old(_Reader):
    """What `Client.list_runs` reads, which newer servers will not have after January 2027.

    Asked a page at a time: when that generator fails, the pages that it has given are lost.
    """

    def roots(self) -> Iterator[Mapping[str, Any]]:
        wanted = self.wanted
        until = None if wanted.until is None else f'lt(start_time, "{wanted.until.isoformat()}")'
        parts = [part for part in (wanted.filter, until) if part]
        return self._paged(
            is_root=True,
            filter=f"and({', '.join(parts)})" if len(parts) > 1 else next(iter(parts), None),
            tree_filter=OURS,
            start_time=None if wanted.since is None else wanted.since.isoformat(),
            select=_ROOT_FIELDS,
        )

    def runs(self, root: TraceRun) -> list[Mapping[str, Any]]:
        return list(self._paged(trace=root.trace_id, select=_FIELDS))

    def _paged(self, **wanted: Any) -> Iterator[Mapping[str, Any]]:
        query = {name: value for name, value in {"session": [self.project_id], **wanted}.items() if value is not None}
        while True:
            body = orjson.dumps(query)
            answer = self.patience.wait_out(partial(self._post, body))
            yield from answer.get("runs") or ()
            following = (answer.get("cursors") or {}).get("next")
            if not following:
                return
            query["cursor"] = following

    def _post(self, body: bytes) -> dict[str, Any]:
        answer = self.client.request_with_retries("POST", "/runs/query", request_kwargs={"data": body})
        found: dict[str, Any] = answer.json()
        return found


class _New(_Reader):
    """`client.runs.query` and `client.traces.list_runs`, on a loop of their own."""

    def __init__(self, client: langsmith.Client, project_id: str, wanted: Wanted, patience: _Patience) -> None:
        super().__init__(client, project_id, wanted, patience)
        self._portal = Portal()

    def roots(self) -> Iterator[Mapping[str, Any]]:
        cursor: str | None = None
        while True:
            page = self.patience.wait_out(partial(self._run, partial(self._query, cursor)))
            yield from (run.model_dump() for run in page.items or ())
            cursor = page.next_cursor
            if not cursor:
                return

    def runs(self, root: TraceRun) -> list[Mapping[str, Any]]:
        found = self.patience.wait_out(partial(self._run, partial(self._trace, root.trace_id)))
        return [run.model_dump() for run in found.items or ()]

    def _run(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._portal.run(ask())

    async def _query(self, cursor: str | None) -> Any:
        wanted = self.wanted
        given = {"filter": wanted.filter, "max_start_time": wanted.until, "cursor": cursor}
        options: dict[str, Any] = {name: value for name, value in given.items() if value}
        return await self.client.runs.query(
            project_ids=[self.project_id],
            is_root=True,
            tree_filter=OURS,
            min_start_time=wanted.since or _EARLY,
            page_size=PAGE,
            selects=_selected(_ROOT_FIELDS),
            **options,
        )

    async def _trace(self, trace_id: str) -> Any:
        return await self.client.traces.list_runs(trace_id, project_id=self.project_id, selects=_selected(_FIELDS))

    def close(self) -> None:
        # Nothing public closes its connections, and they belong to the loop that ends here.
        self._portal.run(self.client.runs._client.close())
        self._portal.close()


def _selected(fields: tuple[str, ...]) -> Any:
    """Names of fields as the new interface spells them."""
    return [*(name.upper() for name in fields), "METADATA"]
