"""Runs for a page: what a person wants to see of each turn, small enough for thousands of runs in one file.

Texts, tool lines and catalogs are kept once each and named by their places, since runs of one task share most of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.journal import owner_of
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.text import cut
from orchestra_graph.turns import Turn, args_sent

_TEXT_SHOWN: Final = 400
"""Tokens of a question, a result or a reason."""
_DESCRIPTION_SHOWN: Final = 80


@dataclass(slots=True)
class RunTable:
    """Runs as lists of numbers and places in tables of texts, tools and catalogs."""

    texts: list[str] = field(default_factory=list)
    tools: list[list[Any]] = field(default_factory=list)
    """Name, description, dollars per million tokens in and out, per call, per second, seconds, terminal, expert."""
    catalogs: list[list[int]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    _text_places: dict[str, int] = field(default_factory=dict)
    _tool_places: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _catalog_places: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, run: Trajectory, *, experts: Mapping[str, str] | None = None, **labels: str) -> None:
        """Add a run.

        Args:
            run: As the log has it.
            experts: Who is behind a name of the catalog, where names say nothing.
            **labels: What it is found by, for example its router and condition.
        """
        solved = None if run.verdict is None or run.verdict.outcome is None else run.verdict.outcome >= 1
        self.runs.append(
            {
                "id": run.run_id[:8],
                **{name: self._text(value) for name, value in labels.items()},
                "solved": solved,
                "question": self._text(run.task.question),
                "answer": self._text(run.answer or ""),
                "wish": self._text(run.preferences.text),
                "stopped": run.stopped_by,
                "catalog": None if run.catalog is None else self._catalog(run.catalog, experts or {}),
                "turns": [self._turn(turn) for turn in run.turns],
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"texts": self.texts, "tools": self.tools, "catalogs": self.catalogs, "runs": self.runs}

    def _turn(self, turn: Turn) -> dict[str, Any]:
        decision = turn["decision"]
        calls = []
        for call in decision["calls"]:
            outcome = turn["outcomes"].get(call["id"], {"content": "", "error": True})
            charges = [charge for key, charge in turn["charges"].items() if owner_of(key) == call["id"]]
            calls.append(
                {
                    "tool": self._text(call["tool"]),
                    "args": self._text(", ".join(f"{key}: {value}" for key, value in args_sent(call, outcome).items())),
                    "dollars": _sum(charges, "dollars"),
                    "seconds": round(outcome.get("seconds", 0.0), 3),
                    "result": self._text(outcome["content"]),
                    "error": outcome["error"],
                    "ends": "answer" in outcome,
                }
            )
        own = [charge for key, charge in turn["charges"].items() if owner_of(key) == turn["id"]]
        made: dict[str, Any] = {"calls": calls, "dollars": _sum(own, "dollars"), "seconds": round(turn["seconds"], 3)}
        if decision["by"] != "router":
            made["by"] = decision["by"]
        if decision["reason"]:
            made["reason"] = self._text(decision["reason"])
        if "problem" in decision:
            made["problem"] = self._text(decision["problem"]["detail"])
        return made

    def _text(self, text: str) -> int:
        return _place(self.texts, self._text_places, cut(text, _TEXT_SHOWN))

    def _catalog(self, catalog: Catalog, experts: Mapping[str, str]) -> int:
        lines = tuple(self._tool(spec, experts.get(spec.name, "")) for spec in catalog.tools.values())
        place = self._catalog_places.get(lines)
        if place is None:
            place = self._catalog_places[lines] = len(self.catalogs)
            self.catalogs.append(list(lines))
        return place

    def _tool(self, spec: ToolSpec, expert: str) -> int:
        price = spec.price
        line = (
            self._text(spec.name),
            self._text(cut(spec.description, _DESCRIPTION_SHOWN)),
            price.input,
            price.output,
            price.per_call,
            price.per_second,
            spec.latency.p50,
            int(spec.terminal),
            self._text("" if expert == spec.name else expert),
        )
        place = self._tool_places.get(line)
        if place is None:
            place = self._tool_places[line] = len(self.tools)
            self.tools.append(list(line))
        return place


def _place(texts: list[str], places: dict[str, int], text: str) -> int:
    place = places.get(text)
    if place is None:
        place = places[text] = len(texts)
        texts.append(text)
    return place


def _sum(charges: Iterable[Any], name: str) -> float:
    return float(f"{sum(charge[name] for charge in charges):.6g}")
