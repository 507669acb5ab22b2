"""From runs to the figures of a table, condition by condition: means with bounds, shares, differences, breakdowns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final

import numpy as np

from orchestra_graph.errors import ConfigError
from orchestra_graph.report.frontier import frontier
from orchestra_training.evaluate.bootstrap import Bootstrap, Draws, Table
from orchestra_training.evaluate.conditions import INSTEAD, WITHOUT
from orchestra_training.evaluate.played import Played

RESULT_VERSION: Final = 1

Measure = Callable[[Played], float | None]


def _one(run: Played) -> float:
    return 1.0


def _calls(run: Played) -> float:
    return float(sum(run.calls.values()))


METRICS: Final[Mapping[str, tuple[Measure, Measure]]] = {
    "success": (lambda run: float(run.solved), _one),
    "utility": (lambda run: run.utility, _one),
    "score": (lambda run: run.score, _one),
    "dollars": (lambda run: run.dollars, _one),
    "seconds": (lambda run: run.seconds, _one),
    "turns": (lambda run: float(run.turns), _one),
    "calls": (_calls, _one),
    "priciest_share": (lambda run: float(run.priciest), _calls),
    "malformed_share": (lambda run: float(run.malformed), lambda run: float(run.decisions)),
    "wished_share": (lambda run: None if run.wished is None else float(run.wished), _one),
}
"""Each a ratio of sums over runs; what a run does not know leaves the figure out.

`priciest_share` is the share of calls that went to the run's dearest tool, `malformed_share` that of decisions without
a valid call, `wished_share` that of runs that called the tool that the wish is about.
"""
COMPARED: Final = ("success", "utility", "score", "dollars", "seconds", "priciest_share")


def condition(
    runs: Mapping[str, Sequence[Played]],
    *,
    against: str | None,
    counts: Callable[[str], bool],
    draws: int,
    aside: Collection[str] = (),
) -> dict[str, Any]:
    """All figures of one condition.

    Args:
        runs: By router; the same examples for each.
        against: Router that the others are compared with.
        counts: Whether a kind is part of the condition's own figures.
        draws: Of the bootstrap.
        aside: Routers that know what no router can; the frontier is without them.

    Returns:
        JSON: `routers` by name, each with the means of its `members`, `frontier` by quality, `differences` of each
        router from `against`, `pairs` of each router and each other one, and `wishes`: what each wish changes on the
        same tasks.

    Raises:
        ConfigError: A router lacks runs that another one has.
    """
    _refuse_unpaired(runs)
    units = 1 + max(run.unit for of in runs.values() for run in of)
    kinds = list(dict.fromkeys(run.kind for of in runs.values() for run in sorted(of, key=lambda r: r.key.place)))
    whole = _Figures(units, draws, {name: [run for run in of if counts(run.kind)] for name, of in runs.items()})
    parts = {
        kind: _Figures(units, draws, {name: [r for r in of if r.kind == kind] for name, of in runs.items()})
        for kind in kinds
    }
    routers = {
        name: {
            "runs": len(of),
            "broken": sum(run.error is not None for run in of),
            **whole.figures(name),
            "members": _members([run for run in of if counts(run.kind)]),
            "shares": _shares(run.calls for run in of if counts(run.kind)),
            "places": _shares(run.places for run in of if counts(run.kind)),
            "kinds": {kind: {"runs": part.count(name), **part.figures(name)} for kind, part in parts.items()},
        }
        for name, of in runs.items()
    }
    pairs = {
        name: {
            other: {
                **whole.compared(name, other),
                "kinds": {kind: part.compared(name, other, ["success"]) for kind, part in parts.items()},
            }
            for other in runs
            if other != name
        }
        for name in runs
    }
    found: dict[str, Any] = {"units": units, "routers": routers, "pairs": pairs, "frontier": _frontiers(routers, aside)}
    if set(aside) & set(runs):
        found["aside"] = sorted(set(aside) & set(runs))
    if against in runs and against is not None:
        found["against"] = against
        found["differences"] = {
            name: {
                **whole.compared(name, against),
                "kinds": {kind: part.compared(name, against) for kind, part in parts.items()},
            }
            for name in runs
            if name != against
        }
    twins = {
        wishes: [
            _Figures(units, draws, {name: [r for r in of if r.kind in side] for name, of in runs.items()})
            for side in sides
        ]
        for wishes, sides in _twins(kinds).items()
    }
    if twins:
        found["wishes"] = {name: _wishes(twins, name) for name in runs}
    return found


def _frontiers(routers: Mapping[str, Any], aside: Collection[str]) -> dict[str, list[str]]:
    """Routers that none beats in both, dollars and quality, by the measure of quality."""
    return {
        quality: frontier(
            {
                name: (row["dollars"]["value"], row[quality]["value"])
                for name, row in routers.items()
                if name not in aside
            }
        )
        for quality in ("success", "utility")
        if all(quality in row for row in routers.values())
    }


class _Figures:
    """Figures of some runs by router, drawn together."""

    def __init__(self, units: int, draws: int, runs: Mapping[str, Sequence[Played]]) -> None:
        self._runs = runs
        boot = Bootstrap(units=units, draws=draws)
        self._drawn: dict[str, dict[str, Draws]] = {}
        for name, of in runs.items():
            members = 1 + max((run.key.member for run in of), default=0)
            self._drawn[name] = boot.ratios(
                {
                    metric: (_table(of, above, units, members), _table(of, below, units, members))
                    for metric, (above, below) in METRICS.items()
                    if of and not any(above(run) is None for run in of)
                }
            )

    def count(self, name: str) -> int:
        return len(self._runs[name])

    def figures(self, name: str) -> dict[str, Any]:
        return {metric: drawn.estimate.to_json() for metric, drawn in self._drawn[name].items()}

    def draws(self, name: str) -> Mapping[str, Draws]:
        return self._drawn[name]

    def compared(self, name: str, other: str, metrics: Sequence[str] = COMPARED) -> dict[str, Any]:
        return _compare(self._drawn[name], self._drawn[other], metrics)


def _twins(kinds: Sequence[str]) -> dict[tuple[str, str], tuple[list[str], list[str]]]:
    """By wish and by what was said in its place, `none` or another wish: the kinds with the one, and with the other.

    Both sides have the same tasks, those of either wish.
    """
    found: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for kind, twin in product(kinds, kinds):
        other = _twin(kind, twin)
        if other is None:
            continue
        for wishes, sides in (((kind, other), (kind, twin)), ((other, kind), (twin, kind))):
            if wishes[0] in kinds:
                for known, side in zip(found.setdefault(wishes, ([], [])), sides, strict=True):
                    known.append(side)
    return found


def _twin(kind: str, twin: str) -> str | None:
    """What one kind of examples has in place of another kind's wish: `none`, or another wish; None where neither."""
    if twin == f"{WITHOUT}{kind}":
        return "none"
    return twin.removesuffix(f"{INSTEAD}{kind}") if twin.endswith(f"{INSTEAD}{kind}") else None


def _wishes(twins: Mapping[tuple[str, str], Sequence[_Figures]], name: str) -> dict[str, Any]:
    """What wishes change on the same tasks: by wish, by what was said in its place."""
    found: dict[str, Any] = {}
    for (wish, other), (with_it, instead) in twins.items():
        found.setdefault(wish, {})[other] = _compare(with_it.draws(name), instead.draws(name))
    return found


def _compare(one: Mapping[str, Draws], other: Mapping[str, Draws], metrics: Sequence[str] = COMPARED) -> dict[str, Any]:
    return {
        metric: {
            "difference": (one[metric] - other[metric]).estimate.to_json(),
            "ratio": (one[metric] / other[metric]).estimate.to_json(),
        }
        for metric in metrics
        if metric in one and metric in other
    }


def _table(runs: Iterable[Played], of: Measure, units: int, members: int) -> Table:
    table = np.zeros((units, members))
    for run in runs:
        table[run.unit, run.key.member] += of(run) or 0.0
    return table


def _members(runs: Sequence[Played]) -> list[dict[str, float]]:
    """The means of each seed of a router, in the order in which they were named."""
    found: list[dict[str, float]] = []
    for member in sorted({run.key.member for run in runs}):
        own = [run for run in runs if run.key.member == member]
        means = {}
        for metric, (above, below) in METRICS.items():
            values = [above(run) for run in own]
            if None not in values:
                means[metric] = sum(value or 0.0 for value in values) / (sum(below(run) or 0.0 for run in own) or 1.0)
        found.append(means)
    return found


def _shares(counts: Iterable[Mapping[Any, int]]) -> dict[str, float]:
    whole: Counter[Any] = Counter()
    for part in counts:
        whole.update(part)
    calls = whole.total() or 1
    return {str(name): count / calls for name, count in whole.most_common()}


def _refuse_unpaired(runs: Mapping[str, Sequence[Played]]) -> None:
    if not any(runs.values()):
        raise ConfigError("there are no runs; expected at least one")
    played = {name: {run.key.place for run in of} for name, of in runs.items()}
    every = set().union(*played.values())
    for name, indices in played.items():
        if indices != every:
            raise ConfigError(
                f"router {name!r}: {len(every - indices)} examples were not played; fix: run the command again"
            )
