"""What a reply in a service conversation decides: calls of the domain, an expert, or a message to the user.

Nothing is mended: the released checkpoint was not trained with it, and a reply that holds nothing valid is asked for
again without a word about it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from langchain_core.messages import AIMessage

from orchestra_graph.catalog import Catalog
from orchestra_graph.protocols.reply import FINAL_ANSWER, MAX_REASON, read_reply
from orchestra_graph.text import clean, cut
from orchestra_graph.turns import Call, Decision

CALL_EXPERT: Final = "call_expert"
"""The one function by which the router reaches every expert."""

MOST_CALLS: Final = 6
"""Calls of one reply that are sent; those after them are not."""


def read_router(reply: AIMessage, catalog: Catalog, turn_id: str) -> Decision:
    """Turn the router's reply into a decision.

    A valid call of an expert stands for the whole reply, since the expert's reply takes its place; of several the last.
    """
    asked = [call["args"].get("expert") for call in reply.tool_calls if call["name"] == CALL_EXPERT]
    experts = [name for name in asked if isinstance(name, str) and _is_expert(name, catalog)]
    if experts:
        call: Call = {"id": f"{turn_id}-0", "tool": experts[-1], "args": {}}
        return {"calls": [call], "reason": cut(message_of(clean(reply.text)), MAX_REASON), "by": "router"}
    return _read(reply, catalog, turn_id)


def read_expert(text: str, calls: list[dict[str, Any]], catalog: Catalog, turn_id: str) -> Decision:
    """Turn an expert's reply into a decision, checked as the router's.

    Args:
        text: What the expert wrote.
        calls: `name` and `args` of each call; arguments that are no JSON as text.
        catalog: Tools that may be called.
        turn_id: Calls are numbered under it.
    """
    whole = [_call(call["name"], call["args"]) for call in calls if isinstance(call["args"], dict)]
    broken = [
        {"name": call["name"], "args": call["args"], "id": None, "error": None, "type": "invalid_tool_call"}
        for call in calls
        if not isinstance(call["args"], dict)
    ]
    decision = _read(AIMessage(text, tool_calls=whole, invalid_tool_calls=broken), catalog, turn_id)
    return {**decision, "by": "expert"}


def message_of(text: str) -> str:
    """The message to the user in a reply: after the last thought, inside the last `<message>`."""
    said = text.rpartition("</think>")[2].partition("<think>")[0].strip()
    _, tag, inner = said.rpartition("<message>")
    return inner.partition("</message>")[0] if tag else said


def _read(reply: AIMessage, catalog: Catalog, turn_id: str) -> Decision:
    text = message_of(clean(reply.text))
    made = len(reply.tool_calls) + len(reply.invalid_tool_calls)
    decision = read_reply(_first_calls(reply), _domain(catalog), turn_id, repair=False)
    problem = decision.get("problem")
    if problem is not None and problem["kind"] == "no_call" and text.strip():
        answer = AIMessage("", tool_calls=[_call(FINAL_ANSWER, {"answer": text})])
        return read_reply(answer, catalog, turn_id, repair=False)
    if made > MOST_CALLS and problem is None:
        detail = f"{made} calls in one reply; only the first {MOST_CALLS} were read"
        decision["problem"] = {"kind": "too_many_calls", "detail": detail}
    decision["reason"] = cut(text, MAX_REASON)
    return decision


def _first_calls(reply: AIMessage) -> AIMessage:
    calls = reply.tool_calls[:MOST_CALLS]
    invalid = reply.invalid_tool_calls[: MOST_CALLS - len(calls)]
    return reply.model_copy(update={"tool_calls": calls, "invalid_tool_calls": invalid})


def _is_expert(name: str, catalog: Catalog) -> bool:
    return name in catalog.tools and catalog.tools[name].kind == "expert"


@lru_cache(maxsize=128)
def _domain(catalog: Catalog) -> Catalog:
    """What may be called by its own name: neither experts nor the final answer, which are no functions here."""
    names = [name for name in catalog.tools if name != FINAL_ANSWER and not _is_expert(name, catalog)]
    return catalog.restrict(names)


def _call(name: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "args": args, "id": None, "type": "tool_call"}
