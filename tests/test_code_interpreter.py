from __future__ import annotations

import orjson
import pytest

from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.base import Request, Result
from orchestra_graph.tools.code_interpreter import CodeInterpreter
from orchestra_graph.tools.sandbox import Execution, Subprocess


class Hosted:
    """A sandbox of another kind: answers what it was told to."""

    def __init__(self, reply: Execution | Exception) -> None:
        self.reply = reply
        self.asked: list[tuple[str, float, str]] = []

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        self.asked.append((code, timeout, stdin))
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


async def call(tool: CodeInterpreter, code: str) -> Result:
    return await tool.run(Request(args={"code": code}, question="?"))


async def test_runs_in_bubblewrap_unless_told_otherwise() -> None:
    tool = CodeInterpreter()
    result = await call(tool, "import os; print(2**10, os.path.exists('/etc/passwd'))")
    assert result.content == "1024 False"
    assert result.answer is None
    assert orjson.dumps(result.artifacts)
    assert result.artifacts[0]["exit_code"] == 0


async def test_error_in_the_code_is_content() -> None:
    result = await call(CodeInterpreter(Subprocess(trusted=True)), "print('before'); 1/0")
    assert result.content.startswith("before\n[stderr]\nTraceback")
    assert result.content.endswith("ZeroDivisionError: division by zero\n[exit code 1]")


async def test_timeout_is_told() -> None:
    tool = CodeInterpreter(Subprocess(trusted=True), timeout=0.3)
    result = await call(tool, "while True: pass")
    assert result.content == "[stopped after 0.3 s]"
    assert result.artifacts[0]["timed_out"] is True


async def test_any_sandbox_fits() -> None:
    hosted = Hosted(Execution("42\n", "", 0))
    result = await call(CodeInterpreter(hosted, timeout=3), "print(42)")
    assert result.content == "42"
    assert hosted.asked == [("print(42)", 3, "")]


async def test_sandbox_that_cannot_run_is_an_error_of_the_call() -> None:
    with pytest.raises(ToolError, match=r"the sandbox did not start: .*no more processes") as caught:
        await call(CodeInterpreter(Hosted(OSError(11, "no more processes"))), "1")
    assert caught.value.retryable
    with pytest.raises(ToolError, match="gone"):
        await call(CodeInterpreter(Hosted(ToolError("gone"))), "1")


def test_spec_is_what_the_router_reads() -> None:
    spec = CodeInterpreter(Hosted(Execution("", "", 0)), name="python", timeout=5).spec
    assert (spec.name, spec.kind, spec.required) == ("python", "code", ["code"])
    assert "after 5 seconds" in spec.description
    assert spec.limits.timeout > 5
    assert spec.validator.is_valid({"code": "1"})
    assert not spec.validator.is_valid({"code": 1})


def test_never_falls_back_to_an_open_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="bubblewrap is missing"):
        CodeInterpreter()


def test_wrong_timeout() -> None:
    with pytest.raises(ConfigError, match="timeout = -1: expected a number above 0"):
        CodeInterpreter(Hosted(Execution("", "", 0)), timeout=-1)
