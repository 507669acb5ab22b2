"""What the user wants from a run: how much cost and time matter beside accuracy, and what may be spent at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.text import clean

Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Preferences(BaseModel):
    """Weights in [0, 1]; 0 means indifferent.

    The paper's vector P (arXiv 2511.21689, section 3.2) holds `prefer`, accuracy, cost, latency. Avoidance has elements
    of its own after those, 1 for a tool that was never called, since weights are never negative.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: Weight = 1.0
    cost: Weight = 0.4
    latency: Weight = 0.1
    prefer: dict[str, Weight] = Field(default_factory=dict)
    """Tools whose use is wanted."""
    avoid: dict[str, Weight] = Field(default_factory=dict)
    """Tools whose use is unwanted."""
    never: tuple[str, ...] = ()
    """Tools that must not be called: the run's catalog leaves them out."""
    text: Annotated[str, AfterValidator(clean)] = ""
    """The same in words, for the router to read."""

    @cached_property
    def json_data(self) -> dict[str, Any]:
        """The preferences as plain JSON values; shared, so not to be changed."""
        return self.model_dump(mode="json")

    @cached_property
    def _hash(self) -> int:
        return hash(self.model_dump_json())

    def __hash__(self) -> int:
        return self._hash

    def vector(self, tools: Sequence[str]) -> list[float]:
        """The paper's order, then avoidance: `[prefer of each tool, accuracy, cost, latency, avoid of each tool]`.

        Args:
            tools: Names in the catalog's order; the result has `2 * len(tools) + 3` elements.
        """
        return [
            *(self.prefer.get(name, 0.0) for name in tools),
            self.accuracy,
            self.cost,
            self.latency,
            *(self.avoid.get(name, 0.0) for name in tools),
        ]

    def apply(self, catalog: Catalog) -> Catalog:
        """The catalog without the tools that must never be called.

        Raises:
            ConfigError: A named tool is not in the catalog, or no tool is left.
        """
        named = [*self.prefer, *self.avoid, *self.never]
        unknown = [name for name in named if name not in catalog.tools]
        if unknown:
            raise ConfigError(
                f"preferences name {', '.join(map(repr, unknown))}; "
                f"expected tools of the catalog: {', '.join(catalog.tools)}"
            )
        if not self.never:
            return catalog
        left = [name for name in catalog.tools if name not in self.never]
        if not left:
            raise ConfigError("preferences.never names every tool; expected at least one to be left")
        return catalog.restrict(left)


def thrift(usual: float, amount: float) -> float:
    """How little an amount of dollars or seconds is, from 0 to 1: `M_0 / (M_0 + M)`, one half for the usual amount.

    Args:
        usual: M_0, at least 0.
        amount: M, at least 0, in the same unit.
    """
    whole = usual + amount
    return usual / whole if whole else 0.5


Amount = Annotated[
    float,
    BeforeValidator(lambda value: math.inf if value is None else value),
    PlainSerializer(lambda value: None if math.isinf(value) else value, return_type=float | None),
]
"""A number whose infinity is `null` in JSON, which has no word for it."""


class Budget(BaseModel):
    """What a run may spend. It still ends in an answer when this is used up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dollars: Annotated[Amount, Field(ge=0)] = math.inf
    seconds: Annotated[Amount, Field(gt=0)] = math.inf
    """Seconds of the run; time spent waiting for a person does not count."""
    turns: Annotated[int, Field(ge=1)] = 50
    """Decisions of the router."""

    @cached_property
    def json_data(self) -> dict[str, Any]:
        """The budget as plain JSON values; shared, so not to be changed."""
        return self.model_dump(mode="json")

    def at_most(self, other: Budget) -> Budget:
        """The smaller of two budgets, element by element."""
        return Budget(
            dollars=min(self.dollars, other.dollars),
            seconds=min(self.seconds, other.seconds),
            turns=min(self.turns, other.turns),
        )
