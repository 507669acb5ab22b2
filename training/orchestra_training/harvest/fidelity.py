"""How faithfully a trajectory holds what its policy read and wrote, and so what it is fit for.

    exact      the server's own token ids and logprobs, of the distribution that training computes: fit for replay
    ids        the server's own token ids, sampled otherwise: fit for SFT, DPO and KTO
    rendered   text, with the tokenizer and the chat template named that give it tokens again
    text       text alone

Nothing is guessed: what a run does not state counts against it. What is stated comes from `orchestra_graph.served` and
from the parameters that each request sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from orchestra_graph.ledger import ROUTER
from orchestra_graph.runlog.record import Capture, Trajectory
from orchestra_graph.served import VLLM_SAMPLING
from orchestra_graph.turns import Turn

Fidelity = Literal["exact", "ids", "rendered", "text"]

ORDER: Final[tuple[Fidelity, ...]] = ("exact", "ids", "rendered", "text")
"""The best first."""

Shortfall = Literal[
    "no_tokens", "redacted", "no_logprobs", "sampling", "constraint", "logprobs_mode", "tokenizer", "template"
]
"""What keeps a trajectory from being exact."""

_HARMLESS: Final = frozenset(
    {"seed", "stop", "max_tokens", "max_completion_tokens", "return_token_ids", "chat_template_kwargs", "user"}
)
"""Parameters of a request that do not bend the distribution of the tokens that it brings."""
_NOT_SET: Final[tuple[Any, ...]] = (None, {}, [], ())


class Stated(NamedTuple):
    """The fidelity of a trajectory."""

    fidelity: Fidelity
    kind: Shortfall | None = None
    """What keeps it from being exact, to be counted; None where it is."""
    reason: str = ""
    """The same in words: the value and what was expected."""


def fidelity(run: Trajectory) -> Stated:
    """The fidelity of a run: the lowest among its own and those of the runs in its calls that its policy decided."""
    own = _own(run)
    nested = [(inner.run_id, fidelity(inner)) for inner in run.runs.values() if inner.policy == run.policy]
    worst = max(nested, key=lambda found: ORDER.index(found[1].fidelity), default=None)
    if worst is None or ORDER.index(worst[1].fidelity) <= ORDER.index(own.fidelity):
        return own
    return worst[1]._replace(reason=f"nested run {worst[0]}: {worst[1].reason}")


def _own(run: Trajectory) -> Stated:
    without = _without_tokens(run)
    if without is not None:
        named = run.tokenizer is not None and run.template_hash is not None
        return Stated("rendered" if named else "text", "no_tokens", without)
    for kind, reason in _shortfalls(run):
        return Stated("ids", kind, reason)
    return Stated("exact")


def _without_tokens(run: Trajectory) -> str | None:
    """Which of the policy's replies has no token ids; None where all have."""
    asked = 0
    for turn in run.turns:
        problem = turn["decision"].get("problem")
        if turn["decision"]["by"] != "router" or (problem is not None and problem["kind"] == "router_error"):
            continue
        names = turn.get("captures", ())
        if not names and not _was_asked(turn):
            continue
        asked += 1
        captures = [run.captures[name] for name in names if name in run.captures]
        if not captures or len(captures) != len(names):
            return f"turn {turn['id']} has no capture; expected the server's token ids"
        for capture in captures:
            if not (capture.prompt_token_ids and capture.token_ids):
                return f"capture {capture.id} has no token ids; expected those of prompt and reply"
    return None if asked else "the policy decided no turn"


def _was_asked(turn: Turn) -> bool:
    """Whether the policy was: where one choice is left a protocol decides by itself. Requests are charged."""
    charges = turn["charges"].values()
    return not charges or any(charge["tool"] == ROUTER for charge in charges)


def _shortfalls(run: Trajectory) -> Iterator[tuple[Shortfall, str]]:
    """What keeps a run with token ids from being exact, the gravest first."""
    for capture in run.captures.values():
        count = None if capture.logprobs is None else len(capture.logprobs)
        if count != len(capture.token_ids):
            yield "no_logprobs", f"capture {capture.id}: {count} logprobs; expected {len(capture.token_ids)}"
    if run.constraint is not None:
        yield "constraint", f"constraint = {run.constraint!r}; expected none: logprobs are of a masked distribution"
    if run.logprobs_mode != "processed_logprobs":
        yield "logprobs_mode", f"logprobs_mode = {run.logprobs_mode!r}; expected 'processed_logprobs'"
    for capture in run.captures.values():
        yield from _bent(run.sampling, capture)
    if run.tokenizer is None:
        yield "tokenizer", "tokenizer is not stated"
    if run.template_hash is None:
        yield "template", "template_hash is not stated"


def _bent(served: Mapping[str, Any], capture: Capture) -> Iterator[tuple[Shortfall, str]]:
    """What bends the distribution that a reply was sampled from."""
    sent = (capture.model_extra or {}).get("sampling")
    if not isinstance(sent, Mapping):
        yield "sampling", f"capture {capture.id}: sampling is not stated"
        return
    effective = {**served, **sent}
    if effective.get("tool_choice") not in (None, "auto", "none"):
        yield "constraint", f"capture {capture.id}: tool_choice = {effective['tool_choice']!r}; expected 'auto'"
    for name, neutral in VLLM_SAMPLING.items():
        value = effective.pop(name, None)
        if value is None:
            yield "sampling", f"capture {capture.id}: {name} is not stated, by the request or for the server"
        elif value != neutral and not (name == "top_k" and value == -1):
            yield "sampling", f"capture {capture.id}: {name} = {value!r}; expected {neutral:g}"
    for name in sorted(effective.keys() - _HARMLESS - {"tool_choice"}):
        if effective[name] not in _NOT_SET:
            yield "sampling", f"capture {capture.id}: {name} = {effective[name]!r:.60}; not known to be harmless"
