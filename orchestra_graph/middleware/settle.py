"""What has happened since the last model step: results of the tools that an expert called, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage

from orchestra_graph.middleware.parts import Charges, Parts
from orchestra_graph.protocols.mend import plain
from orchestra_graph.state import STAMP, RunHeader
from orchestra_graph.text import clean
from orchestra_graph.turns import Call, Outcome, Turn

CALLS: Final = "Calls: "
"""Stands before the calls of an expert, as the router reads them."""


def settled(parts: Parts, run: RunHeader, turns: dict[str, Turn], messages: Sequence[AnyMessage]) -> dict[str, Turn]:
    """The newest turns, completed from the messages; empty where nothing is missing."""
    completed = lost(parts, run, turns, messages)
    turns = {**turns, **completed}
    if not turns:
        return completed
    last = next(reversed(turns.values()))
    said, results = newest(messages, calling=_is_open(last))
    if said is None:
        return completed
    if last["decision"]["by"] != "expert" and not last["outcomes"] and last["decision"]["calls"]:
        completed[last["id"]] = _answered_elsewhere(parts, run, last, said)
    turn = tool_turn(run, turns, said)
    # A result that is none of a tool's belongs to no turn: a structured answer comes as one.
    if turn["id"] in turns or any(STAMP in result.response_metadata for result in results.values()):
        completed[turn["id"]] = _with_results(parts, run, turn, results)
    return completed


def lost(parts: Parts, run: RunHeader, turns: Mapping[str, Turn], messages: Sequence[AnyMessage]) -> dict[str, Turn]:
    """Turns of a step that failed, and that other middleware has ended in its own way."""
    first = f"{run['id'][:8]}-{len(turns)}"
    step = parts.memory(run).steps.get(first)
    if step is None or not step.turns or step.after == messages[-1].id:
        return {}
    return step.turns if turns else step.turns | {first: with_charges(step.turns[first], step.charges)}


def tool_turn(run: RunHeader, turns: dict[str, Turn], said: AIMessage) -> Turn:
    """The turn of the tools that an expert's message calls, in its order; nobody asked the router about them."""
    last = next(reversed(turns.values())) if turns else None
    if last is not None and _is_open(last):
        return _as_it_stands(last, turns, said)
    turn_id = f"{run['id'][:8]}-{len(turns)}"
    return {
        "id": turn_id,
        "index": len(turns),
        "decision": {"calls": _calls(turn_id, said.tool_calls, 0), "reason": "", "by": "expert"},
        "charges": {},
        "outcomes": {},
        "seconds": 0.0,
    }


def _as_it_stands(turn: Turn, turns: Mapping[str, Turn], said: AIMessage) -> Turn:
    """The turn with the calls of its message as it is now: other middleware may have added some and dropped others."""
    asked = {call["id"] or "": call for call in said.tool_calls}
    known = {call.get("tool_call_id", ""): call for call in turn["decision"]["calls"]}
    if list(asked) == list(known):
        return turn
    others = [call for other in turns.values() if other is not turn for call in other["decision"]["calls"]]
    if known.keys().isdisjoint(asked) and asked.keys() <= {call.get("tool_call_id") for call in others}:
        return turn  # an older message: of this one every call was dropped
    first = 1 + max(int(call["id"].rpartition("-")[2]) for call in known.values())
    added = _calls(turn["id"], [call for id, call in asked.items() if id not in known], first)
    known |= {call["tool_call_id"]: call for call in added}
    return {**turn, "decision": {**turn["decision"], "calls": [known[id] for id in asked]}}


def _calls(turn_id: str, asked: Sequence[ToolCall], first: int) -> list[Call]:
    return [
        {"id": f"{turn_id}-{n}", "tool": c["name"], "args": arguments(c["args"]), "tool_call_id": c["id"] or ""}
        for n, c in enumerate(asked, first)
    ]


def bare_turn(run: RunHeader, index: int, charges: Charges) -> Turn:
    """A turn that only holds what was paid in a run that never came to a step of its model."""
    return {
        "id": f"{run['id'][:8]}-{index}",
        "index": index,
        "decision": {"calls": [], "reason": "paid by other middleware", "by": "closing"},
        "charges": charges,
        "outcomes": {},
        "seconds": 0.0,
    }


def content_of(message: AIMessage) -> str:
    """What an expert said and called, as the router reads it."""
    calls = [f"{c['name']}({json.dumps(arguments(c['args']), ensure_ascii=False)})" for c in message.tool_calls]
    return "\n".join(filter(None, [clean(message.text), CALLS + ", ".join(calls) if calls else ""]))


def newest(messages: Sequence[AnyMessage], *, calling: bool = False) -> tuple[AIMessage | None, dict[str, ToolMessage]]:
    """The newest message of an assistant, and the results after it by the ids of its calls.

    Args:
        messages: The conversation.
        calling: Whether it must call tools; what other middleware ends a run with does not.
    """
    results: dict[str, ToolMessage] = {}
    for message in reversed(messages):
        if isinstance(message, AIMessage) and (message.tool_calls or not calling):
            return message, results
        if isinstance(message, ToolMessage):
            results[message.tool_call_id] = message
    return None, results


def _is_open(turn: Turn) -> bool:
    """Whether tools were called of which nothing has been written yet."""
    return turn["decision"]["by"] == "expert" and not turn["outcomes"]


def with_charges(turn: Turn, charges: Charges) -> Turn:
    """A turn with more charges."""
    return {**turn, "charges": {**turn["charges"], **charges}}


def _answered_elsewhere(parts: Parts, run: RunHeader, turn: Turn, said: AIMessage) -> Turn:
    """The turn of an expert that failed, where other middleware has answered in its place."""
    call_id = turn["decision"]["calls"][0]["id"]
    outcome: Outcome = {"content": content_of(said), "error": False}
    return with_charges({**turn, "outcomes": {call_id: outcome}}, parts.made(run, call_id).charges)


def _with_results(parts: Parts, run: RunHeader, turn: Turn, results: Mapping[str, ToolMessage]) -> Turn:
    outcomes, charges = dict(turn["outcomes"]), dict(turn["charges"])
    for call in turn["decision"]["calls"]:
        result = results.get(call.get("tool_call_id", ""))
        stamp: Mapping[str, Any] = {} if result is None else result.response_metadata.get(STAMP, {})
        # Other middleware may have called the tool more than once and kept one result, or written one of its own.
        charges |= parts.made(run, call["id"]).charges | stamp.get("charges", {})
        if result is not None:
            outcome: Outcome = {"content": clean(result.text), "error": result.status == "error"}
            outcomes[call["id"]] = outcome | stamp.get("outcome", {})
    return {**turn, "outcomes": outcomes, "charges": charges}


def arguments(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments that can be stored; none where the model's cannot."""
    read, problem = plain(args)
    return read if problem is None else {}
