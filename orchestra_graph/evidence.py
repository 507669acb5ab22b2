"""What the next decision rests on, and what a call's tool is shown of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from typing_extensions import TypedDict

from orchestra_graph.catalog import ToolSpec
from orchestra_graph.engine import Setup
from orchestra_graph.protocols.base import Protocol, Situation
from orchestra_graph.state import CallTask, OrchestratorState, question_of
from orchestra_graph.text import cut
from orchestra_graph.turns import Turn

_SHORTEST_CUT: Final = 400
"""Characters below which a piece of an older finding is not worth reading."""


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


async def evidence_for(protocol: Protocol, situation: Situation, spec: ToolSpec) -> Evidence:
    """What a tool that reads evidence is shown: as the protocol writes it, else the findings that fit its context."""
    if protocol.blocks:
        brief = await asyncio.to_thread(protocol.brief, situation, spec)
    else:
        brief = protocol.brief(situation, spec)
    return {"evidence": findings(situation, spec)} if brief is None else {"brief": brief}


def texts_of(evidence: Evidence | CallTask) -> Iterator[str]:
    """The texts in it, whose length bounds from below what reading them costs."""
    for part in (*evidence.get("evidence", ()), *evidence.get("brief", ())):
        if isinstance(part["content"], str):  # a message that only calls tools has none
            yield part["content"]


def findings(situation: Situation, spec: ToolSpec) -> list[dict[str, Any]]:
    """What earlier calls brought: the newest that fit the context of the tool that will read them, oldest first."""
    room = spec.limits.context_tokens * 4
    found: list[dict[str, Any]] = []
    for turn in reversed(list(situation.turns.values())):
        for call in reversed(turn["decision"]["calls"]):
            outcome = turn["outcomes"].get(call["id"])
            if outcome is None or outcome["error"]:
                continue
            if found and len(outcome["content"]) > room < _SHORTEST_CUT:
                return found[::-1]
            content = cut(outcome["content"], max(room, 0) // 4)
            room -= len(content)
            caller = situation.catalog.tools.get(call["tool"])
            kind = "function" if caller is None else caller.kind
            found.append({"tool": call["tool"], "kind": kind, "args": call["args"], "content": content})
    return found[::-1]
