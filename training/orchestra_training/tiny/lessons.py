"""What the tiny router is taught: of every line that it could be asked about, whether the oracle would begin there.

A log of runs gives the places to stand in, whoever decided in them; the oracle gives the word. A line is to be taken
where a plan begins with it that is about as good as the best one that the budget pays for, so that lines behind the
first good one teach something too.

What is rare in a log is added: of every place, if there is one, a limit of turns that makes another tool the good one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from orchestra_graph.catalog import Catalog
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.scan import SKIP, TAKE, ScanProtocol
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.workbench.oracle import Offer, Step, good_calls
from orchestra_training.metrics import LABELS

FEW_TURNS: Final = (1, 2, 3)
"""Limits under which another plan may be the best one."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One line, as the router reads it."""

    prompt: str
    word: str
    """`take` or `skip`."""
    turn: int
    """Place of the turn in its run, from 0."""


def lessons_of(run: Trajectory) -> Iterator[Lesson]:
    """The lessons of every turn of a run of the workbench, as far as a plan is left there.

    Args:
        run: Its task says which experts its tools are, as demonstrations and rollouts do.
    """
    if run.catalog is None:
        return
    identity: Mapping[str, str] = (run.task.model_extra or {}).get(LABELS, {})
    protocol = ScanProtocol()
    for place in range(len(run.turns)):
        turns = {turn["id"]: turn for turn in run.turns[:place]}
        situation = Situation(run.task.question, run.catalog, run.preferences, run.budget, turns)
        rng = Random(f"lessons/{run.task.id}/{place}")
        for each, good in _with_few_turns(situation, identity, rng):
            for spec, view in protocol.views(each) if good else ():
                yield Lesson(str(view.messages[0].text), TAKE if spec.name in good else SKIP, place)


def _with_few_turns(
    situation: Situation, identity: Mapping[str, str], rng: Random
) -> Iterator[tuple[Situation, set[str]]]:
    """A place and its good tools, and the same with few turns left, if others are then the good ones."""
    good = _good(situation, identity)
    yield situation, good
    used = situation.budget.turns - situation.left.turns
    for left in rng.sample(FEW_TURNS, len(FEW_TURNS)):
        hurried = replace(situation, budget=situation.budget.model_copy(update={"turns": used + left}))
        others = _good(hurried, identity)
        if others != good:
            yield hurried, others
            return


def _good(situation: Situation, identity: Mapping[str, str]) -> set[str]:
    return good_calls(
        situation.question,
        _offers(situation.catalog),
        identity,
        situation.preferences,
        [
            Step(identity.get(call["tool"], call["tool"]), outcome["content"])
            for turn in situation.turns.values()
            for call in turn["decision"]["calls"]
            if (outcome := turn["outcomes"].get(call["id"])) and not outcome["error"]
        ],
        situation.left,
    )


def _offers(catalog: Catalog) -> dict[str, Offer]:
    return {name: Offer(spec.price, spec.latency.p50) for name, spec in catalog.tools.items()}
