"""Verdicts on mathematical answers, by `math-verify`.

It parses text of a model with SymPy, which can take for ever or run what it reads. So it works in a sandbox, many
answers to a process, since it takes about a second to start.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from orchestra_graph.errors import MissingError, ToolError
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.text import clean
from orchestra_graph.tools.sandbox import Sandbox
from orchestra_training.verdicts.ruling import ruling

BY: Final = "math-verify"
START_SECONDS: Final = 60.0
"""Time for the sandbox and SymPy to start, on the busiest machine."""
MAX_CHARACTERS: Final = 20_000
"""End of an answer that is read."""
MAX_PAIRS: Final = 1_000
"""Answers of one process: what it says of them must fit into the output that a sandbox takes, by default 64 KB."""

_PROGRAM: Final = r"""
import faulthandler, json, re, sys
from math_verify import parse, verify

seconds, pairs = json.load(sys.stdin)
ENVIRONMENT = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")
COMMAND = re.compile(r"\\[A-Za-z]+")
FUNCTION = re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|ln|log|exp|pi)(?![A-Za-z])")
ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
MARKED = re.compile(r"(\*{1,3}|_{1,3}|`)(?=\S)(.+?)(?<=\S)\1")

def bare(text):
    # An expression without the marks of LaTeX, which math-verify would search for a number.
    text = text.strip()
    marked = MARKED.fullmatch(text)  # bold in Markdown, which would be read as a power
    text = marked[2] if marked else text
    text = text.replace("**", "^")
    while ROOT.search(text):
        text = ROOT.sub(r"\\sqrt{\1}", text)
    text = FUNCTION.sub(r"\\\1", text)
    is_prose = re.search(r"[A-Za-z]{2}", COMMAND.sub(" ", text)) or "\n" in text
    return None if ENVIRONMENT.search(text) or is_prose else text

def read(text):
    expression = bare(text)
    found = [] if expression is None else parse(f"${expression}$", parsing_timeout=seconds)
    return found or parse(text, parsing_timeout=seconds)

print("ready", flush=True)
for answer, reference in pairs:
    # Ends the process where a soft limit cannot: inside a computation with huge numbers.
    faulthandler.dump_traceback_later(4 * seconds, exit=True)
    known = read(reference)
    print(json.dumps(bool(known)), flush=True)
    told = read(answer)
    equal = verify(known, told, timeout_seconds=seconds) if known and told else False
    print(json.dumps([bool(told), equal]), flush=True)
    faulthandler.cancel_dump_traceback_later()
"""


class Mathematics:
    """Whether answers are the expected mathematical objects: numbers, expressions, sets, matrices, intervals.

    Args:
        sandbox: Where answers are read. Its Python needs `math-verify`.
        seconds: Time for each step of an answer (two parses and a comparison).

    Raises:
        MissingError: `math-verify` is not installed.
    """

    def __init__(self, sandbox: Sandbox, *, seconds: int = 5) -> None:
        if find_spec("math_verify") is None:
            raise MissingError("the package `math-verify`", "pip install 'orchestra-graph[verdicts]'")
        self._sandbox = sandbox
        self._seconds = seconds

    async def verdicts(self, pairs: Sequence[tuple[str | None, str]]) -> list[Verdict]:
        """Judge answers.

        Args:
            pairs: An answer and its reference each, plain or LaTeX.

        Returns:
            In the order of the pairs; without an outcome where the reference is no mathematics.

        Raises:
            ToolError: The sandbox could not run at all.
        """
        given = [(clean(answer or "")[-MAX_CHARACTERS:], clean(reference)) for answer, reference in pairs]
        found: list[Verdict] = []
        while len(found) < len(given):
            found += await self._judge(given[len(found) :][:MAX_PAIRS])
        return found

    async def _judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts as far as one process comes; it ends at an answer that takes too long."""
        limit = START_SECONDS + 4.5 * self._seconds * len(pairs)
        done = await self._sandbox.run(_PROGRAM, timeout=limit, stdin=json.dumps([self._seconds, pairs]))
        ready, *lines = done.stdout.splitlines() or [""]
        if ready != "ready":
            raise ToolError(f"math-verify did not start: {done.stopped or _last_line(done.stderr)}")
        said = [json.loads(line) for line in lines]
        found = [_verdict(known, *rest) for known, rest in zip(said[::2], said[1::2], strict=False)]
        if len(found) < len(pairs):
            is_answers_fault = len(said) % 2
            why = done.stopped or f"it takes longer than {4 * self._seconds} s, or ends the process"
            found.append(ruling(0.0 if is_answers_fault else None, BY, why))
        return found


def _verdict(known: bool, told: bool, equal: bool) -> Verdict:
    if not known:
        return ruling(None, BY, "the reference holds no mathematics")
    return ruling(float(equal), BY, "" if told else "the answer holds no mathematics")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
