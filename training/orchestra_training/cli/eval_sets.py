"""What `orchestra eval` runs routers on: conditions of the workbench, and files of questions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestra_graph.billing import describe
from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.routers.bundled import refuse_unknown_words, tiny_folder
from orchestra_training.cli.options import refuse_options

if TYPE_CHECKING:
    from orchestra_training.evaluate.evaluation import MakeSet
    from orchestra_training.evaluate.examples import ExampleSet
    from orchestra_training.evaluate.question_sets import ServiceWorld
    from orchestra_training.evaluate.routers import RouterSpec

TASKS: Final = 200
"""Tasks of a condition, unless the user says how many."""
TURN_LIMITS: Final = "1,2,3,4,6,10"
DOLLAR_LIMITS: Final = "0.0002,0.0005,0.001,0.002,0.005,0.01"
"""Of the condition budget, unless the user says which."""


def workbench_sets(
    conditions: Sequence[str], tasks: int | None, seed: int, turns: str | None, dollars: str | None
) -> list[MakeSet]:
    """Conditions of the workbench; `all` names all of them.

    Raises:
        BadParameter: There are limits, and no condition that has any.
        ConfigError: The limits are no numbers, or none that can be kept to.
    """
    from orchestra_training.evaluate.conditions import CONDITIONS, WorkbenchSet, standard_budgets  # noqa: PLC0415

    names = [name for given in conditions for name in (CONDITIONS if given == "all" else (given,))]
    if "budget" not in names:
        refuse_options({"--turn-limits": turns, "--dollar-limits": dollars}, "--condition budget")
    turns, dollars = (TURN_LIMITS if turns is None else turns), (DOLLAR_LIMITS if dollars is None else dollars)
    limits = _limits("--turn-limits", turns)
    if any(not limit.is_integer() for limit in limits):
        raise ConfigError(f"--turn-limits {turns!r}: expected whole numbers, for example 1,2,3")
    budgets = standard_budgets([int(limit) for limit in limits], _limits("--dollar-limits", dollars))
    return [
        partial(WorkbenchSet, name, tasks=tasks or TASKS, seed=seed, budgets=budgets) for name in dict.fromkeys(names)
    ]


def refuse_unknown_tools(routers: Sequence[RouterSpec], catalog: Path) -> None:
    """Refuse the tiny router where it would choose by chance: among tools in words that it was not trained on.

    Raises:
        ConfigError: Names the line of the catalog.
    """
    if any(member.local == str(tiny_folder()) for router in routers for member in router.members):
        refuse_unknown_words(Catalog.from_toml(catalog))


def question_sets(
    files: Sequence[Path],
    tasks: int | None,
    *,
    catalog: Path | None,
    judge: str | None,
    models: Path | None,
    world: str | None,
    verdicts: Path,
) -> list[MakeSet]:
    """Files of questions, for the tools of a catalog.

    Args:
        files: Questions of one's own, HLE, FRAMES, ToolScale.
        tasks: Only the first ones of each.
        catalog: Tools.
        judge: Line whose model gives verdicts by `judge`.
        models: Catalog with that line, where it is another one.
        world: FILE.py:NAME of a `ServiceWorld`, for ToolScale.
        verdicts: Folder where a judge's verdicts are kept.

    Raises:
        ConfigError: There is no catalog.
    """
    if not files:
        return []
    if catalog is None:
        raise ConfigError("--questions needs --catalog FILE, the tools that answer them")
    if world is not None:
        from orchestra_training.evaluate.published import format_of  # noqa: PLC0415  (only where it is needed)

        if all(format_of(file) != "toolscale" for file in files):
            raise ConfigError(f"--world {world}: no file of ToolScale is among the questions; drop it, or name one")
    return [partial(open_questions, file, catalog, judge, models, world, verdicts, tasks) for file in files]


def open_questions(
    file: Path,
    catalog: Path,
    judge: str | None,
    models: Path | None,
    world: str | None,
    verdicts: Path,
    tasks: int | None,
) -> ExampleSet:
    """Make a set of questions in any process; the arguments are those of `question_sets`.

    Raises:
        ConfigError: Something does not fit together.
    """
    from orchestra_graph.tools.build import build_tools  # noqa: PLC0415  (with what follows, only where it is needed)
    from orchestra_graph.tools.sandbox import Bubblewrap  # noqa: PLC0415
    from orchestra_training.cli.models import chat_model, model_name  # noqa: PLC0415
    from orchestra_training.evaluate.published import format_of, read_question_file  # noqa: PLC0415
    from orchestra_training.evaluate.question_sets import QuestionSet, ServiceSet  # noqa: PLC0415
    from orchestra_training.questions import Judges  # noqa: PLC0415
    from orchestra_training.verdicts import Judge, Mathematics  # noqa: PLC0415

    lines = Catalog.from_toml(catalog)
    tools = build_tools(lines, os.environ)
    if world is not None and format_of(file) == "toolscale":
        return ServiceSet(file, _world(world), tools, limit=tasks)
    kinds = {asked.question.verdict for asked in read_question_file(file).asked}
    named = lines if models is None else Catalog.from_toml(models)
    asked = None
    if judge is not None:
        asked = Judge(chat_model("--judge", judge, named, temperature=0), name=model_name(judge, named), cache=verdicts)
    judges = Judges(mathematics=Mathematics(Bubblewrap()) if "mathematics" in kinds else None, judge=asked)
    return QuestionSet(file, tools, judges, limit=tasks)


def _world(name: str) -> ServiceWorld:
    """What `--world` names, made.

    Raises:
        ConfigError: It fails, or is no `ServiceWorld`.
    """
    from orchestra_graph.settings import load  # noqa: PLC0415  (only where it is needed)

    make = load(name)
    try:
        made: ServiceWorld = make()
    except Exception as error:  # code of the user's
        raise ConfigError(
            f"--world {name}: {describe(error)}; expected a class, or a function without arguments"
        ) from error
    lacks = [method for method in ("tools", "visit") if not callable(getattr(made, method, None))]
    if lacks:
        raise ConfigError(
            f"--world {name}: {type(made).__name__} has no {' and no '.join(lacks)}; expected a ServiceWorld"
        )
    return made


def _limits(option: str, text: str) -> list[float]:
    expected = "expected numbers above 0 with commas between them"
    try:
        limits = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}; {expected}") from error
    if any(not math.isfinite(limit) or limit <= 0 for limit in limits):
        raise ConfigError(f"{option} {text!r}: {expected}")
    return limits
