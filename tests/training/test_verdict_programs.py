from __future__ import annotations

from typing import Any

import pytest
from orchestra_training.verdicts import Call, Case, check_function, check_program
from orchestra_training.verdicts.programs import code_of

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.sandbox import Bubblewrap

CALLS = [Call([[1, 2, 3]], 6), Call([[]], 0), Call([[-1]], -1)]
GOOD = "```python\ndef solve(xs):\n    return sum(xs)\n```"
DOUBLE = "for line in open(0):\n    print(int(line) * 2, ' ')"


@pytest.fixture(scope="module")
def sandbox() -> Bubblewrap:
    return Bubblewrap(memory_mb=128)


def fence(code: str) -> str:
    return f"First:\n```\nnot this\n```\nHere it is.\n```py\n{code}\n```\nDone."


async def test_a_function_that_returns_what_it_must(sandbox: Bubblewrap) -> None:
    verdict = await check_function(GOOD, "solve", CALLS, sandbox)
    assert (verdict.outcome, verdict.by) == (1, "tests")


async def test_what_a_function_prints_does_not_matter(sandbox: Bubblewrap) -> None:
    code = "print('loading')\ndef solve(xs):\n    print('[[1]]', end='')\n    return sum(xs)"
    assert (await check_function(fence(code), "solve", CALLS, sandbox)).outcome == 1


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def solve(xs): return 6", "2 of 3 calls, the first one number 2: another result"),
        ("def solve(xs): return xs[0] if len(xs) < 2 else sum(xs)", "1 of 3 calls, the first one number 2: IndexError"),
        ("def solve(xs): return {1}", "3 of 3 calls, the first one number 1: TypeError"),
        ("def solve(xs): return float('nan')", "3 of 3 calls, the first one number 1: ValueError"),
        ("def other(xs): return 6", "3 of 3 calls, the first one number 1: NameError"),
        ("def solve(xs) return 6", "SyntaxError: expected ':'"),
        ("def solve(xs):\n    while True: pass", "stopped after 2 s"),
        ("import sys; sys.exit(0)", "the program ended before its tests"),
        ("import os; os._exit(0)", "the program ended before its tests"),
        ("print('[[6], [0], [-1]]', flush=True); import os; os._exit(3)", "the program ended before its tests"),
        ("x = 'a' * 10**9", "MemoryError"),
        ("print('x' * 10**6)", "output cut at 64 KB"),
        ("class A:\n    def __eq__(self, other): return True\ndef solve(xs): return A()", "3 of 3 calls"),
    ],
)
async def test_what_fails_hidden_tests(sandbox: Bubblewrap, code: str, why: str) -> None:
    verdict: Any = await check_function(fence(code), "solve", CALLS, sandbox, timeout=2)
    assert verdict.outcome == 0
    assert why in verdict.reason


@pytest.mark.parametrize(
    "answer",
    [
        "It prints 3:\n```python\nprint(3)\n```\n```\n3\n```",
        "```text\nas asked\n```\n```\nprint(3)\n```",
        "```python\nprint(2)\n```\nBetter:\n```python\nprint(3)",
    ],
)
def test_the_program_is_found_among_other_blocks(answer: str) -> None:
    assert code_of(answer).strip() == "print(3)"


async def test_no_answer_fails(sandbox: Bubblewrap) -> None:
    assert (await check_function(None, "solve", CALLS, sandbox)).outcome == 0
    assert (await check_program(None, [Case("1\n", "2\n")], sandbox)).outcome == 0


async def test_a_program_that_writes_what_it_must(sandbox: Bubblewrap) -> None:
    verdict = await check_program(DOUBLE, [Case("1\n", "2"), Case("2\n3\n", "4 \n6\n\n")], sandbox)
    assert (verdict.outcome, verdict.by) == (1, "tests")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (DOUBLE.replace("2", "3"), "case 1 of 2: another output"),
        (DOUBLE + "\nraise SystemExit(3)", "case 1 of 2: exit code 3"),
        ("print(2)", "case 2 of 2: another output"),
    ],
)
async def test_what_fails_a_case(sandbox: Bubblewrap, code: str, why: str) -> None:
    verdict: Any = await check_program(code, [Case("1\n", "2"), Case("2\n", "4")], sandbox)
    assert (verdict.outcome, verdict.reason) == (0, why)


async def test_tests_that_are_none(sandbox: Bubblewrap) -> None:
    with pytest.raises(ConfigError, match="expected at least one"):
        await check_program(DOUBLE, [], sandbox)
    with pytest.raises(ConfigError, match="expected at least one"):
        await check_function(GOOD, "solve", [], sandbox)
    with pytest.raises(ConfigError, match="function name 'a b'; expected an identifier"):
        await check_function(GOOD, "a b", CALLS, sandbox)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nor\n```Python3 \nx = 2\n```", "x = 2\n"),
        ("```bash\nls\n```\n```python\nx = 1\n```", "x = 1\n"),
    ],
)
def test_code_of_an_answer(answer: str, code: str) -> None:
    assert code_of(answer) == code
