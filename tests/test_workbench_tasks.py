"""Every family at every difficulty: drawn alike from the same seed, read back, and checked, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from orchestra_graph.errors import ConfigError
from orchestra_graph.workbench import FAMILIES, Task, Workbench
from orchestra_graph.workbench.tasks import DIFFICULTIES, read
from orchestra_graph.workbench.wording import SPLITS

BENCH = Workbench()
CELLS = list(product(FAMILIES, DIFFICULTIES))
ANSWERED = [cell for cell in CELLS if cell[0] != "records"]

NONSENSE = [
    "",
    "?",
    "I do not know.",
    "0/0",
    "1/0",
    "log(0)",
    "nan",
    "x",
    "x = ",
    "9**9**9**9",
    "((9**99)**99)**99",
    "exp(exp(exp(99)))",
    "__import__('os').getcwd()",
    "1" * 5000,
    "(" * 250,
    "-" * 250 + "1",
    "x = 1/0",
    "```python\nsolve = 3\n```",
    "```python\nraise SystemExit\n```",
    "import os\nos._exit(0)",
    "\ud800",
]


def tasks_of(family: str, difficulty: int, n: int = 4) -> list[Task]:
    return [BENCH.task(f"{family}/{split}/{difficulty}/{seed}") for split in SPLITS for seed in range(n)]


@pytest.mark.parametrize(("family", "difficulty"), CELLS)
def test_a_question_is_read_back_as_its_own_family(family: str, difficulty: int) -> None:
    for task in tasks_of(family, difficulty, 15):
        found = read(task.question)
        assert found is not None
        assert found[0].name == family
        assert found[0].title(found[1]) == task.title


@pytest.mark.parametrize(("family", "difficulty"), ANSWERED)
async def test_the_reference_is_right_and_another_task_s_is_wrong(family: str, difficulty: int) -> None:
    tasks = tasks_of(family, difficulty, 2)
    for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        world = BENCH.world(task)
        assert await task.check(task.reference, world)
        assert not await task.check(other.reference, world) or other.reference == task.reference


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("programming", "records")])
async def test_a_changed_answer_is_wrong(family: str) -> None:
    for task in tasks_of(family, 3, 5):
        changed = [task.reference + "1", "1" + task.reference, task.reference + ", 77", f"the answer: {task.reference}"]
        world = BENCH.world(task)
        assert [await task.check(answer, world) for answer in changed] == [False] * 4


async def test_other_forms_of_a_right_answer_are_right() -> None:
    forms: dict[str, Callable[[str], str]] = {
        "arithmetic/train/3/1": lambda text: f" {int(text):,} ",
        "algebra/train/2/1": lambda text: " and ".join(reversed(text.replace("x = ", "").split(", "))),
        "calculus/train/3/1": lambda text: f"({text}) * 6 / 3 - ({text})",
        "lookup/train/2/1": lambda text: f"{text.upper()}.",
        "programming/train/2/1": lambda text: text.removeprefix("```python\n").removesuffix("```"),
    }
    for identity, form in forms.items():
        task = BENCH.task(identity)
        assert await task.check(form(task.reference), BENCH.world(task)), identity


async def test_a_decimal_is_no_exact_value() -> None:
    task = BENCH.task("calculus/train/4/2")
    assert not await task.check("3.14159", BENCH.world(task))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "programming"])
async def test_nonsense_is_wrong_and_never_raises(family: str) -> None:
    task = BENCH.task(f"{family}/train/4/3")
    for answer in NONSENSE:
        assert not await task.check(answer, BENCH.world(task))


@pytest.mark.parametrize("answer", [NONSENSE[0], *NONSENSE[-5:], "def solve(xs):\n    return None"])
async def test_a_program_that_is_none_is_wrong(answer: str) -> None:
    task = BENCH.task("programming/train/2/3")
    assert not await task.check(answer, BENCH.world(task))


def test_the_same_arguments_give_the_same_tasks_and_others_others() -> None:
    first = BENCH.tasks("held_out", 35, seed=3)
    assert first == Workbench().tasks("held_out", 35, seed=3)
    assert {task.id for task in first}.isdisjoint(task.id for task in BENCH.tasks("held_out", 35, seed=4))
    assert first[:10] == BENCH.tasks("held_out", 10, seed=3)


@pytest.mark.parametrize("families", [tuple(FAMILIES), ("algebra", "lookup", "records", "programming"), ("lookup",)])
def test_a_lap_holds_each_family_at_each_difficulty_once(families: tuple[str, ...]) -> None:
    tasks = BENCH.tasks("train", 5 * len(families), families=families)
    assert sorted((t.family, t.difficulty) for t in tasks) == sorted(product(families, DIFFICULTIES))


def test_a_task_follows_from_its_id() -> None:
    for task in BENCH.tasks("train", 35):
        assert BENCH.task(task.id) == task


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_vary_and_splits_share_none(family: str) -> None:
    train, held_out = ([t.question for t in BENCH.tasks(split, 100, families=(family,))] for split in SPLITS)
    assert len(set(train)) > 90
    assert set(train).isdisjoint(held_out)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_phrasings_are_many_and_split(family: object) -> None:
    frames = family.frames  # type: ignore[attr-defined]
    assert len({*frames.train, *frames.held_out}) == len(frames.train) + len(frames.held_out) >= 6
    assert len(frames.held_out) >= 2


@pytest.mark.parametrize(
    ("identity", "named"),
    [
        ("algebra/train/3", "family/split/difficulty/seed"),
        ("algebra/test/3/1", "family/split/difficulty/seed"),
        ("poetry/train/3/1", "'poetry'; expected one of arithmetic"),
        ("algebra/train/6/1", "difficulty = 6; expected one of 1"),
    ],
)
def test_a_wrong_id_is_told(identity: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("(", r"\(")):
        BENCH.task(identity)


def test_a_question_from_elsewhere_is_none_of_the_workbench_s() -> None:
    for question in ("", "Hello!", "What is Python?", "Who wrote Faust?", "Find x.", "Solve world hunger = x for me."):
        assert read(question) is None


def test_nothing_times_a_negative_number_is_zero() -> None:
    assert FAMILIES["arithmetic"].reference("(5 - 5) * (3 - 7)", BENCH.world()) == "0"
