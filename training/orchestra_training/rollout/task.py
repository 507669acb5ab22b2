"""What a policy is trained on: tasks that are a function of seed, step and index, and of nothing else.

A task of your own is a question with a catalog, and a way to open a fresh place for each rollout of it:

    class Sums(TaskSource):
        def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
            a = Random(f"{seed}/{step}/{index}").randrange(100)

            def open_place() -> Place:
                async def verdict(answer: str | None) -> Verdict:
                    return exact(answer, str(a + 1))

                return Place(tools=[small, large], verdict=verdict)

            return RolloutTask(id=f"sum/{a}", question=f"What is {a} + 1?", open=open_place)

A recipe names it: `tasks = { source = "your_module:Sums" }`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from orchestra_graph.billing import describe
from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.modules import import_named
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol as Speech
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.tools.adapt import ToolLike


@dataclass(frozen=True, slots=True)
class Place:
    """Where one rollout happens: whatever its tools change is its own."""

    tools: Sequence[ToolLike]
    verdict: Callable[[str | None], Awaitable[Verdict]]
    """Judges the answer, in the place as the rollout left it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutTask:
    """A task with all that the rollouts of a group have in common."""

    id: str
    """Its name in logs; the same task has the same one."""
    question: str
    open: Callable[[], Place]
    """Makes a fresh place."""
    catalog: Catalog | None = None
    """Descriptions and prices of the tools; what it leaves out comes from the tools."""
    preferences: Preferences = field(default_factory=Preferences)
    budget: Budget = field(default_factory=Budget)
    split: str = "train"
    labels: Mapping[str, str] = field(default_factory=dict)
    """What figures call tools whose names are made up; the policy does not see it."""


class TaskSource(Protocol):
    """Gives tasks; the same arguments must give the same task, in any process."""

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        """A task.

        Args:
            seed: The recipe's.
            step: Counts the batches of rollouts from 0.
            index: Position in the batch, from 0.
        """
        ...


_KNOWN: Final = {
    "workbench": "orchestra_training.rollout.workbench:WorkbenchTasks",
    "logged": "orchestra_training.rollout.logged:LoggedTasks",
}


def find_tasks(name: str, options: dict[str, Any] | None = None) -> TaskSource:
    """The source that a recipe names.

    Args:
        name: `workbench`, `logged`, or `module:name` of a class or function that makes a source.
        options: Keyword arguments for it.

    Raises:
        ConfigError: There is no such source, or it does not take these options.
    """
    make = find(_KNOWN.get(name, name))
    try:
        source: TaskSource = make(**(options or {}))
    except TypeError as error:
        raise ConfigError(f"{name!r} with {options or {}}: {error}") from error
    return source


def find_protocol(name: str) -> Speech:
    """The protocol that a recipe names, with repair off.

    Args:
        name: `conversation`, `scan`, or `module:name` of a protocol or of what makes one.

    Raises:
        ConfigError: There is none, or it mends replies.
    """
    if name == "conversation":
        return ConversationProtocol(repair=False)
    if name == "scan":
        return ScanProtocol()
    found = find(name)
    protocol: Speech = found() if callable(found) else found
    if getattr(protocol, "repair", False):
        raise ConfigError(f"{name!r} mends replies; expected a protocol with repair off")
    return protocol


def find(name: str) -> Any:
    """What a recipe names by `module:name`.

    Raises:
        ConfigError: There is no such thing.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f'{name!r}; expected "module:name", for example "my_tasks:Sums"')
    try:
        return getattr(import_named(module), attribute)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported, and may exit
        raise ConfigError(f"{name!r}: {describe(error)}; expected a module that can be imported from here") from error
