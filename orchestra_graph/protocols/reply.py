"""From a router's reply to a decision: whatever the reply holds, the result is a turn.

A call is checked against the catalog's schema. What is off is mended where only one reading is possible, and the
decision says so (`orchestra_graph.protocols.mend`); everything else becomes a problem that the router reads. However
long a reply is, what is kept of it is short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.messages import AIMessage

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.protocols.mend import args_from_text, mend, object_end, plain, read_json, shorten, show, similar
from orchestra_graph.text import clean, cut, is_truncated
from orchestra_graph.turns import Call, Decision, ProblemKind

FINAL_ANSWER: Final = "final_answer"
"""Tool by which a router answers by itself, where the catalog has no terminal tool."""

MAX_CALLS: Final = 8
"""Calls of one reply that are read; those after them are not sent."""

MAX_REASON: Final = 4_000
"""Tokens of a reply's text that are kept."""

_FORM: Final = '{"name": <tool>, "arguments": {...}}'
_OPENING: Final = re.compile(r"<tool_call>\s*")
_CLOSING: Final = "</tool_call>"


@dataclass(slots=True)
class _Reading:
    """What has been found out about a reply so far."""

    catalog: Catalog
    repair: bool
    truncated: bool
    calls: list[tuple[ToolSpec, dict[str, Any]]] = field(default_factory=list)
    problems: list[tuple[ProblemKind, str]] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    def reject(self, kind: ProblemKind, detail: str) -> None:
        """Note a problem."""
        self.problems.append((kind, detail))


def read_reply(reply: AIMessage, catalog: Catalog, turn_id: str, *, repair: bool = True) -> Decision:
    """Turn a reply into a decision.

    Args:
        reply: Any message of a model.
        catalog: Tools that may be called.
        turn_id: Calls are numbered under it.
        repair: Whether to mend what has one reading only; off, it is a problem instead.
    """
    reading = _Reading(catalog, repair, is_truncated(reply))
    said = _spoken(clean(reply.text))
    raw: list[tuple[Any, Any]] = [(call["name"], call["args"]) for call in reply.tool_calls]
    raw += [(call.get("name") or "", call.get("args") or "") for call in reply.invalid_tool_calls]
    if not raw:
        raw, said = _calls_in_text(said, reading)
    for n, (name, args) in enumerate(raw[:MAX_CALLS], 1):
        _read_call(name, args, reading, cut_off=reading.truncated and n == len(raw))
    if not raw and not reading.problems:
        _read_no_call(said, reading)
    if len(raw) > MAX_CALLS:
        reading.reject("too_many_calls", f"{len(raw)} calls in one reply; only the first {MAX_CALLS} were read")
    if len(reading.calls) > 1:
        _terminal_alone(reading)
    return _decision(reading, said, turn_id)


def _decision(reading: _Reading, said: str, turn_id: str) -> Decision:
    calls: list[Call] = [
        {"id": f"{turn_id}-{n}", "tool": spec.name, "args": args} for n, (spec, args) in enumerate(reading.calls)
    ]
    decision: Decision = {"calls": calls, "reason": cut(said, MAX_REASON), "by": "router"}
    if reading.problems:
        details = dict.fromkeys(detail for _, detail in reading.problems)
        decision["problem"] = {"kind": reading.problems[0][0], "detail": "\n".join(details)}
    if reading.repaired and calls:
        decision["repaired"] = list(dict.fromkeys(reading.repaired))
    return decision


def _spoken(text: str) -> str:
    """The text without the model's thoughts; templates that open them in the prompt leave only the closing tag."""
    if "think>" in text:
        text = text.rpartition("</think>")[2].partition("<think>")[0]
    return text.strip()


def _calls_in_text(said: str, reading: _Reading) -> tuple[list[tuple[Any, Any]], str]:
    """Calls that the server's parser left in the text, and the text without them."""
    bodies, rest = _tagged(said)
    if not bodies and reading.repair:
        body = _unfenced(said)
        if _is_call(read_json(body) if body.startswith("{") and body.endswith("}") else None):
            bodies, rest = [body], ""
    found: list[tuple[Any, Any]] = []
    for body in bodies[: MAX_CALLS + 1]:
        call = read_json(body)
        if reading.repair and isinstance(call, dict):
            found.append((call.get("name", ""), call.get("arguments", call.get("parameters", {}))))
            reading.repaired.append("read a call that was written as text")
            continue
        why = "is no JSON object" if reading.repair else "was not parsed by the server"
        kind: ProblemKind = "truncated" if reading.truncated else "unreadable"
        reading.reject(kind, f"the tool call {show(body)} {why}; expected {_FORM}{_why_cut(reading.truncated)}")
    return found, rest if bodies else said


def _tagged(said: str) -> tuple[list[str], str]:
    """What stands between the tags of calls, and the text around them.

    A whole call ends with its JSON: a value in it may hold the closing tag, which is where servers stop reading.
    """
    bodies: list[str] = []
    around: list[str] = []
    at = 0
    while opening := _OPENING.search(said, at):
        around.append(said[at : opening.start()])
        end = said.find(_CLOSING, object_end(said, opening.end()))
        end = len(said) if end < 0 else end
        bodies.append(said[opening.end() : end])
        at = end + len(_CLOSING)
    return bodies, "".join([*around, said[at:]]).strip()


def _unfenced(said: str) -> str:
    """What stands in a text that is one code fence and nothing else; any other text as it is."""
    first, _, rest = said.partition("\n")
    if first.strip() in ("```", "```json") and rest.endswith("```"):
        return rest[:-3].strip()
    return said


def _is_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("arguments", value.get("parameters")), dict | str)
    )


def _read_call(name: Any, args: Any, reading: _Reading, *, cut_off: bool) -> None:
    """Read one call; `cut_off` says that the reply ended within it or after it, nobody knows which."""
    notes: list[str] = []
    spec = reading.catalog.tools.get(name) if isinstance(name, str) else None
    if spec is None and reading.repair:
        spec = similar(name, reading.catalog)
        if spec is not None:
            notes.append(f"took {show(name)} for {spec.name}")
    if spec is None:
        reading.reject("unknown_tool", f"there is no tool {show(name)}; expected one of {_names(reading.catalog)}")
        return
    read, error = _read_args(args, spec, notes, repair=reading.repair)
    if error or cut_off:
        kind: ProblemKind = "truncated" if cut_off else "bad_arguments"
        error = error or "they may not be complete"
        detail = f"{spec.name}: arguments {show(args)}: {error}; expected {_signature(spec)}{_why_cut(cut_off)}"
        reading.reject(kind, detail)
        return
    reading.calls.append((spec, read))
    reading.repaired += notes


def _read_args(args: Any, spec: ToolSpec, notes: list[str], *, repair: bool) -> tuple[Any, str | None]:
    """The arguments as they can be sent, mended where that is called for, and what is wrong with them, or None."""
    if repair and isinstance(args, str):
        args, done = args_from_text(args, spec)
        notes += done
    read, error = plain(args)
    if error is not None:
        return read, error
    error = _invalid(spec, read)
    if error is None or not repair:
        return read, error
    mended, done = mend(spec, read)
    mended, worse = plain(mended)
    if not done or worse or _invalid(spec, mended):
        return read, error
    notes += done
    return mended, None


def _read_no_call(said: str, reading: _Reading) -> None:
    if reading.truncated:
        reading.reject(
            "truncated", "the reply was cut off at the length limit before a call; call a tool in fewer words"
        )
    elif said and reading.repair and FINAL_ANSWER in reading.catalog.tools:
        _read_call(FINAL_ANSWER, {"answer": said}, reading, cut_off=False)
        reading.repaired.append("took a reply without a call for the final answer")
    else:
        reading.reject("no_call", f"the reply holds no tool call; call one of {_names(reading.catalog)}")


def _terminal_alone(reading: _Reading) -> None:
    """Send a call that ends the run only alone: its answer could not rest on the others."""
    steps = [call for call in reading.calls if not call[0].terminal]
    kept = steps or reading.calls[:1]
    dropped = [call[0].name for call in reading.calls if call[0].terminal][0 if steps else 1 :]
    if dropped:
        reading.calls = kept
        names = ", ".join(dict.fromkeys(dropped))
        reading.reject("too_many_calls", f"{names} was not sent: a call that ends the run goes alone")


def _invalid(spec: ToolSpec, args: Any) -> str | None:
    """What is wrong with the arguments, or None."""
    return None if spec.validator.is_valid(args) else "; ".join(_explain(spec, args))


def _explain(spec: ToolSpec, args: Any) -> Iterator[str]:
    for n, error in enumerate(spec.validator.iter_errors(args)):
        if n == 3:
            yield "..."
            return
        place = ".".join(map(str, error.instance_path))
        yield shorten(f"{place}: {error.message}" if place else error.message)


def _signature(spec: ToolSpec) -> str:
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    parts = [
        f"{name}: {schema.get('type', 'any') if isinstance(schema, dict) else 'any'}"
        + ("" if name in spec.required else "?")
        for name, schema in properties.items()
    ]
    return "{" + ", ".join(parts) + "}"


def _names(catalog: Catalog) -> str:
    return ", ".join(catalog.tools)


def _why_cut(truncated: bool) -> str:
    return "; the reply was cut off at the length limit" if truncated else ""
