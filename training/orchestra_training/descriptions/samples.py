"""Sample tasks for tools: drawn from the workbench, or from questions of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.tools.base import Tool
from orchestra_graph.workbench import SKILLS, Workbench
from orchestra_graph.workbench.task import Task
from orchestra_training.evaluate.examples import Trial
from orchestra_training.questions import Judges, Question
from orchestra_training.verdicts.ruling import ruling


@dataclass(frozen=True, slots=True)
class Sample:
    """One task."""

    id: str
    question: str
    reference: str
    """The right answer, for the model that writes."""
    trial: Callable[[], Trial]
    """Makes what a run needs, anew for each run."""


def workbench_samples(catalog: Catalog, n: int, *, seed: int = 0) -> list[Sample]:
    """Training tasks of the workbench, solved by its programs.

    Args:
        catalog: Its tools are named as the workbench's.
        n: How many; the families take turns.
        seed: Another seed gives other tasks.

    Raises:
        ConfigError: The catalog has other tools.
    """
    strangers = [name for name in catalog.tools if name not in SKILLS]
    if strangers:
        raise ConfigError(
            f"{', '.join(strangers)}: no expert of the workbench ({', '.join(SKILLS)}); "
            "fix: give tasks of your own, which your own tools solve"
        )
    bench = Workbench()

    def sample(task: Task) -> Sample:
        def trial() -> Trial:
            world = bench.world(task)

            async def verdict(answer: str | None) -> Verdict:
                return ruling(await bench.verdict(task, answer, world), "workbench")

            return Trial(bench.tools(world, catalog=catalog), verdict)

        return Sample(task.id, task.question, task.reference, trial)

    return [sample(task) for task in bench.tasks("train", n, seed=seed)]


def question_samples(
    questions: Sequence[Question], tools: Sequence[Tool], judges: Judges, n: int, *, seed: int = 0
) -> list[Sample]:
    """Questions of one's own, solved by tools of one's own.

    Args:
        questions: Of which some are drawn.
        tools: The catalog's.
        judges: Who gives the verdicts.
        n: How many; all, where there are fewer.
        seed: Another seed draws others.

    Raises:
        ConfigError: There is nobody to judge one of them.
    """
    drawn = Random(seed).sample(list(questions), min(n, len(questions)))
    judges.check(drawn)

    def sample(place: int, question: Question) -> Sample:
        async def verdict(answer: str | None) -> Verdict:
            return await judges.verdict(question, answer)

        return Sample(
            question.id or f"question-{place}", question.question, question.reference, lambda: Trial(tools, verdict)
        )

    return [sample(place, question) for place, question in enumerate(drawn, 1)]
