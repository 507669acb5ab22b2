"""From a reply of the released checkpoint to a decision: its first valid call, in which it names an expert.

Nothing is mended: the checkpoint was not trained with it. What is wrong with a reply is recorded, and never shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage

from orchestra_graph.catalog import Catalog
from orchestra_graph.protocols.mend import show
from orchestra_graph.protocols.nemotron_functions import PARAMETER, experts
from orchestra_graph.protocols.reply import MAX_CALLS, read_reply
from orchestra_graph.turns import Decision, Problem


def read_choice(reply: AIMessage, catalog: Catalog, turn_id: str) -> Decision:
    """Turn a reply into a decision.

    Args:
        reply: Any message of a model.
        catalog: Its experts may be named, each through the function of its role.
        turn_id: The call is numbered under it.
    """
    names = {function: [spec.name for spec in specs] for function, specs in experts(catalog).items()}
    raw: list[tuple[Any, Any]] = [(call["name"], call["args"]) for call in reply.tool_calls]
    raw += [(call.get("name"), call.get("args")) for call in reply.invalid_tool_calls]
    wordless = reply.model_copy(update={"tool_calls": [], "invalid_tool_calls": []})
    decision = read_reply(wordless, catalog, turn_id, repair=False)
    if not raw:
        return decision
    problems = [_problem(function, args, names) for function, args in raw]
    valid = next((n for n, problem in enumerate(problems) if problem is None), None)
    if valid is not None:
        decision["calls"] = [{"id": f"{turn_id}-0", "tool": raw[valid][1][PARAMETER], "args": {}}]
    wrong = [problem for problem in problems[:valid] if problem is not None][:MAX_CALLS]
    if valid is not None and len(raw) > valid + 1:
        detail = f"{len(raw)} calls in one reply; only the first valid one is executed"
        wrong.append({"kind": "too_many_calls", "detail": detail})
    del decision["problem"]  # of a reply without calls
    if wrong:
        details = dict.fromkeys(problem["detail"] for problem in wrong)
        decision["problem"] = {"kind": wrong[0]["kind"], "detail": "\n".join(details)}
    return decision


def _problem(function: Any, args: Any, names: Mapping[str, Sequence[str]]) -> Problem | None:
    """What is wrong with a call, or None."""
    if not isinstance(function, str) or function not in names:
        expected = ", ".join(names)
        return {"kind": "unknown_tool", "detail": f"there is no tool {show(function)}; expected one of {expected}"}
    if isinstance(args, dict) and args.get(PARAMETER) in names[function]:
        return None
    expected = f"{PARAMETER}: one of {', '.join(names[function])}"
    return {"kind": "bad_arguments", "detail": f"{function}: arguments {show(args)}; expected {expected}"}
