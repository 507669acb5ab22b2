"""Hidden tests: runs the code of an answer in a sandbox and compares what it returns, outside of it.

Expected results never enter the sandbox, so code cannot look them up, and a program that ends early has failed. Left
out: tests written as assertions, which run beside the code that they test and can be switched off by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.text import clean
from orchestra_graph.tools.sandbox import Sandbox
from orchestra_training.verdicts.ruling import ruling
from orchestra_training.verdicts.values import difference

_FENCE: Final = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
"""A fenced block, the last of which may lack its end."""
_PYTHON: Final = ("python", "python3", "py")
_HARNESS: Final = """

def _call_all():
    import json, sys
    def result(args):
        try:
            return json.dumps([{name}(*args)], allow_nan=False)
        except Exception as error:
            return json.dumps(type(error).__name__)
    results = [result(args) for args in json.load(sys.stdin)]
    print("\\n[" + ", ".join(results) + "]", flush=True)

_call_all()
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What a whole program reads, and what it must write; space at the ends of lines does not count."""

    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of a function, and what it must return, as JSON values."""

    args: Sequence[Any]
    result: Any


def code_of(answer: str) -> str:
    """The last fenced block of Python in an answer, or of no language, which else is sample output; or all of it."""
    found = _FENCE.findall(answer)
    python = [code for language, code in found if language.lower() in _PYTHON]
    blocks = python or [code for language, code in found if not language]
    return clean(blocks[-1] if blocks else answer)


async def check_program(answer: str | None, cases: Sequence[Case], sandbox: Sandbox, *, timeout: float = 10) -> Verdict:
    """Whether a program writes what it must, in all cases; stops at the first where it does not.

    Args:
        answer: Text with the program.
        cases: At least one.
        sandbox: Where it runs.
        timeout: Seconds for each case.

    Raises:
        ToolError: The sandbox could not run at all.
        ConfigError: There are no cases.
    """
    _some(cases)
    code = code_of(answer or "")
    for number, case in enumerate(cases, start=1):
        done = await sandbox.run(code, timeout=timeout, stdin=case.stdin)
        if done.exit_code != 0 or done.stopped or _lines(done.stdout) != _lines(case.stdout):
            why = done.stopped or (f"exit code {done.exit_code}" if done.exit_code else "another output")
            return ruling(False, "tests", f"case {number} of {len(cases)}: {why}")
    return ruling(True, "tests")


async def check_function(
    answer: str | None, name: str, calls: Sequence[Call], sandbox: Sandbox, *, timeout: float = 10
) -> Verdict:
    """Whether a function returns what it must, in all calls, made one after another in one process.

    Args:
        answer: Text with the function's code.
        name: Name of the function.
        calls: At least one.
        sandbox: Where it runs.
        timeout: Seconds for all calls together.

    Raises:
        ToolError: The sandbox could not run at all.
        ConfigError: There are no calls, or the name is none.
    """
    _some(calls)
    if not name.isidentifier():
        raise ConfigError(f"function name {name!r}; expected an identifier of Python")
    given = json.dumps([list(call.args) for call in calls])
    done = await sandbox.run(code_of(answer or "") + _HARNESS.format(name=name), timeout=timeout, stdin=given)
    results = _results(done.stdout, len(calls)) if done.exit_code == 0 and not done.stopped else None
    if results is None:
        return ruling(False, "tests", done.stopped or _last_line(done.stderr) or "the program ended before its tests")
    failed = [n for n, call in enumerate(calls) if difference(results[n], [call.result]) is not None]
    if not failed:
        return ruling(True, "tests")
    first = results[failed[0]]
    told = first if isinstance(first, str) else "another result"
    return ruling(False, "tests", f"{len(failed)} of {len(calls)} calls, the first one number {failed[0] + 1}: {told}")


def _results(stdout: str, count: int) -> list[Any] | None:
    """What the harness wrote last; None where it wrote nothing of the kind."""
    try:
        results = json.loads(_last_line(stdout))
    except (ValueError, RecursionError):
        return None
    return results if isinstance(results, list) and len(results) == count else None


def _some(tests: Sequence[object]) -> None:
    if not tests:
        raise ConfigError("tests = []; expected at least one")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
