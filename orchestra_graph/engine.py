"""What the nodes of one orchestrator share: the parts that it was built from, and what follows from a run's header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import orjson
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langgraph.cache.base import BaseCache

from orchestra_graph.catalog import Catalog, ModelSpec, Price
from orchestra_graph.meter import Journal
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.protocols.conversation import functions
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.state import RunHeader
from orchestra_graph.tools.base import Tool
from orchestra_graph.turns import Charge

Router = Runnable[LanguageModelInput, AIMessage]

_KEPT_SETUPS = 256


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run's header says, validated once."""

    catalog: Catalog
    """Without the tools that must never be called."""
    preferences: Preferences
    budget: Budget
    router: Router
    """The router's model with the catalog's functions bound."""
    fallback: Router | None

    @property
    def is_bounded(self) -> bool:
        """Whether dollars or seconds are limited."""
        return not (math.isinf(self.budget.dollars) and math.isinf(self.budget.seconds))


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of an orchestrator."""

    catalog: Catalog
    tools: Mapping[str, Tool]
    router: BaseChatModel
    fallback: BaseChatModel | None
    protocol: Protocol
    preferences: Preferences
    budget: Budget
    closing: str | None
    max_malformed: int
    run_log: RunLog | None
    cache: BaseCache[Any] | None
    started: set[str] = field(default_factory=set)
    """Ids of runs that began in this process; any other run was taken up again, and its journal is read."""
    _setups: dict[bytes, Setup] = field(default_factory=dict)

    def setup(self, run: RunHeader) -> Setup:
        """Validated preferences, budget and catalog of a run; kept for runs with the same ones."""
        key = orjson.dumps((run["preferences"], run["budget"]))
        setup = self._setups.get(key)
        if setup is None:
            setup = self._make_setup(run)
            while len(self._setups) >= _KEPT_SETUPS:
                self._setups.pop(next(iter(self._setups)), None)
            self._setups[key] = setup
        return setup

    def _make_setup(self, run: RunHeader) -> Setup:
        preferences = Preferences.model_validate(run["preferences"])
        catalog = preferences.apply(self.catalog)
        tools = functions(catalog)
        return Setup(
            catalog=catalog,
            preferences=preferences,
            budget=Budget.model_validate(run["budget"]),
            router=self.router.bind_tools(tools),
            fallback=None if self.fallback is None else self.fallback.bind_tools(tools),
        )

    def header(self, run: RunHeader) -> dict[str, Any]:
        """What the run log says of a run before its turns."""
        setup = self.setup(run)
        return {
            "run_id": run["id"],
            "task": {"question": run["question"], **run.get("task", {})},
            "started_at": run["started"],
            "catalog": setup.catalog.json_data,
            "catalog_hash": run["catalog_hash"],
            "preferences": run["preferences"],
            "budget": run["budget"],
            "policy": {"name": self.router.get_name()},
            "protocol": self.protocol.name,
            "versions": versions(),
        }

    def price_of(self, spec: ModelSpec, model: str | None) -> Price:
        """Price of a model request inside a tool: the tool's own, else that of a catalog line for the same model."""
        if spec.price.has_tokens or model is None or (spec.model is not None and spec.price.source == "catalog"):
            return spec.price
        for other in self.catalog.tools.values():
            if other.model == model and other.price.has_tokens:
                return other.price
        return _known_price(model) or Price(source="unknown")

    def journal(self, run_id: str) -> Journal | None:
        """Writer of attempts that are about to be sent, where there is a run log."""
        log = self.run_log
        if log is None:
            return None

        def write(key: str, tool: str, upper: float) -> None:
            log.journal(run_id, {"kind": "attempt", "key": key, "tool": tool, "upper": upper})

        return write

    def uncertain(self, run_id: str, call_id: str) -> tuple[int, dict[str, Charge]]:
        """Tries of a call that an earlier process sent and that never came back.

        Returns:
            The number of the next try, and a charge for each attempt, with its upper bound.
        """
        if self.run_log is None or run_id in self.started:
            return 0, {}
        charges: dict[str, Charge] = {}
        first = 0
        for key, record in self.run_log.attempts(run_id).items():
            owner, _, number = key.partition("#")
            if owner == call_id:
                first = max(first, int(number.partition(".")[0]) + 1)
                charges[key] = {
                    "tool": record["tool"],
                    "status": "uncertain",
                    "dollars": 0.0,
                    "upper": record["upper"],
                    "seconds": 0.0,
                    "error": "the process ended before the attempt came back",
                }
        return first, charges


def _known_price(model: str) -> Price | None:
    from orchestra_graph.prices import known_price  # noqa: PLC0415  (its library takes 100 ms to import)

    return known_price(model)


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide how a run behaves."""
    return {name: version(name) for name in ("orchestra-graph", "langgraph", "langchain-core", "langchain-openai")}
