"""What a run leaves in LangSmith, where tracing is on: dollars, decisions, what is left; and what it leaves out.

LangChain's own tracer makes the tree: the graph's run, in it a run for each turn of the router and for each call, in
these the requests to models. Here the parts of it that are ours get what the tracer cannot know. Where tracing is off,
each function returns after one look at a context variable, and nothing is sent by any of them.

Dollars stand on leaves only, since LangSmith adds them up from there: a request to a model on its own run, in place of
what LangSmith would compute from its prices; what a call costs beside its requests on the call's run, or on a run
`fee` in it where it made requests. Their sum is the ledger's.

Long texts are cut, what looks like a key is hidden in errors, and the state of the graph, which holds every document
so far, is not sent along with each step. Where the LangSmith client has `hide_inputs` (or `LANGSMITH_HIDE_INPUTS`),
neither question nor task is in the metadata; where it has `hide_outputs`, no reason of a decision. A trace without the
question cannot be harvested. Left out: what a user's own nodes and tools put into their runs; use `hide_inputs`,
`hide_outputs` or `anonymizer` for these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from langgraph.types import TracePolicy
from langsmith.run_helpers import get_current_run_tree, tracing_context
from langsmith.run_trees import RunTree
from langsmith.utils import tracing_is_enabled

from orchestra_graph.spans import Span, annotate, current, figures, graph_of, shortened
from orchestra_graph.turns import Charge, Decision, Outcome, Turn


@contextmanager
def call(name: str, args: Mapping[str, Any]) -> Iterator[None]:
    """A run for a call that has no node to itself; what is called inside hangs below it."""
    outer = current()
    if outer is None:
        yield
        return
    child = outer.run.create_child(name, "tool", inputs={"args": shortened(args)}, extra={"metadata": {}})
    child.post()
    try:
        with tracing_context(parent=child), Span(child, outer.client, outer):
            yield
    except BaseException as error:
        child.end(error=type(error).__name__)
        raise
    finally:
        child.patch()


def is_on() -> bool:
    """Whether what happens in this context is traced."""
    return get_current_run_tree() is not None


def decided(run: Mapping[str, Any], turn: Turn, left: Mapping[str, Any], **names: str) -> None:
    """Say what the router decided, on the run of its turn, and whose run it is, on the graph's.

    Args:
        run: The header.
        turn: With its decision and what that cost.
        left: Dollars, seconds and turns of the budget after it.
        names: Of policy and protocol.
    """
    tree = get_current_run_tree()
    if tree is None:
        return
    decision = turn["decision"]
    problem = decision.get("problem")
    shown = {
        "calls": [{"tool": call["tool"], "args": call["args"]} for call in decision["calls"]],
        "reason": decision["reason"],
        **({"problem": problem["detail"]} if problem else {}),
        **({"outcomes": shortened(turn["outcomes"])} if turn["outcomes"] else {}),
    }
    about = {
        "turn": turn["index"],
        "decided_by": decision["by"],
        **({} if _hides(tree, "outputs") else _reasons(decision)),
        "budget_left": {key: None if math.isinf(value) else value for key, value in left.items()},
        **figures(turn["charges"].values()),
        "charges": _without_errors(turn["charges"]),
        "wall_seconds": turn["seconds"],
    }
    tools = {f"calls:{call['tool']}" for call in decision["calls"]}
    tags = ["turn", f"by:{decision['by']}", *sorted(tools), *([f"problem:{problem['kind']}"] if problem else ())]
    annotate(tree, {**_whose(run, names), **about}, tags, shown)
    _name_graph(tree, run, names)


def called(tool: str, task: Mapping[str, Any], outcome: Outcome, charges: Mapping[str, Charge]) -> None:
    """Say what came of a call, on its run.

    Args:
        tool: Name of the tool.
        task: What was sent to it.
        outcome: What came back.
        charges: What it cost.
    """
    tree = get_current_run_tree()
    if tree is None:
        return
    run, call_id = task["run"], task["call"]["id"]
    about = {
        "call": call_id,
        "run": run["id"],
        "catalog_hash": run["catalog_hash"],
        "preferences": run["preferences"],
        "budget_left": task["left"],
        "attempts": [charge["status"] for charge in charges.values()],
        **figures(charges.values()),
        "charges": _without_errors(charges),
        "wall_seconds": outcome.get("seconds", 0.0),
    }
    marks = [mark for mark in ("error", "cached", "rejected") if outcome.get(mark)]
    if "by" in outcome:
        about["answered_by"] = outcome["by"]
    shown: dict[str, Any] = {key: outcome.get(key) for key in ("content", "answer", "error", "args") if key in outcome}
    annotate(tree, about, ["call", f"tool:{tool}", *marks], shown)
    span = current()
    if span is not None and span.run is tree and not span.has_tool_run:
        tree.run_type = "tool"


def finished(run: Mapping[str, Any], stopped_by: str, ledger: Mapping[str, Any], **names: str) -> None:
    """Say on the graph's run how it ended, and what it came to.

    Args:
        run: The header; the run of an agent is named here, whose steps have graphs of their own.
        stopped_by: Why it ended.
        ledger: Its totals.
        names: Of policy and protocol.
    """
    tree = get_current_run_tree()
    graph = None if tree is None else _name_graph(tree, run, names)
    if graph is not None:
        sums = {key: ledger[key] for key in ("dollars", "uncertain_dollars", "seconds", "wall_seconds", "calls")}
        annotate(graph, {"stopped_by": stopped_by, **sums}, [f"stopped_by:{stopped_by}"])


def _whose(run: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Whose run it is, under which terms, by which version of the policy."""
    version = {f"policy_{key}": value for key, value in run.get("policy", {}).items() if key != "name"}
    same = {key: run[key] for key in ("catalog_hash", "preferences", "budget")}
    return {**names, **version, "run": run["id"], **same}


def _name_graph(tree: RunTree, run: Mapping[str, Any], names: Mapping[str, str]) -> RunTree | None:
    """The run of the graph that a run is a step of, which says from now on what it was asked."""
    graph = graph_of(tree)
    if graph is not None and graph.metadata.get("run") != run["id"]:
        asked = {"question": shortened(run["question"]), "task": run.get("task", {})}
        about = {key: run[key] for key in ("started", "parent") if key in run}
        about |= {} if _hides(graph, "inputs") else asked
        annotate(graph, {**_whose(run, names), **about}, [f"{key}:{name}" for key, name in names.items()])
    return graph


def _reasons(decision: Decision) -> dict[str, Any]:
    """What the router has said, which its run shows as its output, too."""
    repaired = decision.get("repaired")
    return {
        "decision_reason": shortened(decision["reason"]),
        **({"repaired": shortened(repaired)} if repaired else {}),
    }


def _hides(tree: RunTree, part: Literal["inputs", "outputs"]) -> bool:
    """Whether the client leaves these out of all runs; what a function of the user's leaves is for it to say."""
    return bool(getattr(tree.client, f"_hide_{part}", False))


def _without_errors(charges: Mapping[str, Charge]) -> dict[str, Any]:
    """Charges by key; the errors stand on the runs of the attempts, with keys hidden."""
    return {key: {name: value for name, value in charge.items() if name != "error"} for key, charge in charges.items()}


def _recorded(value: Any) -> Any:
    """What is recorded of a node's input: of a run under way what it was asked, not its whole state."""
    run = value.get("run") if isinstance(value, dict) else None
    if run is None:
        return value
    if not run.get("traced"):
        # Small ones are recorded as they are: no need to find out whether tracing was switched on meanwhile.
        is_small = not (value.get("turns") or value.get("evidence") or value.get("brief"))
        if is_small or not tracing_is_enabled():
            return value
    if "call" in value:
        return {"args": shortened(value["call"]["args"]), "call": value["call"]["id"]}
    return {"question": shortened(run["question"]), "turns": len(value.get("turns") or ())}


POLICY: Final = TracePolicy(process_inputs=_recorded)
"""For the nodes of an orchestrator; their outputs are set by the nodes themselves."""
