"""The task families, one module each; `FAMILIES` holds them by name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from orchestra_graph.workbench.tasks.algebra import Algebra
from orchestra_graph.workbench.tasks.arithmetic import Arithmetic
from orchestra_graph.workbench.tasks.base import DIFFICULTIES, Desk, Family, Sizes, Working, within
from orchestra_graph.workbench.tasks.calculus import Calculus
from orchestra_graph.workbench.tasks.lookup import Lookup
from orchestra_graph.workbench.tasks.number_theory import NumberTheory
from orchestra_graph.workbench.tasks.programming import Programming
from orchestra_graph.workbench.tasks.records import Records

__all__ = ["DIFFICULTIES", "FAMILIES", "Desk", "Family", "Sizes", "Working", "read", "within"]

FAMILIES: dict[str, Family[Any]] = {
    family.name: family
    for family in (Arithmetic(), Algebra(), Calculus(), NumberTheory(), Programming(), Lookup(), Records())
}


@lru_cache(maxsize=4096)  # every expert of a run reads the same question
def read(question: str) -> tuple[Family[Any], Any] | None:
    """The family and the problem of a question in any phrasing; None if it is no question of the workbench."""
    for family in FAMILIES.values():
        problem = family.read(question)
        if problem is not None:
            return family, problem
    return None
