"""Questions of one's own, with the rule by which an answer to each is judged: a file of JSON lines.

    {"id": "q1", "question": "What is 6 x 7?", "answer": "42", "verdict": "numeric"}
    {"question": "Which city is the capital of France?", "answer": ["Paris", "Ville de Paris"]}

Left out: tasks that change a database or are tested by programs; those need a world around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Verdict
from orchestra_training.checked import checked
from orchestra_training.verdicts import Judge, Mathematics, exact, numeric

Rule = Literal["exact", "numeric", "mathematics", "judge"]
"""The same text after normalisation, or one of several; the last number; the same mathematical object; what a chat
model says."""

Text = Annotated[str, Field(min_length=1)]


class Question(BaseModel):
    """One question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    question: Text
    answer: Text | tuple[Text, ...]
    """The right answer; several where any of them is right, which only `exact` takes."""
    verdict: Rule = "exact"
    tolerance: Annotated[float, Field(ge=0)] = 1e-4
    """Of `numeric`: how far a number may be off, as a share of the right one."""

    @model_validator(mode="after")
    def _consistent(self) -> Question:
        if self.verdict != "exact" and not isinstance(self.answer, str):
            raise ValueError(f"several answers under verdict {self.verdict!r}; expected one, or verdict 'exact'")
        if not self.answer:
            raise ValueError("answer is empty; expected at least one")
        # Each rule refuses by itself what it cannot judge by; asked here, it does so before anything is paid.
        if self.verdict == "exact":
            exact(None, self.answer)
        elif self.verdict == "numeric":
            numeric(None, float(self.reference), relative=self.tolerance)
        elif not self.reference.strip():
            raise ValueError(f"answer = {self.answer!r} is blank; expected the right answer")
        return self

    @property
    def reference(self) -> str:
        """The right answer as a text."""
        return self.answer if isinstance(self.answer, str) else " / ".join(self.answer)


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a file; blank lines are passed over.

    Raises:
        ConfigError: It cannot be read, or holds none; names file, line and field.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected questions, one JSON a line") from error
    questions = [checked(Question, line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise ConfigError(f"{path}: holds no question; expected one JSON a line, with question and answer")
    return questions


@dataclass(frozen=True, slots=True)
class Judges:
    """Those who give verdicts; the rules that need neither are always there."""

    mathematics: Mathematics | None = None
    judge: Judge | None = None

    def check(self, questions: Sequence[Question]) -> None:
        """Check that there is somebody for each rule; for the beginning, before anything is paid.

        Raises:
            ConfigError: Names the rule that nobody can apply.
        """
        there: dict[Rule, object] = {"mathematics": self.mathematics, "judge": self.judge}
        for question in questions:
            if question.verdict in there and there[question.verdict] is None:
                raise _missing(question)

    async def verdict(self, question: Question, answer: str | None) -> Verdict:
        """Judge an answer; None is not solved."""
        if question.verdict == "exact":
            return exact(answer, question.answer)
        if question.verdict == "numeric":
            return numeric(answer, float(question.reference), relative=question.tolerance)
        if question.verdict == "mathematics" and self.mathematics is not None:
            return (await self.mathematics.verdicts([(answer, question.reference)]))[0]
        if question.verdict == "judge" and self.judge is not None:
            return await self.judge.verdict(question.question, answer, question.reference)
        raise _missing(question)


def _missing(question: Question) -> ConfigError:
    option = "--judge LINE names a model that does; in Python: " if question.verdict == "judge" else ""
    return ConfigError(
        f"verdict {question.verdict!r} of {question.question[:60]!r}: nobody is there to give it; "
        f"fix: {option}Judges({question.verdict}=...)"
    )
