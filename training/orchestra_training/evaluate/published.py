"""Files of published benchmarks, as they are downloaded, by their published field names.

    HLE (cais/hle)                 id, question, image, answer, answer_type, category; JSON lines, JSON or Parquet
    FRAMES (google/frames-benchmark)   Prompt, Answer, reasoning_types; TSV, JSON lines or Parquet
    ToolScale (nvidia/ToolScale)   id, user_scenario, evaluation_criteria; JSON lines, JSON or Parquet
    questions of one's own         `orchestra_training.questions`

Answers to HLE and FRAMES are judged by a chat model, as in the paper. Left out: questions of HLE that show an image,
which no router here can read; they are counted. The field names were read from the published cards; no file of them was
at hand to run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra_graph.errors import ConfigError, MissingError
from orchestra_training.checked import checked
from orchestra_training.questions import Question, Text, read_questions

Format = Literal["questions", "hle", "frames", "toolscale"]

_LONGEST_FIELD: Final = 10_000_000
"""Characters of a field of a TSV file; FRAMES holds lists of links."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what sort of question it is."""

    question: Question
    kind: str


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """The questions of a file."""

    format: Format
    asked: Sequence[Asked]
    left_out: int = 0
    """Questions that show an image."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class _Hle(_Row):
    id: Text
    question: Text
    answer: Text
    image: Any = None
    category: str | None = None


class _Frames(_Row):
    prompt: Text = Field(alias="Prompt")
    answer: Text = Field(alias="Answer")
    reasoning_types: str | None = None

    @property
    def kind(self) -> str:
        """The first kind of reasoning that it takes."""
        return (self.reasoning_types or "").partition(" | ")[0] or "frames"


def _stated(value: Any) -> Any:
    """A value without the fields that are null, at any depth."""
    if isinstance(value, Mapping):
        return {name: _stated(field) for name, field in value.items() if field is not None}
    return [_stated(item) for item in value] if isinstance(value, list | tuple) else value


class Action(_Row):
    """A golden call of ToolScale."""

    name: Text
    arguments: dict[str, Any] = Field(default_factory=dict)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments that are stated: Parquet fills in those of all functions, as null."""
        return {name: _stated(value) for name, value in self.arguments.items() if value is not None}


class _Criteria(_Row):
    actions: list[Action] = Field(default_factory=list)
    communicate_info: list[str] | None = None


class _Instructions(_Row):
    domain: Text
    task_instructions: str | None = None
    reason_for_call: str | None = None
    known_info: str | None = None
    unknown_info: str | None = None


class _Scenario(_Row):
    instructions: _Instructions


class ServiceTask(_Row):
    """A task of ToolScale."""

    id: Text
    user_scenario: _Scenario
    evaluation_criteria: _Criteria

    @property
    def domain(self) -> str:
        """Which functions and database it is about."""
        return self.user_scenario.instructions.domain

    @property
    def instruction(self) -> str:
        """All that the user would say in a conversation, at once."""
        told = self.user_scenario.instructions
        parts = (told.task_instructions, told.reason_for_call, told.known_info, told.unknown_info)
        return "\n".join(part.strip() for part in parts if part and part.strip())


def format_of(path: Path) -> Format:
    """What a file is, by the fields of its first row.

    Raises:
        ConfigError: It cannot be read, or is none of them.
    """
    first = next(iter(_rows(path)), None)
    if first is None:
        raise ConfigError(f"{path}: holds nothing; expected questions")
    fields = first[1].keys()
    if {"user_scenario", "evaluation_criteria"} <= fields:
        return "toolscale"
    if {"Prompt", "Answer"} <= fields:
        return "frames"
    if {"question", "answer", "answer_type"} <= fields:
        return "hle"
    if {"question", "answer"} <= fields:
        return "questions"
    raise ConfigError(
        f"{path}: fields {', '.join(sorted(fields))[:200]}; expected question and answer, or those of HLE, FRAMES or "
        "ToolScale"
    )


def read_question_file(path: Path) -> QuestionFile:
    """The questions of a file that needs no world around it.

    Raises:
        ConfigError: It cannot be read, or is of ToolScale; names file, row and field.
    """
    found = format_of(path)
    if found == "questions":
        return QuestionFile(found, [Asked(question, question.verdict) for question in read_questions(path)])
    if found == "hle":
        rows = [(place, checked(_Hle, row, place)) for place, row in _rows(path)]
        seen = [(place, row) for place, row in rows if not row.image]
        asked = [_asked(place, row.id, row.question, row.answer, row.category or "hle") for place, row in seen]
        return QuestionFile(found, asked, left_out=len(rows) - len(seen))
    if found == "frames":
        read = [(place, checked(_Frames, row, place)) for place, row in _rows(path)]
        return QuestionFile(
            found,
            [_asked(place, f"frames-{n}", row.prompt, row.answer, row.kind) for n, (place, row) in enumerate(read)],
        )
    raise ConfigError(f"{path}: tasks of ToolScale need their functions; fix: --world FILE.py:NAME")


def read_service_tasks(path: Path) -> list[ServiceTask]:
    """The tasks of a file of ToolScale.

    Raises:
        ConfigError: It cannot be read; names file, row and field.
    """
    return [checked(ServiceTask, row, place) for place, row in _rows(path)]


def _asked(place: str, id: str, question: str, answer: str, kind: str) -> Asked:
    fields = {"id": id, "question": question, "answer": answer, "verdict": "judge"}
    return Asked(checked(Question, fields, place), kind)


def _rows(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Rows with their places."""
    try:
        if path.suffix == ".parquet":
            rows: Iterable[Any] = _parquet(path)
        else:
            text = path.read_text(encoding="utf-8")
            rows = _tsv(text) if path.suffix in (".tsv", ".csv") else _json(text, path)
    except (OSError, UnicodeDecodeError) as error:
        known = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        reason = known or " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}; expected questions") from error
    for number, row in enumerate(rows, start=1):
        place = f"{path}: row {number}"
        if not isinstance(row, Mapping):
            raise ConfigError(f"{place}: {row!r:.60}; expected an object")
        yield place, row


def _tsv(text: str) -> Iterable[Any]:
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.DictReader(io.StringIO(text), delimiter="\t")


def _json(text: str, path: Path) -> Iterable[Any]:
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        # Not `splitlines`: texts may hold what Unicode takes for the end of a line.
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON: {error}; expected a JSON object a line, or a list of them") from error


def _parquet(path: Path) -> Iterable[Any]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingError("the package pyarrow", "pip install 'orchestra-graph[train]'") from error
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise ConfigError(f"{path}: no Parquet: {' '.join(str(error).split())}; expected questions") from error
    return rows
