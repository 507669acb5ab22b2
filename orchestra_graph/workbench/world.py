"""What exists in one run: the knowledge base that all runs share, and the customer records that are the run's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from orchestra_graph.tools.sandbox import Sandbox
from orchestra_graph.workbench.database import Database
from orchestra_graph.workbench.knowledge import KnowledgeBase
from orchestra_graph.workbench.sandbox import shared_sandbox


@dataclass
class World:
    """One run's world; open a fresh one for every run."""

    seed: int
    """The task's seed: gives the customer records."""
    knowledge: KnowledgeBase
    """Shared by all runs of a workbench; nothing changes it."""

    @cached_property
    def database(self) -> Database:
        """This run's own customer records, as they were at first until a tool changes them."""
        return Database(self.seed)

    @property
    def sandbox(self) -> Sandbox:
        """Runs hidden tests and experts' code."""
        return shared_sandbox()
