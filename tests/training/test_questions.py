"""Questions of one's own: what is read, what is refused, and who judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestra_training.questions import Judges, Question, read_questions
from orchestra_training.verdicts import Judge, Mathematics

from orchestra_graph.errors import ConfigError
from orchestra_graph.testing import ScriptedExpert
from orchestra_graph.tools.sandbox import Subprocess


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ({"answer": "Paris"}, "paris.", "Lyon"),
        ({"answer": ["Paris", "Ville de Paris"]}, "Ville de Paris", None),
        ({"answer": "42", "verdict": "numeric"}, "It is 42.001.", "43"),
        ({"answer": "42", "verdict": "numeric", "tolerance": 0.5}, "43", "420"),
        ({"answer": "the capital", "verdict": "judge"}, "Paris, the capital", "Lyon"),
    ],
)
async def test_each_rule_judges(question: dict[str, Any], right: str, wrong: str | None) -> None:
    model = ScriptedExpert(lambda prompt: "CORRECT" if "Paris" in prompt else "INCORRECT")
    judges = Judges(judge=Judge(model, name="m"))
    asked = Question.model_validate({"question": "Which one?", **question})
    judges.check([asked])
    assert (await judges.verdict(asked, right)).outcome == 1
    assert (await judges.verdict(asked, wrong)).outcome == 0


@pytest.mark.slow
async def test_mathematics_judges() -> None:
    judges = Judges(mathematics=Mathematics(Subprocess(trusted=True, memory_mb=2048)))
    asked = Question(question="Simplify.", answer=r"\frac{1}{2}", verdict="mathematics")
    assert (await judges.verdict(asked, "0.5")).outcome == 1
    assert (await judges.verdict(asked, "0.6")).outcome == 0


async def test_a_judge_that_is_not_there_is_missed_before_anything_is_paid() -> None:
    asked = Question(question="Which one?", answer="x", verdict="judge")
    with pytest.raises(ConfigError, match=r"verdict 'judge' of 'Which one\?': nobody .* to give it; fix: --judge LINE"):
        Judges().check([asked])
    with pytest.raises(ConfigError, match="nobody is there"):
        await Judges().verdict(asked, "x")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "a", "question": "Q?", "answer": ["x", "y"]}\n\n{"question": "R?", "answer": "2"}\n')
    first, second = read_questions(path)
    assert (first.id, first.reference, second.id, second.verdict) == ("a", "x / y", None, "exact")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"question": "Q?"}', r"q\.jsonl:2: answer"),
        ('{"question": "Q?", "answer": ""}', r"q\.jsonl:2: answer"),
        ('{"question": "Q?", "answer": []}', r"q\.jsonl:2: .*answer is empty"),
        ('{"question": "Q?", "answer": "x", "verdict": "guess"}', r"q\.jsonl:2: verdict = 'guess'"),
        ('{"question": "Q?", "answer": "x", "verdict": "numeric"}', r"q\.jsonl:2: .*could not convert"),
        ('{"question": "Q?", "answer": " "}', r"q\.jsonl:2: .*expected a text with at least one letter"),
        ('{"question": "Q?", "answer": ["x", "."]}', r"q\.jsonl:2: .*expected a text with at least one letter"),
        ('{"question": "Q?", "answer": "inf", "verdict": "numeric"}', r"q\.jsonl:2: .*expected a finite number"),
        ('{"question": "Q?", "answer": " ", "verdict": "judge"}', r"q\.jsonl:2: .*is blank; expected the right answer"),
        ('{"question": "Q?", "answer": ["1", "2"], "verdict": "judge"}', r"q\.jsonl:2: .*several answers under"),
        ("{", r"q\.jsonl:2: record"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"question": "Q?", "answer": "x"}}\n{line}\n')
    with pytest.raises(ConfigError, match=told):
        read_questions(path)


def test_no_questions(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="holds no question"):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_questions(tmp_path / "none.jsonl")
