"""Which runs a data set may hold, and with which tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestra_graph.runlog.record import Trajectory
from orchestra_training.filters import Fault, FilterReport, for_evaluation
from orchestra_training.harvest.fidelity import Fidelity, fidelity
from orchestra_training.render import Renderer


@dataclass(slots=True)
class Reports:
    """What was kept and what was left out, stage by stage."""

    runs: FilterReport = field(default_factory=FilterReport)
    """Runs that may be in the data set at all."""
    chosen: FilterReport = field(default_factory=FilterReport)
    """Those of them that are."""
    turns: FilterReport = field(default_factory=FilterReport)
    """Turns of those."""
    fidelity: Counter[Fidelity] = field(default_factory=Counter)
    """Of those runs."""
    origins: Counter[str] = field(default_factory=Counter)
    """Where a harvest has those runs from."""


@dataclass(slots=True, kw_only=True)
class Selection:
    """What a data set asks of its runs."""

    needs: Literal["exact", "ids"] | None
    """The least fidelity; a renderer makes up for what is below `ids`. None where no tokens are wanted."""
    splits: Sequence[str] = ()
    """Runs of another split are left out, one that states none trains; empty takes any."""
    evaluate: bool = False
    """Whether runs whose purpose is `evaluate` are wanted as well."""
    renderer: Renderer | None = None
    """Gives tokens to runs that have none, or those of another tokenizer or protocol."""
    reports: Reports = field(default_factory=Reports)
    _first: tuple[str | None, str | None] | None = None

    @property
    def tokenizer(self) -> str | None:
        """Name of the one whose ids the data set holds: the renderer's, else that of the first run with ids.

        None where that one does not state it, or there is none.
        """
        if self.renderer is not None:
            return self.renderer.name
        return None if self._first is None else self._first[0]

    def admitted(self, runs: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """Runs that may be in the data set; those that may not are noted, the others are for the caller to note."""
        for run in runs:
            fault = self._fault(run)
            if fault is None:
                yield run
            else:
                self.reports.runs.passes(run.run_id, fault)

    def with_tokens(self, runs: Iterable[Trajectory], chosen: Container[str]) -> Iterator[Trajectory]:
        """Those of the admitted runs that were chosen, with tokens; their fidelity is counted."""
        for run in runs:
            if run.run_id in chosen:
                yield self.tokens_of(run)

    def tokens_of(self, run: Trajectory) -> Trajectory:
        """An admitted run with tokens; its fidelity is counted."""
        harvested = (run.model_extra or {}).get("harvest")
        if isinstance(harvested, dict):
            self.reports.origins[str(harvested.get("source"))] += 1
        if self._shortfall(run) is not None and self.renderer is not None:
            self.reports.fidelity["rendered"] += 1
            return self.renderer.render(run)
        self.reports.fidelity[fidelity(run).fidelity] += 1
        return run

    def _fault(self, run: Trajectory) -> Fault | None:
        fault = None if self.evaluate else for_evaluation(run)
        if fault is not None:
            return fault
        if self.splits and (run.split or "train") not in self.splits:
            wanted = " or ".join(map(repr, self.splits))
            fix = (
                ""
                if run.split
                else "; a run that states none trains; fix: orchestra harvest splits runs by their tasks"
            )
            return Fault("other_split", run.split or "none", f"split = {run.split!r}; expected {wanted}{fix}")
        return self._shortfall(run) if self.needs is not None and self.renderer is None else None

    def _shortfall(self, run: Trajectory) -> Fault | None:
        """What keeps a run's own tokens out of the data set."""
        stated = fidelity(run)
        if stated.fidelity != "exact" and self.needs == "exact":
            return Fault("fidelity", stated.fidelity, f"{stated.reason}; expected exact")
        if stated.fidelity not in ("exact", "ids"):
            fix = "fix: name a tokenizer to render it with (--tokenizer MODEL)"
            return Fault("fidelity", stated.fidelity, f"{stated.reason}; expected ids or exact; {fix}")
        if self.renderer is not None and run.protocol not in (None, self.renderer.protocol.name):
            told = f"protocol = {run.protocol!r}; expected {self.renderer.protocol.name!r}"
            return Fault("fidelity", "other_protocol", told)
        return self._other_tokenizer(None if run.tokenizer is None else Path(run.tokenizer).name, run.template_hash)

    def _other_tokenizer(self, name: str | None, template: str | None) -> Fault | None:
        """Folders of different models are often named alike, for example `model`; their templates tell them apart."""
        if self.renderer is not None:
            wanted: tuple[str | None, str | None] = (self.renderer.name, self.renderer.template_hash)
        else:
            wanted = self._first = self._first or (name, template)
        if name == wanted[0] and (template == wanted[1] or None in (template, wanted[1])):
            return None
        fix = "fix: name the tokenizer of the data set (--tokenizer MODEL)" if self.renderer is None else ""
        told = f"tokenizer = {name!r}, template {template}; expected {wanted[0]!r}, template {wanted[1]}"
        return Fault("fidelity", "other_tokenizer", f"{told}; {fix}" if fix else told)
