"""Files of questions and of published benchmarks: what is read, what is refused, and how runs on them are judged.

The published files are written here by their field names; none of the real ones is at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from orchestra_training.cli.eval_sets import open_questions, question_sets
from orchestra_training.evaluate.conditions import WorkbenchSet
from orchestra_training.evaluate.evaluation import Evaluation, carry_out, make_reference
from orchestra_training.evaluate.examples import ExampleSet
from orchestra_training.evaluate.play import REFUSED_IN_A_ROW
from orchestra_training.evaluate.published import format_of, read_question_file, read_service_tasks
from orchestra_training.evaluate.question_sets import QuestionSet, ServiceSet
from orchestra_training.evaluate.routers import parse_router
from orchestra_training.questions import Judges
from orchestra_training.verdicts import Visit
from pyarrow import parquet

from orchestra_graph.errors import ConfigError, ServerError
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.tools.adapt import ToolLike
from tests.openai_server import Answer, Body, OpenAIServer, Refusal, Reply

HLE = [
    {"id": "a1", "question": "2 + 2?", "image": "", "answer": "4", "answer_type": "exactMatch", "category": "Math"},
    {"id": "a2", "question": "See?", "image": "data:image/png,x", "answer": "B", "answer_type": "multipleChoice"},
]
FRAMES = (
    "\tPrompt\tAnswer\twikipedia_link_1\treasoning_types\twiki_links\n"
    "0\tWho?\tJane\tx\tMultiple constraints | Tabular reasoning\t['x']\n"
)


def service_task(**parts: Any) -> dict[str, Any]:
    """As the published card has it: Parquet fills in the arguments of all functions."""
    instructions = {
        "task_instructions": "Cancel order o1.",
        "reason_for_call": None,
        "known_info": "You are Ann.",
        "unknown_info": None,
        "domain": "shop",
    }
    action = {"action_id": "1", "name": "cancel", "arguments": {"order": "o1", "season": None}}
    return {
        "id": 7,
        "description": {"purpose": "", "relevant_policies": None, "notes": None},
        "user_scenario": {"persona": None, "instructions": instructions},
        "initial_state": None,
        "evaluation_criteria": {"actions": [action], "communicate_info": ["o1"], "nl_assertions": None},
        **parts,
    }


class Shop:
    """A world with one domain."""

    def tools(self, domain: str) -> Sequence[ToolLike]:
        assert domain == "shop"

        def cancel(order: str) -> str:
            """Cancel an order."""
            return f"{order} is cancelled"

        return [cancel]

    def visit(self, domain: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Visit:
        orders = {"o1": "open", "o2": "open"}
        for _, args in calls:
            orders[args["order"]] = "cancelled"
        return Visit({"orders": orders}, frozenset(("orders", args["order"]) for _, args in calls))


def test_hle_leaves_pictures_out_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "hle.jsonl"
    path.write_text("\n".join(map(json.dumps, HLE)))
    found = read_question_file(path)
    (asked,) = found.asked
    assert (found.format, found.left_out, asked.kind) == ("hle", 1, "Math")
    assert (asked.question.id, asked.question.reference, asked.question.verdict) == ("a1", "4", "judge")


def test_frames(tmp_path: Path) -> None:
    path = tmp_path / "frames.tsv"
    path.write_text(FRAMES)
    (asked,) = read_question_file(path).asked
    assert (asked.question.question, asked.question.reference, asked.kind) == ("Who?", "Jane", "Multiple constraints")


def test_kinds_that_are_null_have_the_name_of_the_set(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_text(json.dumps({"Prompt": "Who?", "Answer": "Jane", "reasoning_types": None}))
    assert [asked.kind for asked in read_question_file(path).asked] == ["frames"]
    path.write_text(json.dumps({**HLE[0], "category": None}))
    assert [asked.kind for asked in read_question_file(path).asked] == ["hle"]


def test_parquet_fills_in_the_fields_of_other_rows_at_any_depth(tmp_path: Path) -> None:
    rows = [service_task(), service_task()]
    given: list[dict[str, Any]] = [{"items": [{"sku": "a", "note": {"text": "x"}}]}, {"items": [{"name": "b"}]}]
    for row, arguments in zip(rows, given, strict=True):
        row["evaluation_criteria"] = {"actions": [{"name": "buy", "arguments": arguments}]}
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "tasks.parquet")
    read = [task.evaluation_criteria.actions[0].args for task in read_service_tasks(tmp_path / "tasks.parquet")]
    assert read == given


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x1c"])
def test_marks_within_a_text_end_no_line(tmp_path: Path, mark: str) -> None:
    own, frames = tmp_path / "own.jsonl", tmp_path / "frames.tsv"
    asked = {"question": f"Who{mark}was?", "answer": "Jane"}
    own.write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
    frames.write_text(FRAMES.replace("Who?", f"Who{mark}was?"), encoding="utf-8")
    for path in (own, frames):
        assert [found.question.question for found in read_question_file(path).asked] == [asked["question"]]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_toolscale(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"tasks.{kind}"
    tasks = [service_task(id="7")]
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(tasks), path)
    else:
        path.write_text(json.dumps(tasks) if kind == "json" else json.dumps(tasks[0]))
    assert format_of(path) == "toolscale"
    (task,) = read_service_tasks(path)
    assert (task.id, task.domain, task.instruction) == ("7", "shop", "Cancel order o1.\nYou are Ann.")
    assert [(a.name, a.args) for a in task.evaluation_criteria.actions] == [("cancel", {"order": "o1"})]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", "", "holds nothing"),
        ("a.jsonl", "{", r"a\.jsonl: no JSON"),
        ("a.jsonl", '{"prompt": "x"}', r"a\.jsonl: fields prompt; expected question and answer"),
        ("a.jsonl", "[1]", r"a\.jsonl: row 1: 1; expected an object"),
        ("a.tsv", "Prompt\tAnswer\nWho?\t\n", r"a\.tsv: row 1: Answer = ''"),
        ("a.jsonl", json.dumps(service_task()), "tasks of ToolScale need their functions; fix: --world"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_question_file(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_question_file(tmp_path / "nowhere.jsonl")


def test_nobody_is_there_to_judge(tmp_path: Path) -> None:
    (tmp_path / "hle.jsonl").write_text(json.dumps(HLE[0]))
    with pytest.raises(ConfigError, match="verdict 'judge' of '2 \\+ 2\\?': nobody is there"):
        QuestionSet(tmp_path / "hle.jsonl", [], Judges())


async def test_a_service_task_is_judged_by_what_its_calls_did(tmp_path: Path) -> None:
    from orchestra_graph.tools.base import Request  # noqa: PLC0415

    (tmp_path / "t.jsonl").write_text(json.dumps(service_task()))
    tasks = ServiceSet(tmp_path / "t.jsonl", Shop())
    example = tasks.example(0)
    assert (example.kind, list(example.catalog.tools)) == ("shop", ["cancel"])
    outcomes = []
    for order, said in (("o1", "o1 is cancelled"), ("o2", "o1 is cancelled"), ("o1", "Done.")):
        trial = tasks.trial(example)
        await trial.tools[0].run(Request({"order": order}, ""))
        outcomes.append((await trial.verdict(said)).outcome)
    assert outcomes == [1.0, 0.0, 0.0]


def test_a_reference_fits_tasks_whose_functions_give_no_answer(tmp_path: Path) -> None:
    """The graph adds the function that does; it is part of what their runs are given."""
    (tmp_path / "t.jsonl").write_text(json.dumps(service_task()))
    sets = [partial(ServiceSet, tmp_path / "t.jsonl", Shop())]
    first = Evaluation(routers=[parse_router("rules")], sets=sets, log=tmp_path / "first.jsonl")
    carry_out(first)
    make_reference(first, tmp_path / "reference.jsonl")
    again = replace(first, log=tmp_path / "again.jsonl", reference=tmp_path / "reference.jsonl")
    assert [run.score is not None for run in carry_out(again).runs.values()] == [True]


@pytest.fixture
def catalog(tmp_path: Path, openai_server: OpenAIServer) -> Path:
    """An expert that knows one capital, and a judge, on a real HTTP server."""

    def answer(body: Body) -> Reply:
        text = json.dumps(body["messages"])
        if body["model"] == "judge":
            return Reply("Same.\nCORRECT" if "Jane" in text.partition("answer>")[2] else "No.\nINCORRECT")
        return Reply("<answer>Paris</answer>" if "France" in text else "<answer>Jane</answer>")

    openai_server.script = answer
    lines = (
        'description = "Knows things."\nkind = "expert"\nterminal = true\nprice = { input = 1.0, output = 2.0 }\n'
        f'base_url = "{openai_server.base_url}"\n'
    )
    path = tmp_path / "catalog.toml"
    path.write_text(f'version = 1\n[tools.sage]\nmodel = "sage"\n{lines}[tools.grader]\nmodel = "judge"\n{lines}')
    return path


def test_questions_of_ones_own(tmp_path: Path, catalog: Path) -> None:
    path = tmp_path / "capitals.jsonl"
    path.write_text(
        '{"id": "f", "question": "Capital of France?", "answer": "Paris"}\n'
        '{"question": "Capital of Spain?", "answer": "Madrid"}\n'
    )
    (make,) = question_sets(
        [path], None, catalog=catalog, judge=None, models=None, world=None, verdicts=tmp_path / "verdicts"
    )
    log = tmp_path / "runs.jsonl"
    routers = [parse_router("fixed:sage"), parse_router("strongest")]
    outcome = carry_out(Evaluation(routers=routers, sets=[make], log=log))
    assert [run.solved for key, run in sorted(outcome.runs.items()) if key.router == "fixed:sage"] == [True, False]
    assert all(run.dollars > 0 for run in outcome.runs.values())
    runs = list(read_runs(log))
    assert {run.task.id for run in runs} == {"f", "capitals-1"}
    assert carry_out(Evaluation(routers=routers, sets=[make], log=log)).resumed == 4
    figures = outcome.tables(against="strongest", draws=100)["conditions"]["capitals"]
    assert figures["routers"]["fixed:sage"]["success"]["value"] == 0.5


def test_runs_of_another_catalog_or_judged_by_another_answer_are_run_again(tmp_path: Path, catalog: Path) -> None:
    path, log = tmp_path / "capitals.jsonl", tmp_path / "runs.jsonl"

    def resumed(answer: str, **rule: Any) -> int:
        path.write_text(json.dumps({"question": "Capital of France?", "answer": answer, **rule}))
        make = partial(open_questions, path, catalog, None, None, None, tmp_path / "verdicts", None)
        return carry_out(Evaluation(routers=[parse_router("fixed:sage")], sets=[make], log=log)).resumed

    assert [resumed("Lyon"), resumed("Lyon"), resumed("Paris"), resumed("Paris")] == [0, 1, 0, 1]
    assert [resumed("42"), resumed("42", verdict="numeric"), resumed("42", verdict="numeric", tolerance=0)] == [0, 0, 0]
    catalog.write_text(catalog.read_text().replace("Knows things.", "Knows little."))
    assert resumed("Paris") == 0
    log.write_text(re.sub(r',"judged_by":"\w+"', "", log.read_text()))
    assert resumed("Madrid") == 1


def test_another_judge_behind_the_same_line_is_asked_anew(
    tmp_path: Path, catalog: Path, openai_server: OpenAIServer
) -> None:
    path = tmp_path / "frames.tsv"
    path.write_text(FRAMES)
    for log, model in (("a.jsonl", "judge"), ("b.jsonl", "other")):
        catalog.write_text(catalog.read_text().replace('"judge"', f'"{model}"'))
        make = partial(open_questions, path, catalog, "grader", None, None, tmp_path / "verdicts", None)
        carry_out(Evaluation(routers=[parse_router("fixed:sage")], sets=[make], log=tmp_path / log))
    assert [request.body["model"] for request in openai_server.requests] == ["sage", "judge", "sage", "other"]


def test_runs_that_another_judge_judged_are_run_again(
    tmp_path: Path, catalog: Path, openai_server: OpenAIServer
) -> None:
    path, resumed = tmp_path / "frames.tsv", []
    path.write_text(FRAMES)
    for model in ("judge", "judge", "other"):
        catalog.write_text(catalog.read_text().replace('"judge"', f'"{model}"'))
        make = partial(open_questions, path, catalog, "grader", None, None, tmp_path / "verdicts", None)
        wanted = Evaluation(routers=[parse_router("fixed:sage")], sets=[make], log=tmp_path / "runs.jsonl")
        resumed.append(carry_out(wanted).resumed)
    assert resumed == [0, 1, 0]


def test_a_question_that_the_judge_refuses_stops_nothing_and_a_judge_that_is_gone_does(
    tmp_path: Path, catalog: Path, openai_server: OpenAIServer
) -> None:
    path = tmp_path / "capitals.jsonl"
    asked = [{"question": f"Who? {n}.", "answer": "Jane", "verdict": "judge"} for n in range(12)]
    path.write_text("\n".join(map(json.dumps, asked)))
    answer = openai_server.script
    assert callable(answer)

    def refusing(refused: str) -> Callable[[Body], Answer]:
        return lambda body: (
            Refusal(400) if body["model"] == "judge" and refused in json.dumps(body["messages"]) else answer(body)
        )

    make = partial(open_questions, path, catalog, "grader", None, None, tmp_path / "verdicts", None)
    wanted = Evaluation(routers=[parse_router("fixed:sage")], sets=[make], log=tmp_path / "runs.jsonl", concurrent=1)
    openai_server.script = refusing("Who?")
    with pytest.raises(ServerError, match="no reply of judge:judge"):
        carry_out(wanted)
    paid = len([request for request in openai_server.requests if request.body["model"] == "sage"])
    assert paid == REFUSED_IN_A_ROW
    openai_server.script = refusing("Who? 1.")
    outcome = carry_out(wanted)
    assert [run.solved for _, run in sorted(outcome.runs.items())] == [n != 1 for n in range(12)]
    (unjudged,) = outcome.broken
    assert unjudged.error is not None and unjudged.error.startswith("no verdict: no reply of judge:judge")


def test_two_sets_of_one_name_are_refused_before_anything_is_paid(tmp_path: Path, catalog: Path) -> None:
    files = [tmp_path / "hle" / "unseen.jsonl", tmp_path / "frames" / "unseen.jsonl"]
    for file in files:
        file.parent.mkdir()
        file.write_text('{"question": "Capital of France?", "answer": "Paris"}\n')
    hle, frames = question_sets(
        files, None, catalog=catalog, judge=None, models=None, world=None, verdicts=tmp_path / "verdicts"
    )
    routers, log = [parse_router("fixed:sage")], tmp_path / "runs.jsonl"
    with pytest.raises(ConfigError, match=r"named 'unseen': .*hle/unseen\.jsonl and .*frames/unseen\.jsonl; .*rename"):
        carry_out(Evaluation(routers=routers, sets=[hle, frames], log=log))
    with pytest.raises(ConfigError, match=r"two sets are named 'unseen': .*hle/unseen\.jsonl and the workbench"):
        carry_out(Evaluation(routers=routers, sets=[hle, partial(WorkbenchSet, "unseen", tasks=1)], log=log))
    assert not log.exists()


def test_a_judge_is_asked_once_for_an_answer(tmp_path: Path, catalog: Path, openai_server: OpenAIServer) -> None:
    path = tmp_path / "frames.tsv"
    path.write_text(FRAMES)
    make: partial[ExampleSet] = partial(
        open_questions, path, catalog, "grader", None, None, tmp_path / "verdicts", None
    )
    for log in ("a.jsonl", "b.jsonl"):
        outcome = carry_out(Evaluation(routers=[parse_router("fixed:sage")], sets=[make], log=tmp_path / log))
        assert [run.solved for run in outcome.runs.values()] == [True]
    judged = [request.body for request in openai_server.requests if request.body["model"] == "judge"]
    assert [body["temperature"] for body in judged] == [0]


def test_an_answer_that_nobody_can_judge_counts_as_not_solved_and_stops_nothing(
    tmp_path: Path, catalog: Path, openai_server: OpenAIServer
) -> None:
    path = tmp_path / "capitals.jsonl"
    asked = [{"question": f"Who? {n}", "answer": "Jane", "verdict": "judge"} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, asked)))
    answer = openai_server.script
    assert callable(answer)
    openai_server.script = lambda body: (
        Reply("I would rather not.")
        if body["model"] == "judge" and "Who? 1" in json.dumps(body["messages"])
        else answer(body)
    )
    make = partial(open_questions, path, catalog, "grader", None, None, tmp_path / "verdicts", None)
    wanted = Evaluation(routers=[parse_router("fixed:sage")], sets=[make], log=tmp_path / "runs.jsonl")
    outcome = carry_out(wanted)
    assert [run.solved for _, run in sorted(outcome.runs.items())] == [True, False, True]
    (unjudged,) = outcome.broken
    assert unjudged.error == "no verdict: the reply ends with 'I would rather not.'; expected CORRECT or INCORRECT"
    assert unjudged.dollars > 0
    openai_server.script = answer
    again = carry_out(wanted)
    assert (again.resumed, again.broken) == (2, [])


def test_questions_need_tools(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--questions needs --catalog"):
        question_sets([tmp_path], None, catalog=None, judge=None, models=None, world=None, verdicts=tmp_path)
