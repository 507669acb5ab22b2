"""Checkpoints of LangGraph as a source: SQLite and PostgreSQL.

A run's header and turns are in the state: of an orchestrator, of a graph with `add_router`, of an agent with the
middleware. A later question on the same thread replaces them, so all checkpoints are looked at, the newest first; the
newest one of a run has it whole. They are read a page at a time, and nothing is written.

A checkpoint holds no tokens, and of the catalog its hash only; those of earlier releases do not say who decided. A run
whose books are open there goes on, waits or was abandoned; nested runs are in the turns of the run around, as charges.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from pydantic import ValidationError

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.ledger import totals
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.state import NO_ANSWER, agent_answer, header_of
from orchestra_training.harvest.source import Found, SourceReport

PAGE: Final = 100
"""Checkpoints that are read at a time."""

_CHANNELS: Final = ("", "orchestra_")
"""What our channels' names begin with, in graphs of our own and in those of others."""


class _CheckpointSource(ABC):
    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    def asked(self) -> Mapping[str, str]:
        """Nothing: it is read whole."""
        return {}

    @abstractmethod
    def _saver(self) -> Any:
        """A context manager around the saver."""

    def read(self, report: SourceReport, known: Container[str]) -> Iterator[Found]:
        """See `Source.read`.

        Raises:
            ConfigError: The database cannot be read, or holds no checkpoints.
            MissingError: The saver is not installed.
        """
        seen: set[str] = set()
        with self._saver() as saver:
            for checkpoint in _newest_first(saver):
                report.read += 1
                channels = checkpoint.checkpoint["channel_values"]
                prefix = next((p for p in _CHANNELS if _is_header(channels.get(f"{p}run"))), None)
                run = {} if prefix is None else channels[f"{prefix}run"]
                run_id = run.get("id")
                if not isinstance(run_id, str):
                    report.noted["without_run"] += 1
                elif run_id in seen:
                    report.noted["earlier_steps"] += 1
                else:
                    seen.add(run_id)
                    parts = {name: channels.get(f"{prefix}{name}") for name in _PARTS}
                    found = self._found(run, {**parts, "messages": channels.get("messages")}, report, known)
                    if found is not None:
                        report.runs += 1
                        yield Found(found)

    def _found(
        self, run: Mapping[str, Any], parts: Mapping[str, Any], report: SourceReport, known: Container[str]
    ) -> Trajectory | None:
        place = f"{self.name}, run {run['id']}"
        if run["id"] in known:
            report.known += 1
        elif "parent" in run:
            report.skip("nested", place, f"it is a part of the run whose call is {run['parent']}")
        elif parts["ledger"] is None or parts["stopped_by"] is None:
            report.skip("not_ended", place, "its books are open: it goes on, waits for a person, or was abandoned")
        else:
            try:
                return _trajectory(run, parts)
            except (ValidationError, KeyError) as error:
                first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
                told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else f"no {error} in the run"
                report.skip("invalid", place, told)
        return None


_PARTS: Final = ("turns", "answer", "stopped_by", "ledger")


def _is_header(value: Any) -> bool:
    """Whether a channel holds the header of a run of ours: a graph of somebody else's may have a `run` of its own."""
    return isinstance(value, dict) and "catalog_hash" in value


def _trajectory(run: Mapping[str, Any], parts: Mapping[str, Any]) -> Trajectory:
    turns = parts["turns"] or {}
    return Trajectory.model_validate(
        {
            "run_id": run["id"],
            **header_of(run["question"], run.get("task", {})),
            "started_at": run["started"],
            "catalog_hash": run["catalog_hash"],
            "preferences": run["preferences"],
            "budget": run["budget"],
            "policy": run.get("policy"),
            "protocol": run.get("protocol"),
            "ended": "answered",
            "answer": _answer(run, parts),
            "stopped_by": parts["stopped_by"],
            "turns": sorted(turns.values(), key=lambda turn: turn["index"]),
            "totals": totals(turns),
        }
    )


def _answer(run: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """Where an agent has ended its header says it; of earlier releases there are the messages, up to the next question.

    An agent's channel `answer` is the user's own.
    """
    told: str | None = run.get("answer", parts["answer"])
    if told is None and isinstance(parts["messages"], list):
        told = agent_answer(parts["messages"])
        return None if told == NO_ANSWER else told
    return told


def _newest_first(saver: BaseCheckpointSaver[Any]) -> Iterator[CheckpointTuple]:
    before: Any = None
    while True:
        page = list(saver.list(None, before=before, limit=PAGE))
        yield from page
        if len(page) < PAGE:
            return
        before = page[-1].config


@dataclass(frozen=True, slots=True)
class SqliteSource(_CheckpointSource):
    """A file of `SqliteSaver` or `AsyncSqliteSaver`."""

    path: Path

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.path)

    @contextmanager
    def _saver(self) -> Iterator[BaseCheckpointSaver[Any]]:
        try:
            from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise MissingError("langgraph-checkpoint-sqlite", "pip install langgraph-checkpoint-sqlite") from error
        connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        try:
            saver = SqliteSaver(connection)
            saver.is_setup = True  # it would make its tables otherwise
            yield saver
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path}: {error}; expected checkpoints of LangGraph's SqliteSaver") from error
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class PostgresSource(_CheckpointSource):
    """A database of `PostgresSaver` or `AsyncPostgresSaver`."""

    address: str

    @property
    def name(self) -> str:
        """The address without the password."""
        parts = urlsplit(self.address)
        host = parts.hostname or ""
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @contextmanager
    def _saver(self) -> Iterator[BaseCheckpointSaver[Any]]:
        try:
            import psycopg  # noqa: PLC0415  (an extra)
            from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415  (an extra)
        except ImportError as error:
            fix = "pip install langgraph-checkpoint-postgres 'psycopg[binary]'"
            raise MissingError("langgraph-checkpoint-postgres", fix) from error
        try:
            with PostgresSaver.from_conn_string(self.address) as saver:
                yield saver
        except psycopg.Error as error:
            told = " ".join(str(error).split())
            raise ConfigError(f"{self.name}: {told}; expected checkpoints of LangGraph's PostgresSaver") from error
