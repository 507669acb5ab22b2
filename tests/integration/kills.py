"""Kills runs at random moments, takes them up again, and holds what came of it against the provider's books.

A run is killed with SIGKILL up to three times: at any moment of its life; shortly after one of its requests has reached
the provider; or shortly after its line appeared in the run log, when its last checkpoint may not be written. Now and
then the log is repaired before the run is taken up. What must hold at the end:

    answer      the same as without kills
    paid again  no call or decision whose result a checkpoint held when the run was taken up is sent again
    books       each attempt that the provider billed is in the ledger once, as charged or as uncertain with an upper
                bound that covers it; none is charged that was not billed
    log         the run's last line says the same as its state, and no journal is left
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from orchestra_graph.runlog.read import ReadReport, read_runs
from orchestra_graph.runlog.repair import repair
from orchestra_graph.runlog.spool import spool_folder
from orchestra_graph.turns import Charge, merge_turns
from tests.integration.biller import EXPECTED, Biller
from tests.integration.victim import DOLLARS, REPOSITORY, Durability, Ending, Job, dump, saver_of

MOST_KILLS: Final = 3
"""Of one run."""
REPAIRS: Final = 0.2
"""Share of kills after which the log is repaired before the run goes on."""
MODES: Final = {"any moment": 0.6, "after a request": 0.2, "after the log line": 0.2}
"""When to kill, and the share of kills of each kind that are tried."""
_REQUESTS: Final = 18
"""Of a run without kills, about."""
_POLL: Final = 0.0002
_SLACK: Final = {"after a request": 0.03, "after the log line": 0.004}
"""Seconds at most from what a kill waits for to the kill."""


@dataclass
class Report:
    """What was found."""

    store: str
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    """Those that hit a living process, by moment."""
    before: int = 0
    """Kills before the first checkpoint: the question was asked anew."""
    nested: int = 0
    """Kills with a nested run under way."""
    ended: int = 0
    """Kills between the run's line in the log and its last checkpoint."""
    repairs: int = 0
    torn: int = 0
    """Lines of the log that a kill cut short; the run has written another one."""
    billed: int = 0
    """Requests that the provider billed."""
    uncertain: int = 0
    """Of these, those that stand in the ledger as uncertain."""
    unsent: int = 0
    """Uncertain attempts that the provider never saw."""
    wrong_answers: list[str] = field(default_factory=list)
    paid_again: list[str] = field(default_factory=list)
    not_in_ledger: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Anything else: a process that failed, a log that differs, a charge that was never billed."""

    @property
    def passed(self) -> bool:
        return not (self.wrong_answers or self.paid_again or self.not_in_ledger or self.faults)


@dataclass(frozen=True)
class Found:
    """What the checkpoints of a thread hold."""

    state: dict[str, Any] | None
    """Of the newest one of the outer graph; None where there is none."""
    written: frozenset[str]
    """Steps whose results are in a checkpoint, also as writes that wait for the next one."""
    is_nested: bool
    """Whether a nested run is under way."""


class Nursery:
    """The process that victims are forked from."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.integration.victim"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()

    def start(self, job: Job) -> int:
        """Start a victim; gives its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(dump(job))
        self._process.stdin.flush()
        return self._line()

    def end(self) -> int:
        """Wait for the victim; 0 when it lived to its end, or the signal that killed it."""
        status = self._line()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@dataclass
class Harness:
    """Kills runs of one store.

    Args:
        store: A file of SQLite, or the connection string of PostgreSQL.
        folder: For the logs.
        biller: The provider.
        nursery: Where victims come from.
        seed: Of the moments.
        durability: Of the victims' graphs.
    """

    store: str
    folder: Path
    biller: Biller
    nursery: Nursery
    seed: int = 0
    durability: Durability = "sync"

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._logs = [self.folder / "runs.jsonl", self.folder / "inner.jsonl"]
        self._life = 0.0
        self._ended: dict[str, dict[str, Any]] = {}
        """Last states by run id."""
        self.report = Report("PostgreSQL" if self.store.startswith("postgresql:") else "SQLite")

    def kill(self, kills: int) -> Report:
        """Kill so many times, and look at each run when it has ended."""
        lives = []
        for _ in get_args(Ending):
            started = time.perf_counter()
            self._run(0)
            lives.append(time.perf_counter() - started)
        self._life = statistics.median(lives)
        while self.report.kills.total() < kills:
            self._run(min(self._random.randint(1, MOST_KILLS), kills - self.report.kills.total()))
        self._check_logs()
        return self.report

    def _run(self, kills: int) -> None:
        """One run, killed so many times unless it ends before."""
        job, first = self._job(), len(self.biller.requests)
        self.report.runs += 1
        written: list[tuple[int, frozenset[str]]] = []
        for _ in range(kills):
            size = _size(self._logs[0])
            if not self._hit(job):
                break
            found = asyncio.run(_read(job))
            written.append((len(self.biller.requests), found.written))
            self.report.before += found.state is None
            self.report.nested += found.is_nested
            has_ended = found.state is not None and found.state.get("answer") is not None
            self.report.ended += not has_ended and _size(self._logs[0]) > size
            if self._random.random() < REPAIRS:
                self._repair()
        self.nursery.start(job)
        status = self.nursery.end()
        if status:
            self.report.faults.append(f"run {job.thread}: the last process ended with {status}")
            return
        self._check_paid_again(job, written)
        self._check_end(job, first)

    def _job(self) -> Job:
        number, endings = self.report.runs, get_args(Ending)
        return Job(
            thread=f"{self.durability}-{self.seed}-{number}",
            store=self.store,
            provider=self.biller.base_url,
            log=str(self._logs[0]),
            ending=endings[number % len(endings)],
            inner_log=str(self._logs[1]) if number // len(endings) % 2 else None,
            durability=self.durability,
        )

    def _hit(self, job: Job) -> bool:
        """Start a victim and kill it; False where it had ended before."""
        mode = self._random.choices(list(MODES), list(MODES.values()))[0]
        booked, size = len(self.biller.requests), _size(self._logs[0])
        asked = booked + self._random.randint(1, _REQUESTS)
        with _process(self.nursery.start(job)) as process:
            if mode == "any moment":
                process.has_ended(self._random.uniform(0.0, self._life))
            elif mode == "after a request":
                while len(self.biller.requests) < asked and not process.has_ended(_POLL):
                    pass
            else:
                while _size(self._logs[0]) == size and not process.has_ended(_POLL):
                    pass
            if not process.has_ended(self._random.uniform(0.0, _SLACK.get(mode, 0.0))):
                process.kill()
        status = self.nursery.end()
        if status == signal.SIGKILL:
            self.report.kills[mode] += 1
        elif status:
            self.report.faults.append(f"run {job.thread}: a process ended with {status}")
        return status == signal.SIGKILL

    def _repair(self) -> None:
        self.report.repairs += 1
        for log in self._logs:
            if log.exists() or spool_folder(log).exists():
                repair(log)

    def _check_paid_again(self, job: Job, written: list[tuple[int, frozenset[str]]]) -> None:
        for first, steps in written:
            for booked in self.biller.since(first):
                if booked.step in steps:
                    self.report.paid_again.append(f"run {job.thread}: {booked.step}, {booked.attempt}")

    def _check_end(self, job: Job, first: int) -> None:
        """Hold the last state of a run against the books, from its first request on."""
        state = asyncio.run(_read(job)).state
        assert state is not None
        self._ended[state["run"]["id"]] = state
        if state["answer"] != EXPECTED:
            self.report.wrong_answers.append(f"run {job.thread}: {state['answer']}")
        charges = _requests(state["turns"])
        for attempt, number in Counter(booked.attempt for booked in self.biller.since(first)).items():
            charge = charges.get(attempt)
            if charge is None or number > 1:
                self.report.not_in_ledger.append(f"run {job.thread}: {attempt}, sent {number} times: {charge}")
            elif attempt in self.biller.billed_attempts:
                self._check_billed(job, attempt, charge)
        for attempt, charge in charges.items():
            is_unknown = attempt not in self.biller.billed_attempts
            self.report.unsent += is_unknown and charge["status"] == "uncertain"
            if is_unknown and (charge["status"] == "paid" or charge["dollars"]):
                self.report.faults.append(f"run {job.thread}: {attempt} was never billed: {charge}")

    def _check_billed(self, job: Job, attempt: str, charge: Charge) -> None:
        self.report.billed += 1
        self.report.uncertain += charge["status"] == "uncertain"
        is_paid = charge["status"] == "paid" and abs(charge["dollars"] - DOLLARS) < 1e-12
        if not is_paid and not charge.get("upper", 0.0) >= DOLLARS:
            self.report.not_in_ledger.append(f"run {job.thread}: {attempt}: {charge}")

    def _check_logs(self) -> None:
        """The last line of each run says what its state says; runs that never had a checkpoint have paid nothing."""
        self._repair()
        read = ReadReport()
        lines = {run.run_id: run for run in read_runs(self._logs[0], report=read)}
        self.report.torn = read.faults["torn"]
        for run_id, state in self._ended.items():
            line = lines.pop(run_id, None)
            if line is None or (line.answer, line.totals, line.ended) != (state["answer"], state["ledger"], "answered"):
                self.report.faults.append(f"the log's last line of {run_id} is not what its state says")
            elif [turn["charges"] for turn in line.turns] != [turn["charges"] for turn in state["turns"].values()]:
                self.report.faults.append(f"the log's last line of {run_id} holds other charges than its state")
        for run_id, line in lines.items():
            if line.turns:
                self.report.faults.append(f"{run_id} stands in the log with turns, and in no state")
        for log in self._logs:
            self.report.faults += [f"a journal is left: {file}" for file in spool_folder(log).glob("*.jsonl")]


def _requests(turns: dict[str, Any]) -> dict[str, Charge]:
    """Charges of model requests, by attempt: without the calls around it, and its number within the attempt, 0."""
    return {
        key.rpartition("/")[2].removesuffix(".0"): charge
        for turn in turns.values()
        for key, charge in turn["charges"].items()
        if key.endswith(".0")
    }


async def _read(job: Job) -> Found:
    """What is in the store."""
    written: set[str] = set()
    newest: dict[str, dict[str, Any]] = {}
    async with saver_of(job.store) as saver:
        async for checkpoint in saver.alist(job.config):
            values = checkpoint.checkpoint["channel_values"]
            newest.setdefault(checkpoint.config["configurable"]["checkpoint_ns"], values)
            turns = values.get("turns", {})
            for _, channel, update in checkpoint.pending_writes or ():
                if channel == "turns" and isinstance(update, dict):  # an empty one overwrites, when a run begins
                    turns = merge_turns(turns, update)
            written |= _steps(values.get("run", {}).get("question", ""), turns)
    state = newest.pop("", None)
    is_nested = any("run" in values and values.get("answer") is None for values in newest.values())
    return Found(state, frozenset(written), is_nested)


def _steps(question: str, turns: dict[str, Any]) -> set[str]:
    """The steps whose results turns hold, by the names that the provider has for them."""
    name = "router" if question.startswith("What") else f"inner {question}"
    steps = {f"{name} {turn['index']}" for turn in turns.values() if turn["decision"]["by"] == "router"}
    for turn in turns.values():
        for call in turn["decision"]["calls"]:
            if call["id"] in turn["outcomes"]:
                steps.add(f"{call['tool']} {call['args'].get('request', '')}".strip())
    return steps


@dataclass(frozen=True)
class _Process:
    """A process by its descriptor, which never comes to mean another one, as its number may."""

    descriptor: int

    def has_ended(self, seconds: float) -> bool:
        """Wait, at most until it has ended."""
        return bool(select.select([self.descriptor], [], [], seconds)[0])

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it has ended in the last microseconds
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)


@contextmanager
def _process(pid: int) -> Iterator[_Process]:
    descriptor = os.pidfd_open(pid)
    try:
        yield _Process(descriptor)
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
