"""Sets of a user's own: questions with reference answers, and tasks of ToolScale in the world that they change.

A world of ToolScale is one's own, since its databases and functions are: an object that has

    tools(domain) -> Sequence[ToolLike]      functions on a fresh database, anew for each run
    visit(domain, calls) -> Visit            what a sequence of (name, args) leaves of a fresh database

Left out: the simulated user of tau2; the instruction is given at once, and the answer is all that the user is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestra_graph.catalog import Catalog
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.tools.adapt import ToolLike, as_tool
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_training.evaluate.examples import Example, ExampleSet, Trial
from orchestra_training.evaluate.published import read_question_file, read_service_tasks
from orchestra_training.questions import Judges, Question
from orchestra_training.verdicts import Visit, same_database

Call = tuple[str, Mapping[str, Any]]


class QuestionSet(ExampleSet):
    """Questions with reference answers, for one's own tools.

    Args:
        path: Questions of one's own, or a file of HLE or FRAMES; its name without suffix names the set.
        tools: The catalog's.
        judges: Who gives the verdicts.
        limit: Only the first ones.

    Raises:
        ConfigError: The file is wrong, or nobody is there to judge a question.
    """

    def __init__(self, path: Path, tools: Sequence[Tool], judges: Judges, *, limit: int | None = None) -> None:
        self.name = path.stem
        self.origin = str(path)
        self.file = read_question_file(path)
        self._asked = self.file.asked[:limit]
        self._tools = tools
        self._judges = judges
        self._catalog = Catalog.of(tool.spec for tool in tools)
        judges.check([asked.question for asked in self._asked])

    def __len__(self) -> int:
        return len(self._asked)

    def example(self, index: int) -> Example:
        """The question at a place."""
        asked = self._asked[index]
        return Example(
            index=index,
            unit=index,
            kind=asked.kind,
            task_id=asked.question.id or f"{self.name}-{index}",
            question=asked.question.question,
            catalog=self._catalog,
            judged_by=self._judged_by(asked.question),
        )

    def _judged_by(self, question: Question) -> str:
        """What a verdict follows from: the rule, the right answer, and the model where one says it."""
        judge = self._judges.judge if question.verdict == "judge" else None
        rule = question.model_dump_json(include={"answer", "verdict", "tolerance"})
        return _hash(rule if judge is None else rule + judge.by)

    def trial(self, example: Example) -> Trial:
        """The tools, which all runs share, and the rule of the question."""
        question = self._asked[example.index].question

        async def verdict(answer: str | None) -> Verdict:
            return await self._judges.verdict(question, answer)

        return Trial(self._tools, verdict)


class ServiceWorld(Protocol):
    """Databases and functions of ToolScale's domains."""

    def tools(self, domain: str) -> Sequence[ToolLike]:
        """The domain's functions on a fresh database."""

    def visit(self, domain: str, calls: Sequence[Call]) -> Visit:
        """What calls leave of a fresh database, and what they looked at or changed."""


class ServiceSet(ExampleSet):
    """Tasks of ToolScale: the three criteria of the paper, on the calls that the run made.

    Args:
        path: A file of ToolScale; its name without suffix names the set.
        world: The domains.
        experts: Tools of the catalog beside the domain's functions.
        limit: Only the first ones.

    Raises:
        ConfigError: The file is wrong.
    """

    def __init__(
        self, path: Path, world: ServiceWorld, experts: Sequence[Tool] = (), *, limit: int | None = None
    ) -> None:
        self.name = path.stem
        self.origin = str(path)
        self._tasks = read_service_tasks(path)[:limit]
        self._world = world
        self._experts = experts

    def __len__(self) -> int:
        return len(self._tasks)

    def example(self, index: int) -> Example:
        """The task at a place."""
        task = self._tasks[index]
        return Example(
            index=index,
            unit=index,
            kind=task.domain,
            task_id=task.id,
            question=task.instruction,
            catalog=Catalog.of(tool.spec for tool in self._tools(task.domain)),
            judged_by=_hash(task.evaluation_criteria.model_dump_json()),
        )

    def trial(self, example: Example) -> Trial:
        """Functions on a fresh database; the golden calls are carried out on another one."""
        task = self._tasks[example.index]
        calls: list[Call] = []
        criteria = task.evaluation_criteria
        functions = [_Noted(as_tool(tool), calls) for tool in self._world.tools(task.domain)]

        async def verdict(answer: str | None) -> Verdict:
            golden = self._world.visit(task.domain, [(action.name, action.args) for action in criteria.actions])
            run = self._world.visit(task.domain, calls)
            return same_database(run, golden, said=answer or "", required=criteria.communicate_info or ())

        return Trial([*functions, *self._experts], verdict)

    def _tools(self, domain: str) -> list[Tool]:
        return [*map(as_tool, self._world.tools(domain)), *self._experts]


class _Noted(Tool):
    """A function that notes its calls: a run is judged by what they do to a fresh database."""

    def __init__(self, tool: Tool, calls: list[Call]) -> None:
        self.spec = tool.spec
        self.reads_evidence = tool.reads_evidence
        self._tool = tool
        self._calls = calls

    async def run(self, request: Request) -> Result:
        """Carry the call out, and note it if it did not fail."""
        result = await self._tool.run(request)
        self._calls.append((self.spec.name, dict(request.args)))
        return result


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
