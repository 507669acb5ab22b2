"""What the next decision rests on, and what a call's tool is shown of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from typing_extensions import TypedDict

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.engine import Engine, Setup
from orchestra_graph.protocols.base import Situation
from orchestra_graph.state import CallTask, OrchestratorState, question_of
from orchestra_graph.text import newest_that_fit
from orchestra_graph.turns import Turn, args_sent


class Evidence(TypedDict, total=False):
    """What a call's task is sent beside the call; one of the two."""

    evidence: list[dict[str, Any]]
    """Fields of `tools.base.Finding`."""
    brief: list[dict[str, Any]]
    """Messages in OpenAI's format, where the protocol writes them."""


def situation_of(setup: Setup, state: OrchestratorState, turns: Mapping[str, Turn]) -> Situation:
    """The situation of a run after these turns."""
    run = state["run"]
    return Situation(
        question=run["question"],
        catalog=setup.catalog,
        preferences=setup.preferences,
        budget=setup.budget,
        turns=turns,
        history=question_of(state["messages"])[0],
        turn_id=f"{run['id'][:8]}-{len(turns)}",
    )


async def evidence_for(engine: Engine, situation: Situation, spec: ToolSpec) -> Evidence:
    """What a call is sent for its tool and the fallbacks of that: as the protocol writes it, else findings that fit.

    It is made for the first of them that reads any.
    """
    reader, protocol = _reader(engine, situation.catalog, spec), engine.protocol
    if reader is None:
        return {}
    if protocol.blocks:
        brief = await asyncio.to_thread(protocol.brief, situation, reader)
    else:
        brief = protocol.brief(situation, reader)
    return {"evidence": findings(situation, reader)} if brief is None else {"brief": brief}


def shown_to(spec: ToolSpec, task: CallTask, engine: Engine, catalog: Catalog) -> Evidence:
    """What a call's tool, or a fallback of it, is shown of what the call was sent: as much as fits, if it reads any.

    A brief is the protocol's own, and stays as it is.
    """
    if not _reads(engine, spec):
        return {}
    if "brief" in task:
        return {"brief": task["brief"]}
    found, reader = task.get("evidence", []), _reader(engine, catalog, catalog.tools[task["call"]["tool"]])
    if reader is not None and spec.limits.context_tokens < reader.limits.context_tokens:
        found = _fitting(found[::-1], spec)
    return {"evidence": found}


def _reader(engine: Engine, catalog: Catalog, spec: ToolSpec) -> ToolSpec | None:
    """The first of a tool and its fallbacks that reads evidence."""
    specs = [catalog.tools[name] for name in (spec.name, *spec.fallback) if name in catalog.tools]
    return next((other for other in specs if _reads(engine, other)), None)


def _reads(engine: Engine, spec: ToolSpec) -> bool:
    tool = engine.tools.get(spec.name)
    return tool is not None and tool.reads_evidence  # a final answer is a line without a tool


def texts_of(evidence: Evidence) -> Iterator[str]:
    """The texts in it, whose length bounds from below what reading them costs."""
    for part in (*evidence.get("evidence", ()), *evidence.get("brief", ())):
        if isinstance(part["content"], str):  # a message that only calls tools has none
            yield part["content"]


def findings(situation: Situation, spec: ToolSpec) -> list[dict[str, Any]]:
    """What earlier calls brought: the newest that fit the context of the tool that will read them, oldest first."""
    return _fitting(_newest_first(situation), spec)


def _fitting(newest_first: Iterable[dict[str, Any]], spec: ToolSpec) -> list[dict[str, Any]]:
    found = list(newest_first)
    contents = newest_that_fit((finding["content"] for finding in found), spec.limits.context_tokens)
    return [{**finding, "content": content} for finding, content in zip(found, contents, strict=False)][::-1]


def _newest_first(situation: Situation) -> Iterator[dict[str, Any]]:
    for turn in reversed(list(situation.turns.values())):
        for call in reversed(turn["decision"]["calls"]):
            outcome = turn["outcomes"].get(call["id"])
            if outcome is None or outcome["error"]:
                continue
            caller = situation.catalog.tools.get(call["tool"])
            kind = "function" if caller is None else caller.kind
            args = args_sent(call, outcome)
            yield {"tool": call["tool"], "kind": kind, "args": args, "content": outcome["content"]}
