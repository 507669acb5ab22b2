"""From a router's reply to a decision: whatever the reply holds, the result is a turn.

A call is checked against the catalog's schema. What is off is mended where only one reading is possible, and the
decision says so; everything else becomes a problem that the router reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from langchain_core.messages import AIMessage

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.text import clean
from orchestra_graph.turns import Call, Decision, ProblemKind

FINAL_ANSWER: Final = "final_answer"
"""Tool by which a router answers by itself, where the catalog has no terminal tool."""

MAX_CALLS: Final = 8
"""Calls of one reply that are executed."""

_SHOWN: Final = 200
_TAGGED: Final = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_THINK: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE: Final = re.compile(r"\A```(?:json)?\s*\n(.*?)\n```\s*\Z", re.DOTALL)


@dataclass(slots=True)
class _Reading:
    """What has been found out about a reply so far."""

    calls: list[tuple[ToolSpec, dict[str, Any]]] = field(default_factory=list)
    problems: list[tuple[ProblemKind, str]] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def read_reply(reply: AIMessage, catalog: Catalog, turn_id: str, *, repair: bool = True) -> Decision:
    """Turn a reply into a decision.

    Args:
        reply: Any message of a model.
        catalog: Tools that may be called.
        turn_id: Calls are numbered under it.
        repair: Whether to mend what has one reading only; off, it is a problem instead.
    """
    reading = _Reading()
    text = clean(reply.text)
    said = _THINK.sub("", text).strip()
    truncated = reply.response_metadata.get("finish_reason") == "length"
    raw: list[tuple[Any, Any]] = [(call["name"], call["args"]) for call in reply.tool_calls]
    raw += [(call.get("name") or "", call.get("args") or "") for call in reply.invalid_tool_calls]
    if not raw:
        raw, said = _calls_in_text(said, reading, repair=repair)
    for name, args in raw:
        _read_call(name, args, catalog, reading, repair=repair, truncated=truncated)
    if not raw:
        _read_no_call(said, catalog, reading, repair=repair, truncated=truncated)
    _one_terminal(reading)
    return _decision(reading, said, turn_id)


def _decision(reading: _Reading, reason: str, turn_id: str) -> Decision:
    calls: list[Call] = [
        {"id": f"{turn_id}-{n}", "tool": spec.name, "args": args} for n, (spec, args) in enumerate(reading.calls)
    ]
    decision: Decision = {"calls": calls, "reason": reason, "by": "router"}
    if reading.problems:
        decision["problem"] = {
            "kind": reading.problems[0][0],
            "detail": "\n".join(dict.fromkeys(detail for _, detail in reading.problems)),
        }
    if reading.repaired:
        decision["repaired"] = reading.repaired
    return decision


def _calls_in_text(said: str, reading: _Reading, *, repair: bool) -> tuple[list[tuple[Any, Any]], str]:
    """Calls that the server's parser left in the text, and the text without them."""
    found: list[tuple[Any, Any]] = []
    bodies = [match[1] for match in _TAGGED.finditer(said)]
    rest = _TAGGED.sub("", said).strip()
    if not bodies and repair:
        fenced = _FENCE.match(said)
        body = fenced[1] if fenced else said
        if body.startswith("{") and body.endswith("}"):
            call = _json(body)
            if (
                isinstance(call, dict)
                and isinstance(call.get("name"), str)
                and ("arguments" in call or "parameters" in call)
            ):
                bodies, rest = [body], ""
    for body in bodies:
        call = _json(body)
        if not isinstance(call, dict) or not repair:
            why = "is no JSON object" if repair else "was not parsed by the server"
            reading.problems.append(("unreadable", f"the tool call {_show(body)} {why}; expected {_FORM}"))
            continue
        found.append((call.get("name", ""), call.get("arguments", call.get("parameters", {}))))
        reading.repaired.append("read a call that was written as text")
    return found, rest if bodies else said


_FORM: Final = '{"name": <tool>, "arguments": {...}}'


def _read_call(name: Any, args: Any, catalog: Catalog, reading: _Reading, *, repair: bool, truncated: bool) -> None:
    spec = catalog.tools.get(name) if isinstance(name, str) else None
    if spec is None and repair:
        spec = _similar(name, catalog)
        if spec is not None:
            reading.repaired.append(f"took {_show(name)} for {spec.name}")
    if spec is None:
        detail = f"there is no tool {_show(name)}; expected one of {', '.join(catalog.tools)}"
        reading.problems.append(("unknown_tool", detail))
        return
    if isinstance(args, str):
        args = _args_from_text(args, spec, reading, repair=repair)
    args, error = _storable(args)
    error = error or _invalid(spec, args)
    if error and repair and isinstance(args, dict):
        mended, notes = _mend(spec, args)
        if notes and not _invalid(spec, mended):
            args, error = mended, None
            reading.repaired.extend(notes)
    if error:
        kind: ProblemKind = "truncated" if truncated else "bad_arguments"
        why = "; the reply was cut off at the length limit" if truncated else ""
        detail = f"{spec.name}: arguments {_show(args)}: {error}; expected {_signature(spec)}{why}"
        reading.problems.append((kind, detail))
        return
    reading.calls.append((spec, args))


def _read_no_call(said: str, catalog: Catalog, reading: _Reading, *, repair: bool, truncated: bool) -> None:
    if reading.problems:
        return
    if truncated:
        detail = "the reply was cut off at the length limit before a call; call a tool in fewer words"
        reading.problems.append(("truncated", detail))
    elif said and repair and FINAL_ANSWER in catalog.tools:
        reading.calls.append((catalog.tools[FINAL_ANSWER], {"answer": said}))
        reading.repaired.append("took a reply without a call for the final answer")
    else:
        detail = f"the reply holds no tool call; call one of {', '.join(catalog.tools)}"
        reading.problems.append(("no_call", detail))


def _one_terminal(reading: _Reading) -> None:
    """Keep at most `MAX_CALLS` calls, and a terminal one only alone: its answer could not rest on the others."""
    if len(reading.calls) > 1 and any(spec.terminal for spec, _ in reading.calls):
        others = [call for call in reading.calls if not call[0].terminal]
        kept = others or reading.calls[:1]
        dropped = ", ".join(spec.name for spec, _ in reading.calls if (spec, _) not in kept)
        reading.calls = kept
        reading.repaired.append(f"left out {dropped}: a call that ends the run goes alone")
    if len(reading.calls) > MAX_CALLS:
        count = len(reading.calls)
        reading.calls = reading.calls[:MAX_CALLS]
        reading.problems.append(("too_many_calls", f"{count} calls in one reply; the first {MAX_CALLS} were sent"))


def _similar(name: Any, catalog: Catalog) -> ToolSpec | None:
    """The one tool whose name differs from `name` only in case and punctuation."""
    if not isinstance(name, str) or len(name) > _SHOWN:
        return None
    wanted = _letters(name.rsplit(".", 1)[-1])
    found = [spec for known, spec in catalog.tools.items() if wanted and _letters(known) == wanted]
    return found[0] if len(found) == 1 else None


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _args_from_text(args: str, spec: ToolSpec, reading: _Reading, *, repair: bool) -> Any:
    """Arguments that came as a string: JSON, or the value of the only required parameter."""
    value = _json(args) if args.strip() else {}
    if not repair:
        return args
    if isinstance(value, dict):
        reading.repaired.append(f"{spec.name}: read arguments that came as text")
        return value
    single = spec.required[0] if len(spec.required) == 1 else None
    looks_broken = args.lstrip().startswith(("{", "["))
    if single and not looks_broken and spec.parameters["properties"].get(single, {}).get("type") == "string":
        reading.repaired.append(f"{spec.name}: took the text for {single}")
        return {single: value if isinstance(value, str) else args}
    return args


def _mend(spec: ToolSpec, args: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Drop arguments that the schema does not know, and convert scalars that are written as another type."""
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    mended: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in args.items():
        if key not in properties:
            notes.append(f"{spec.name}: dropped the unknown argument {_show(key)}")
            continue
        converted = _convert(value, properties[key].get("type"))
        if converted is not value:
            notes.append(f"{spec.name}: read {key} = {_show(value)} as {properties[key]['type']}")
        mended[key] = converted
    return mended, notes


def _convert(value: Any, wanted: Any) -> Any:
    if wanted == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    if wanted in ("integer", "number", "boolean", "array", "object"):
        parsed = _json(value)
        types = {"integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
        if isinstance(parsed, types[wanted]) and (wanted == "boolean") == isinstance(parsed, bool):  # type: ignore[arg-type]
            return parsed
    return value


def _invalid(spec: ToolSpec, args: dict[str, Any]) -> str | None:
    """What is wrong with the arguments, or None."""
    return None if spec.validator.is_valid(args) else "; ".join(_explain(spec, args))


def _storable(args: Any) -> tuple[Any, str | None]:
    """The arguments as they can be stored, and why they cannot."""
    if not isinstance(args, dict):
        return args, "no JSON object"
    try:
        orjson.dumps(args)
    except orjson.JSONEncodeError as error:
        if "surrogate" not in str(error):
            return args, f"cannot be stored: {error}"
        args = _clean_values(args)
    return args, None


def _clean_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(str(k)): _clean_values(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean_values(v) for v in value]
    return clean(value) if isinstance(value, str) else value


def _explain(spec: ToolSpec, args: dict[str, Any]) -> Iterator[str]:
    for n, error in enumerate(spec.validator.iter_errors(args)):
        if n == 3:
            yield "..."
            return
        place = ".".join(map(str, error.instance_path))
        yield f"{place}: {_cut(error.message)}" if place else _cut(error.message)


def _signature(spec: ToolSpec) -> str:
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    parts = [
        f"{name}: {schema.get('type', 'any') if isinstance(schema, dict) else 'any'}"
        + ("" if name in spec.required else "?")
        for name, schema in properties.items()
    ]
    return "{" + ", ".join(parts) + "}"


def _json(text: str) -> Any:
    """Parse JSON; None for what is none. The standard parser takes what orjson refuses (NaN, long integers)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _show(value: Any) -> str:
    try:
        return _cut(repr(value))
    except RecursionError:
        return "(too deeply nested to show)"


def _cut(text: str) -> str:
    text = clean(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
