"""Through the real `math-verify`, in the real sandbox."""

from __future__ import annotations

from typing import Any

import pytest
from orchestra_training.verdicts import Mathematics

from orchestra_graph.errors import MissingError, ToolError
from orchestra_graph.tools.sandbox import Bubblewrap, Execution

pytestmark = pytest.mark.slow

SAME = [
    ("1/2", "0.5"),
    ("The answer is $\\frac{1}{2}$.", "1/2"),
    ("Therefore \\boxed{42}", "42"),
    ("x**2 + 1", "1+x^2"),
    ("sqrt(2)/2", "\\frac{1}{\\sqrt{2}}"),
    ("2*sin(x)*cos(x)", "sin(2*x)"),
    ("{1, 2}", "$\\{2,1\\}$"),
    ("x = 5", "5"),
    ("1,234", "1234"),
    ("(2, 3)", "(2,3)"),
    ("pi/4", "\\frac{\\pi}{4}"),
    ("**42**", "42"),
    ("`x = 3`", "3"),
    ("2**3", "8"),
    ("3*sqrt(x+(1))", "3\\sqrt{x+1}"),
    ("sqrt(sqrt(16))", "2"),
]
DIFFERENT = [
    ("x^2 + 1", "1"),
    ("41", "42"),
    ("(3, 2)", "(2, 3)"),
    ("2*x", "x"),
    ("3*sqrt(x+(1))", "3"),
    ("I do not know", "5"),
    ("", "5"),
]
HARMFUL = [("__import__('os').system('touch /tmp/x')", "5"), ("10**10**10", "3"), ("9999**9999**9999", "1")]


async def test_answers_are_compared_as_mathematics() -> None:
    judge = Mathematics(Bubblewrap())
    verdicts = await judge.verdicts([*SAME, *DIFFERENT, *HARMFUL, (None, "42"), ("5", "nothing here")])
    assert [v.outcome for v in verdicts] == [
        *[1.0] * len(SAME),
        *[0.0] * (len(DIFFERENT) + len(HARMFUL) + 1),
        None,
    ]
    assert {v.by for v in verdicts} == {"math-verify"}
    assert verdicts[-1].model_extra == {"reason": "the reference holds no mathematics"}
    assert verdicts[-2].model_extra == {"reason": "the answer holds no mathematics"}


async def test_more_answers_are_judged_than_one_process_can_speak_of() -> None:
    pairs = [(str(number % 2), "1") for number in range(1_500)]
    verdicts = await Mathematics(Bubblewrap(output_kb=24)).verdicts(pairs)
    assert [v.outcome for v in verdicts] == [0.0, 1.0] * 750


async def test_an_answer_that_hangs_is_wrong_and_the_next_one_is_judged() -> None:
    verdicts: list[Any] = await Mathematics(_Stuck(), seconds=1).verdicts([("1", "1"), ("666", "666"), ("2", "2")])
    assert [v.outcome for v in verdicts] == [1, 0, 1]
    assert verdicts[1].reason == "it takes longer than 4 s, or ends the process"


async def test_a_reference_that_hangs_gives_no_outcome() -> None:
    verdicts = await Mathematics(_Dying(["ready"]), seconds=1).verdicts([("1", "1")])
    assert [v.outcome for v in verdicts] == [None]
    verdicts = await Mathematics(_Dying(["ready", "true"]), seconds=1).verdicts([("1", "1")])
    assert [v.outcome for v in verdicts] == [0]


async def test_a_sandbox_without_the_package_is_an_error() -> None:
    with pytest.raises(ToolError, match="math-verify did not start: ModuleNotFoundError: No module named"):
        await Mathematics(_Dying([], "Traceback\nModuleNotFoundError: No module named 'math_verify'")).verdicts(
            [("1", "1")]
        )


async def test_nothing_to_judge() -> None:
    assert await Mathematics(_Dying([])).verdicts([]) == []


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra_training.verdicts.mathematics.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"math-verify.*pip install 'orchestra-graph\[verdicts\]'"):
        Mathematics(_Dying([]))


class _Stuck:
    """A sandbox whose `math-verify` computes for ever over one number, inside one call that answers no signal."""

    _PATCH = """
import math_verify
true_verify = math_verify.verify
math_verify.verify = lambda known, told, **rest: 9**9**9 if "666" in map(str, known) else true_verify(known, told)
"""

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        return await Bubblewrap().run(self._PATCH + code, timeout=timeout, stdin=stdin)


class _Dying:
    """A sandbox whose program ends where the test says."""

    def __init__(self, lines: list[str], stderr: str = "") -> None:
        self._lines = lines
        self._stderr = stderr

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        return Execution("\n".join(self._lines), self._stderr, 1)
