"""Runs of one tool on sample tasks, one after another so that they do not slow each other down; and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum

from orchestra_graph.catalog import Catalog, Latency, Measured, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.routers import Fixed
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.runlog.measure import seconds_of_calls
from orchestra_graph.turns import Outcome, Turn
from orchestra_training.descriptions.samples import Sample
from orchestra_training.reward.measures import is_solved

FEWEST_CALLS = 5
"""Answered calls from which on a latency is taken from them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a tool on a sample: called once, and once more where its reply is no answer."""

    sample: Sample
    turns: Sequence[Turn]
    dollars: float
    calls: int
    solved: bool | None = None
    """None where nobody can say: the tool states no answers, or the judge could not tell."""

    @property
    def outcomes(self) -> list[Outcome]:
        """What the calls brought, in order."""
        return [outcome for turn in self.turns for outcome in turn["outcomes"].values()]

    @property
    def answer(self) -> str | None:
        """The last answer that a call stated."""
        return next((outcome["answer"] for outcome in reversed(self.outcomes) if "answer" in outcome), None)

    @property
    def answered(self) -> bool:
        """Whether a call came back with more than an error."""
        return any(not outcome["error"] for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Figures:
    """What the runs of a tool come to."""

    measured: Measured
    failed: int
    """Samples on which no call was answered; they count for nothing else."""
    seconds: Sequence[float]
    """Of work, of each call that was answered."""

    def apply(self, spec: ToolSpec) -> ToolSpec:
        """A line with what was measured; a price only where the line knows none."""
        catalog = Catalog.of([spec.model_copy(update={"fallback": ()})])
        latency = (
            catalog.with_measured_latency({spec.name: self.seconds}, at_least=FEWEST_CALLS).tools[spec.name].latency
        )
        changes: dict[str, object] = {"measured": self.measured}
        if latency.source == "measured":
            p50, p95 = rounded(latency.p50), rounded(latency.p95)
            changes["latency"] = Latency(p50=p50, p95=max(p50, p95), source="measured")
        if spec.price.source == "unknown" and self.measured.dollars:
            changes["price"] = Price(per_call=self.measured.dollars)
        return spec.model_copy(update=changes)


async def try_tool(
    name: str,
    catalog: Catalog,
    samples: Iterable[Sample],
    *,
    run_log: RunLog | None = None,
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
) -> list[Attempt]:
    """Run one tool on samples.

    Args:
        name: The tool.
        catalog: Its line, with price and limits.
        samples: What to solve.
        run_log: Where the runs are written.
        on_attempt: Told of each run as it ends.

    Raises:
        ConfigError: The tool is not in the catalog, or cannot be called with a question alone.
    """
    alone = catalog.restrict([name])
    attempts: list[Attempt] = []
    for sample in samples:
        trial = sample.trial()
        tools = [tool for tool in trial.tools if tool.spec.name == name]
        graph = create_orchestrator(Fixed(tool=name), tools, catalog=alone, run_log=run_log, fallback=None)
        state = await graph.compile().ainvoke(
            {"messages": [("user", sample.question)]}, context={"task": {"id": sample.id, "split": "train"}}
        )
        turns = list(state["turns"].values())
        spent = state["ledger"]["tools"].get(name)
        if spent is None:
            raise ConfigError(f"{name} cannot be called with a question alone; expected an expert")
        attempt = Attempt(sample, turns, spent["dollars"], spent["calls"])
        if alone.tools[name].terminal and attempt.answered:
            attempt = replace(attempt, solved=is_solved(await trial.verdict(attempt.answer)))
        attempts.append(attempt)
        on_attempt(attempt)
    return attempts


def figures(name: str, attempts: Sequence[Attempt]) -> Figures | None:
    """Success, price and latency of a tool; None where none of its calls was answered."""
    answered = [attempt for attempt in attempts if attempt.answered]
    if not answered:
        return None
    judged = [attempt.solved for attempt in answered if attempt.solved is not None]
    dollars = fsum(attempt.dollars for attempt in answered) / sum(attempt.calls for attempt in answered)
    return Figures(
        Measured(
            tasks=len(answered),
            success=rounded(sum(judged) / len(judged)) if judged else None,
            dollars=rounded(dollars),
        ),
        failed=len(attempts) - len(answered),
        seconds=[spent for a in answered for tool, spent in seconds_of_calls(a.turns) if tool == name],
    )


def rounded(value: float) -> float:
    """Three significant digits, as a price list has them."""
    return float(f"{value:.3g}")
