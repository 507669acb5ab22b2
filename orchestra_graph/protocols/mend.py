"""Mending of calls that have one reading only, and what of a call can be stored and shown.

Left out: guessing. Two tools that a name could mean, or a text that is no value of the wanted type, stay a problem.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.text import clean

MAX_ARGUMENTS: Final = 100_000
"""Bytes of JSON that the arguments of one call may take; they stand in the state and in every later prompt."""

_SHOWN: Final = 200
_NAMESPACE: Final = re.compile(r"\A(?:functions|tools?|default_api)[.:/]")
_SCALARS: Final[dict[str, tuple[type, ...]]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def plain(args: Any) -> tuple[Any, str | None]:
    """Arguments as plain JSON values of their own, and why they cannot be stored, or None.

    Lone surrogates become U+FFFD, and a number that is none becomes null, which hardly a schema allows.
    """
    if not isinstance(args, dict):
        return args, "no JSON object"
    try:
        data = _dump(args)
    except orjson.JSONEncodeError as error:
        try:
            data = _dump(json.loads(clean(json.dumps(args, ensure_ascii=False))))
        except (ValueError, TypeError, RecursionError):
            return args, f"cannot be stored: {error}"
    if len(data) > MAX_ARGUMENTS:
        return args, f"{len(data):,} bytes of JSON; expected at most {MAX_ARGUMENTS:,}"
    return orjson.loads(data)[0][0][0][0][0][0][0][0], None


def _dump(args: Any) -> bytes:
    """As deep as in a stored run: what the encoder's limit on nesting lets through here, it must let through there."""
    return orjson.dumps([[[[[[[[args]]]]]]]])


def similar(name: Any, catalog: Catalog) -> ToolSpec | None:
    """The one tool whose name differs from `name` only in case, punctuation or a namespace such as `functions.`."""
    if not isinstance(name, str) or len(name) > _SHOWN:
        return None
    wanted = _letters(_NAMESPACE.sub("", name))
    found = [spec for known, spec in catalog.tools.items() if wanted and _letters(known) == wanted]
    return found[0] if len(found) == 1 else None


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def args_from_text(text: str, spec: ToolSpec) -> tuple[Any, list[str]]:
    """Arguments that came as a string: JSON, or the value of the only required parameter; and what was done."""
    if not text.strip():
        return {}, [] if spec.required else [f"{spec.name}: read an empty text as no arguments"]
    value = read_json(text)
    if isinstance(value, dict):
        return value, [f"{spec.name}: read arguments that came as text"]
    single = spec.required[0] if len(spec.required) == 1 else ""
    if "string" in _types(spec, single) and not text.lstrip().startswith(("{", "[")):
        return {single: value if isinstance(value, str) else text}, [f"{spec.name}: took the text for {single}"]
    return text, []


def mend(spec: ToolSpec, args: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Drop arguments that the schema refuses, and convert scalars that are written as another type.

    Returns:
        New arguments, and one sentence for each thing done.
    """
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    strict = spec.parameters.get("additionalProperties") is False and "patternProperties" not in spec.parameters
    unknown = [key for key in args if strict and key not in properties]
    notes = [f"{spec.name}: dropped what it does not take: {show(', '.join(unknown))}"] if unknown else []
    mended: dict[str, Any] = {}
    for key, value in args.items():
        if key in unknown:
            continue
        wanted = _types(spec, key)
        mended[key] = _convert(value, wanted)
        if mended[key] is not value:
            notes.append(f"{spec.name}: read {key} = {show(value)} as {' or '.join(wanted)}")
    return mended, notes


def _types(spec: ToolSpec, parameter: str) -> list[str]:
    """Types that a parameter's schema names, those of `anyOf` among them."""
    schema = spec.parameters.get("properties", {}).get(parameter)
    if not isinstance(schema, dict):
        return []
    kinds = [part.get("type") for part in (schema, *schema.get("anyOf", ())) if isinstance(part, dict)]
    return [kind for named in kinds if named for kind in ([named] if isinstance(named, str) else named)]


def _convert(value: Any, wanted: list[str]) -> Any:
    """The value in the wanted type where it is written as another one; the same object otherwise."""
    if isinstance(value, int | float) and not isinstance(value, bool) and wanted == ["string"]:
        return json.dumps(value)
    if not isinstance(value, str) or "string" in wanted:
        return value
    parsed = read_json(value.lower() if value in ("True", "False") else value)
    for kind in wanted:
        types = _SCALARS.get(kind, ())
        if isinstance(parsed, types) and isinstance(parsed, bool) == (kind == "boolean"):
            return parsed
    return value


def read_json(text: str) -> Any:
    """Parse JSON; None for what is none, or too long or too deep to be an argument."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def object_end(text: str, begin: int) -> int:
    """Where the JSON object that begins here ends; `begin` itself where there is none."""
    if not text.startswith("{", begin):
        return begin
    try:
        return json.JSONDecoder().raw_decode(text, begin)[1]
    except (ValueError, RecursionError):
        return begin


def show(value: Any) -> str:
    """A value as a message shows it: its beginning."""
    try:
        return shorten(repr(value[: 2 * _SHOWN] if isinstance(value, str) else value))
    except RecursionError:
        return "(too deeply nested to show)"
    except ValueError:
        return "(holds a number too long to show)"


def shorten(text: str) -> str:
    """The beginning of a text, without lone surrogates."""
    return clean(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
