"""What was found of each tool of a catalog: its new line, or why it has none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.runlog.log import RunLog
from orchestra_training.descriptions.attempts import Attempt, Figures, figures, try_tool
from orchestra_training.descriptions.samples import Sample
from orchestra_training.descriptions.writer import Describer

UNTRIED: Final = "no call was answered, the line stays as it is; the last one: {error}"
UNWRITTEN: Final = "the writer's reply is no description, the one that is there stays"


@dataclass(frozen=True, slots=True)
class Finding:
    """One tool."""

    line: ToolSpec
    """As it is to be; unchanged where the tool could not be tried."""
    figures: Figures | None
    problem: str | None = None
    """What could not be done."""


async def find(
    catalog: Catalog,
    names: Sequence[str],
    samples: Sequence[Sample],
    *,
    describer: Describer | None = None,
    run_log: RunLog | None = None,
    on_attempt: Callable[[str, Attempt], None] = lambda name, attempt: None,
) -> AsyncIterator[Finding]:
    """Try tools one after another, and give what was found of each as soon as it is known.

    Args:
        catalog: Their lines.
        names: The tools.
        samples: What each of them is tried on.
        describer: Writes the descriptions; without one those that are there stay.
        run_log: Where the runs are written.
        on_attempt: Told of each run as it ends, with the tool's name.

    Raises:
        ConfigError: A tool is not in the catalog, or cannot be called with a question alone.
        ServerError: The writer's server refused or did not answer.
    """
    for name in names:
        spec = catalog.tools[name]
        attempts = await try_tool(name, catalog, samples, run_log=run_log, on_attempt=partial(on_attempt, name))
        found = figures(name, attempts)
        if found is None:
            errors = [outcome["content"] for attempt in attempts for outcome in attempt.outcomes]
            yield Finding(spec, None, UNTRIED.format(error=errors[-1] if errors else "none was sent"))
            continue
        line = found.apply(spec)
        if describer is None:
            yield Finding(line, found)
            continue
        description = await describer.describe(spec, attempts)
        if description is None:
            yield Finding(line, found, UNWRITTEN)
        else:
            yield Finding(line.model_copy(update={"description": description}), found)
