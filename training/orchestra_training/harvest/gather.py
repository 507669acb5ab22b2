"""Harvests: reads sources, merges what they have in common, splits by task, writes files and a report.

    report = harvest([LogSource(Path("runs.jsonl"))], Path("data"))

A run that several sources have is written once: as the most faithful of them tells it, with a verdict that any of them
has. Lines are appended as they are read, so memory holds ids and counts only, and a harvest that was interrupted goes
on where it was when it is started again with the same arguments.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_training.harvest.fidelity import Stated, fidelity
from orchestra_training.harvest.logs import LogSource
from orchestra_training.harvest.output import Entry, Output, Provenance, judged, verdict_of
from orchestra_training.harvest.redaction import Redact, redacted
from orchestra_training.harvest.report import HarvestReport, SplitCounts
from orchestra_training.harvest.source import Found, Source, SourceReport
from orchestra_training.harvest.split import is_test, task_hash

REPORT: Final = "harvest.json"
TRAIN: Final = "train.jsonl.zst"
TEST: Final = "test.jsonl.zst"
TEST_SHARE: Final = 0.1
"""Part of the tasks that test, unless told otherwise."""

NO_CATALOG: Final = "no_catalog"
"""Runs whose catalog is not known: no tokens can be rendered of them."""

_REASON_CHARACTERS: Final = 300

OnRun = Callable[[SourceReport], None]
"""Told after each run that a source gave."""


def harvest(
    sources: Sequence[Source],
    to: Path,
    *,
    test_share: float = TEST_SHARE,
    redact: Redact | None = None,
    catalogs: Mapping[str, Catalog] = MappingProxyType({}),
    on_run: OnRun = lambda report: None,
) -> HarvestReport:
    """Harvest sources into a folder.

    Args:
        sources: In the order in which they are read; of equally faithful runs the first stands. What this harvest
            writes itself is none.
        to: Made where it is not there; gets `train.jsonl.zst`, `test.jsonl.zst` and `harvest.json`.
        test_share: Part of the tasks, from 0 to 1, whose runs go into the test file.
        redact: Takes personal data out of a text.
        catalogs: By their hashes, for runs that state only the hash of theirs: traces and checkpoints hold no more.
        on_run: For a progress bar.

    Raises:
        ConfigError: The folder holds another harvest, or one that was finished, or is being written.
        OrchestraError: A source cannot be read, or a file not written; what was harvested stands.
    """
    if not 0 <= test_share <= 1:
        raise ConfigError(f"test_share = {test_share!r}; expected from 0 to 1")
    own = {(to / name).resolve() for name in (TRAIN, TEST)}  # in a folder of logs, from before an interruption
    sources = [source for source in sources if not isinstance(source, LogSource) or source.path.resolve() not in own]
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ConfigError(f"sources = {names}; expected each once")
    options = {
        "sources": names,
        "asked": {source.name: dict(source.asked) for source in sources if source.asked},
        "test_share": test_share,
        "redact": None if redact is None else _name(redact),
        "catalogs": _digest(catalogs),
    }
    to.mkdir(parents=True, exist_ok=True)
    with _only_one(to):
        _begin(to / REPORT, options)
        gathering = _Gathering(to, test_share, redact, catalogs)
        reports = [gathering.read(source, on_run) for source in sources]
        report = gathering.report(reports)
        _write(to / REPORT, {"state": "done", "options": options, **report.to_json()})
    return report


class _Gathering:
    """A harvest under way."""

    def __init__(self, to: Path, test_share: float, redact: Redact | None, catalogs: Mapping[str, Catalog]) -> None:
        self._share = test_share
        self._redact = redact
        self._catalogs = catalogs
        self._train, self._test = Output(to / TRAIN, is_test=False), Output(to / TEST, is_test=True)
        self._entries: dict[str, Entry] = {**dict(self._train.restore()), **dict(self._test.restore())}

    def read(self, source: Source, on_run: OnRun) -> SourceReport:
        report = SourceReport(source.name)
        known = {id for id, entry in self._entries.items() if entry.source == source.name}
        if isinstance(source, LogSource):  # since the interruption it may have got verdicts, and is soon read
            known = {id for id in known if self._entries[id].verdict is not None}
        for found in source.read(report, known):
            self._take(found, report)
            on_run(report)
        return report

    def _take(self, found: Found, report: SourceReport) -> None:
        found = self._completed(found, report)
        run = found.run
        task = task_hash(run.task)
        if task is None:
            report.skip("no_task", f"{report.name}, run {run.run_id}", "neither question nor id of the task is known")
            return
        found, stated = self._redacted(found, fidelity(run))
        told = Provenance(
            source=report.name,
            task=task,
            fidelity=stated.fidelity,
            shortfall=stated.kind,
            reason=stated.reason[:_REASON_CHARACTERS],
            is_answered=run.ended == "answered",
            is_judged=verdict_of(run) is not None,
            is_skewed=run.started_at is not None and run.ended_at is not None and run.ended_at < run.started_at,
        )
        old = self._entries.get(run.run_id)
        if old is None:
            output = self._test if is_test(task, self._share) else self._train
            self._entries[run.run_id] = output.write(found, told)
        else:
            if old.source != report.name:
                report.noted["duplicates"] += 1
            self._entries[run.run_id] = self._merged(old, found, told)

    def _completed(self, found: Found, report: SourceReport) -> Found:
        """The run with the catalog whose hash it states."""
        if found.run.catalog is not None:
            return found
        catalog = self._catalogs.get(found.run.catalog_hash or "")
        if catalog is None:
            report.noted[NO_CATALOG] += 1
            return found
        return Found(found.run.model_copy(update={"catalog": catalog}))

    def _redacted(self, found: Found, stated: Stated) -> tuple[Found, Stated]:
        clean = None if self._redact is None else redacted(found.run, self._redact)
        if clean is None:
            return found, stated
        left = fidelity(clean)
        if left.fidelity != stated.fidelity:
            left = left._replace(
                kind="redacted", reason="what was taken out of its texts is spelled by its tokens, too"
            )
        return Found(clean), left

    def _merged(self, old: Entry, found: Found, told: Provenance) -> Entry:
        """The better one of a run that was written and one of another source, with a verdict of either."""
        output, run = self._test if old.is_test else self._train, found.run
        verdict = verdict_of(run)
        new = output.entry(told, verdict)
        if new.is_better_than(old):
            if verdict is None and old.verdict is not None:
                found, told = judged(run, old.verdict), told.model_copy(update={"is_judged": True})
            return output.write(found, told)
        if old.verdict is None and verdict is not None:
            output.judge(run.run_id, verdict)
            return old._replace(verdict=verdict)
        return old

    def report(self, sources: list[SourceReport]) -> HarvestReport:
        """Counts of all that is in the files, whenever it was written."""
        splits = {}
        for name, output, test in (("train", self._train, False), ("test", self._test, True)):
            entries = [entry for entry in self._entries.values() if entry.is_test == test]
            splits[name] = SplitCounts(
                file=output.path.name,
                sha256=_sha256(output.path) if output.path.exists() else None,
                runs=len(entries),
                tasks=len({entry.task for entry in entries}),
                judged=sum(entry.verdict is not None for entry in entries),
            )
        every = self._entries.values()
        return HarvestReport(
            splits=splits,
            fidelity=Counter(entry.fidelity for entry in every),
            shortfalls=Counter(f"{e.fidelity}: {e.shortfall}" for e in every if e.shortfall is not None),
            clock_skew=sum(entry.is_skewed for entry in every),
            written=Counter(entry.source for entry in every),
            sources=sources,
        )


def _name(redact: Redact) -> str:
    return f"{getattr(redact, '__module__', '')}:{getattr(redact, '__qualname__', type(redact).__qualname__)}"


def _digest(catalogs: Mapping[str, Catalog]) -> str | None:
    """One hash of all catalogs: where they are drawn there is one a run."""
    return hashlib.sha256(" ".join(sorted(catalogs)).encode()).hexdigest() if catalogs else None


def _begin(path: Path, options: dict[str, Any]) -> None:
    """Note what is harvested, or see that it is what an interrupted harvest began with.

    Raises:
        ConfigError: It is not.
    """
    if path.exists():
        found = orjson.loads(path.read_bytes())
        if found.get("state") != "running":
            raise ConfigError(f"{path}: a harvest that is done; fix: name another folder, or delete this one")
        if found.get("options") != options:
            raise ConfigError(
                f"{path}: a harvest with options = {found.get('options')} was interrupted; expected the same, "
                f"not {options}; fix: name another folder, or delete this one"
            )
    else:
        _write(path, {"state": "running", "options": options})


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write the report, or leave the one that is there."""
    new = path.with_suffix(".new")
    new.write_bytes(orjson.dumps({"version": 1, **value}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    new.replace(path)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder.

    Raises:
        ConfigError: Another process does.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            told = "another harvest writes here; fix: wait for it, or name another folder"
            raise ConfigError(f"{folder}: {told}") from error
        yield
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
