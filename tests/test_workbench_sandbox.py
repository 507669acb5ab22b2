"""Programs of the workbench run once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from orchestra_graph.errors import ToolError
from orchestra_graph.tools.sandbox import Execution, Sandbox, Subprocess
from orchestra_graph.workbench import Workbench
from orchestra_graph.workbench.sandbox import REMEMBERED, Remembered, shared_sandbox, warn_of_answers


@dataclass
class Counting:
    """A sandbox that notes what it is asked to run."""

    sandbox: Sandbox = field(default_factory=lambda: Subprocess(trusted=True))
    asked: list[str] = field(default_factory=list)

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        self.asked.append(code + stdin)
        return await self.sandbox.run(code, timeout=timeout, stdin=stdin)


class Quick:
    """A sandbox that runs nothing."""

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        if code == "broken":
            raise ToolError("does not start")
        return Execution(stdout=code, stderr="", exit_code=0)


async def test_the_same_program_on_the_same_input_runs_once() -> None:
    counting = Counting()
    sandbox = Remembered(counting)
    code = "print(input() * 2)"
    both = await asyncio.gather(sandbox.run(code, stdin="ab"), sandbox.run(code, stdin="ab"))
    assert [execution.stdout for execution in (*both, await sandbox.run(code, stdin="ab"))] == ["abab\n"] * 3
    assert (await sandbox.run(code, stdin="c")).stdout == "cc\n"
    assert counting.asked == [code + "ab", code + "c"]


async def test_what_was_stopped_runs_again() -> None:
    counting = Counting()
    sandbox = Remembered(counting)
    code = "import time; time.sleep(0.5); print('done')"
    assert (await sandbox.run(code, timeout=0.1)).timed_out
    assert (await sandbox.run(code)).stdout == "done\n" and counting.asked == [code, code]


async def test_what_was_killed_runs_again() -> None:
    counting = Counting()
    sandbox = Remembered(counting)
    code = "import os; os.kill(os.getpid(), 9)"
    assert [(await sandbox.run(code)).exit_code for _ in range(2)] == [137, 137]
    assert counting.asked == [code, code]


async def test_who_is_cancelled_leaves_the_others_their_execution() -> None:
    counting = Counting()
    sandbox = Remembered(counting)
    code = "import time; time.sleep(0.3); print('done')"
    first, second = asyncio.create_task(sandbox.run(code)), asyncio.create_task(sandbox.run(code))
    await asyncio.sleep(0.1)
    first.cancel()
    assert (await second).stdout == "done\n" and first.cancelled() and counting.asked == [code]


def test_each_loop_has_its_own_and_reads_what_others_left() -> None:
    counting = Counting(Quick())
    sandbox = Remembered(counting)
    for _ in range(2):
        assert asyncio.run(sandbox.run("x")).stdout == "x"
    assert counting.asked == ["x"]


async def test_a_sandbox_that_fails_is_asked_again() -> None:
    counting = Counting(Quick())
    sandbox = Remembered(counting)
    for _ in range(2):
        with pytest.raises(ToolError, match="does not start"):
            await sandbox.run("broken")
    assert counting.asked == ["broken", "broken"]


async def test_that_answers_are_judged_without_a_sandbox_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    bench = Workbench()
    (task,) = bench.tasks("train", 1, families=["programming"])
    world = bench.world(task)
    for kept in (shared_sandbox, warn_of_answers):
        kept.cache_clear()
    try:
        bench.tools(world)
        assert caplog.messages == []
        verdicts = [
            await bench.verdict(task, answer, world) for answer in ("def solve(xs): return 'no'", task.reference)
        ]
    finally:
        for kept in (shared_sandbox, warn_of_answers):
            kept.cache_clear()
    (said,) = caplog.messages
    assert verdicts == [False, True]
    assert "without a sandbox" in said and "bubblewrap is missing; fix: " in said


async def test_the_oldest_is_forgotten() -> None:
    counting = Counting(Quick())
    sandbox = Remembered(counting)
    for n in range(REMEMBERED + 1):
        await sandbox.run(str(n))
    await sandbox.run(str(REMEMBERED))
    assert len(counting.asked) == REMEMBERED + 1
    await sandbox.run("0")
    assert counting.asked[-1] == "0" and len(counting.asked) == REMEMBERED + 2
