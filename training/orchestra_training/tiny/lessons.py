"""What the tiny router is taught: of every line that it could be asked about, whether the oracle would begin there.

A log of runs gives the places to stand in, whoever decided in them; the oracle gives the word. A line is to be taken
where a plan begins with it that is about as good as the best one that the budget pays for, so that lines behind the
first good one teach something too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestra_graph.catalog import Catalog
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.scan import SKIP, TAKE, ScanProtocol
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.workbench.oracle import Offer, Step, good_calls
from orchestra_training.metrics import LABELS


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
        good = _good(situation, identity)
        if good:
            for spec, view in protocol.views(situation):
                yield Lesson(str(view.messages[0].text), TAKE if spec.name in good else SKIP, place)


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
