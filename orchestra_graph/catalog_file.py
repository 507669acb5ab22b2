"""Reads a catalog from TOML; a wrong file gives one error that names every problem with its line.

    version = 1

    [router]                        # optional: the router's own model, price and limits
    model = "gpt-5-mini"

    [tools.search]                  # the fields of `ToolSpec`; the header is the name
    kind = "search"
    price = { per_call = 0.008 }
    latency = { p50 = 1.2, p95 = 3 }
    parameters = { query = { type = "string", description = "What to look for" } }

A parameter is required unless it says `required = false` or has a default. A `parameters` table with `type = "object"`
is a JSON Schema and is taken as it is. A whole example is `orchestra_graph/catalogs/example.toml`; the command
`orchestra check FILE` reads a file and calls no model. Prices that the file leaves out are filled in from
`orchestra_graph.prices`. A file may hold `functions`, the texts in which a released checkpoint sees its experts: they
are its protocol's, and no part of the catalog. `orchestra_graph.catalog_import` reads them, and writes such files.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar

import jsonschema_rs
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestra_graph.catalog import (
    CATALOG_VERSION,
    NAME_PATTERN,
    RESERVED_NAMES,
    Catalog,
    Latency,
    Limits,
    Measured,
    ModelSpec,
    Price,
    ToolSpec,
    compile_schema,
)
from orchestra_graph.errors import CatalogError
from orchestra_graph.redact import SECRET_KEY, SECRET_VALUE
from orchestra_graph.toml_lines import KeyLines, KeyPath

_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_KEYWORDS = (
    "type title description enum const default examples format pattern required items prefixItems minItems maxItems "
    "uniqueItems minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength properties "
    "additionalProperties anyOf oneOf allOf not"
).split()
"""What a parameter may say: JSON Schema, as far as the tool-calling APIs read it."""

_PARTS: Mapping[str, type[BaseModel]] = {
    "price": Price,
    "retrieval": Price,
    "latency": Latency,
    "limits": Limits,
    "measured": Measured,
}

_Spec = TypeVar("_Spec", bound=ModelSpec)


def read_catalog(path: Path) -> Catalog:
    """Read a catalog file.

    Raises:
        CatalogError: The file cannot be read, or is wrong; lists every problem.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(str(path), [f"byte {error.start} is not UTF-8; save the file as UTF-8"]) from error
    except FileNotFoundError as error:
        raise CatalogError(str(path), ["no such file; expected a catalog in TOML"]) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CatalogError(str(path), [f"cannot be read: {reason}; expected a catalog in TOML"]) from error
    return parse_catalog(text, str(path))


def parse_catalog(text: str, source: str) -> Catalog:
    """Read a catalog from text.

    Args:
        text: TOML.
        source: What the error calls the text, for example the file's name.

    Raises:
        CatalogError: The text is wrong; lists every problem.
    """
    data = _parse_toml(text, source)
    problems = _Problems(KeyLines(text))
    catalog = _read(data, problems)
    if catalog is None:
        raise CatalogError(source, problems.lines())
    if any(spec.model and spec.price.source == "unknown" for spec in [catalog.router, *catalog.tools.values()]):
        from orchestra_graph.prices import with_known_prices  # noqa: PLC0415  (its price table takes 0.1 s to load)

        return with_known_prices(catalog)
    return catalog


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise CatalogError(source, ["nested too deeply; expected a catalog in TOML"]) from error
    except ValueError as error:  # a TOMLDecodeError, or a number of more digits than Python reads
        message = str(error)
        where = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
        if where:
            line = where[1] or text.rstrip("\n").count("\n") + 1
            message = f"line {line}: {message[: where.start()]}; expected TOML"
        raise CatalogError(source, [message]) from error


class _Problems:
    """Collects problems with the line of their key."""

    def __init__(self, lines: KeyLines) -> None:
        self._lines = lines
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> list[str]:
        """One line a problem, in the order of the file."""
        return [f"line {line}: {text}" for line, text in sorted(self._found, key=lambda found: found[0])]

    def add(self, path: KeyPath, text: str) -> None:
        """Note a problem that `text` describes whole."""
        self._found.append((self._lines.line(path), text))

    def value(self, path: KeyPath, value: object, expected: str) -> None:
        """Note a value that is not what was expected."""
        self.add(path, f"{_dotted(path)} = {_show(value)}; expected {expected}")

    def unknown(self, path: KeyPath, known: Iterable[str]) -> None:
        """Note a key that means nothing here."""
        self.add(path, f"{_dotted(path)}: unknown key; {_nearest(path[-1], known)}")

    def secret(self, path: KeyPath) -> None:
        """Note a secret, without its value."""
        self.add(
            path,
            f"{_dotted(path)}: looks like a secret (its value is not shown); "
            "put the name of an environment variable into api_key_env",
        )


def _read(data: dict[str, Any], problems: _Problems) -> Catalog | None:
    """The catalog, or None when there are problems."""
    data = _without_secrets((), data, problems)
    known = ("version", "router", "tools", "functions")
    for key in data.keys() - set(known):
        problems.unknown((key,), known)
    version = data.get("version")
    if type(version) is not int or version != CATALOG_VERSION:
        found = f"version = {_show(version)}" if "version" in data else "version is missing"
        problems.add(("version",), f"{found}; expected version = {CATALOG_VERSION}")
    if not isinstance(data.get("functions", ""), str):
        problems.value(("functions",), data["functions"], "a text, as orchestra catalog import writes it")
    router = _spec(ModelSpec, ("router",), data.get("router", {}), problems)
    tools = data.get("tools", {})
    if not isinstance(tools, dict):
        problems.value(("tools",), tools, "a table [tools.NAME] for each tool")
        return None
    if not tools and not data.keys() - set(known):
        problems.add(("tools",), "no tools; expected a table [tools.NAME] for each tool")
    specs = [_tool(name, table, tools, problems) for name, table in tools.items()]
    if problems:
        return None
    return Catalog.of([spec for spec in specs if spec], router=router)


def _tool(name: str, table: object, tools: Mapping[str, object], problems: _Problems) -> ToolSpec | None:
    path: KeyPath = ("tools", name)
    if not re.fullmatch(NAME_PATTERN.strip("^$"), name):
        problems.add(path, f"tool name {_show(name)}; expected 1 to 64 letters, digits, _ or -")
    elif name in RESERVED_NAMES:
        problems.add(path, f"tool name {_show(name)} is reserved; rename the tool")
    if isinstance(table, dict):
        table = dict(table)
        if "name" in table:
            problems.add(
                (*path, "name"), f"{_dotted((*path, 'name'))}: unknown key; the header [tools.NAME] is the name"
            )
            del table["name"]
        fallback = table.get("fallback")
        if isinstance(fallback, list):
            table["fallback"] = tuple(fallback)
            _check_fallback(name, fallback, tools, problems)
        if "parameters" in table:
            table["parameters"] = _parameters((*path, "parameters"), table["parameters"], problems)
        # A wrong name is told above; the table is still checked, under a name that is fine.
        table["name"] = "name" if len(problems) else name
    return _spec(ToolSpec, path, table, problems)


def _check_fallback(name: str, fallback: list[object], tools: Mapping[str, object], problems: _Problems) -> None:
    for index, other in enumerate(fallback):
        path: KeyPath = ("tools", name, "fallback", index)
        if other == name:
            problems.add(path, f"{_dotted(path)} = {_show(other)}; expected a tool other than itself")
        elif isinstance(other, str) and other not in tools:
            others = [tool for tool in tools if tool != name]
            problems.add(path, f"{_dotted(path)} = {_show(other)} is no tool of this file; {_nearest(other, others)}")


def _spec(cls: type[_Spec], path: KeyPath, table: object, problems: _Problems) -> _Spec | None:
    """Check one table of the file against its model."""
    if not isinstance(table, dict):
        problems.value(path, table, f"a table [{_dotted(path)}]")
        return None
    try:
        return cls.model_validate(table, strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _explain(cls, path, detail, problems)
        return None


def _explain(cls: type[BaseModel], path: KeyPath, detail: ErrorDetails, problems: _Problems) -> None:
    """Say one complaint of pydantic in the words of the file."""
    where = detail["loc"]
    if detail["type"] == "extra_forbidden":
        model = _PARTS[str(where[0])] if len(where) > 1 else cls
        problems.unknown((*path, *where), [field for field in model.model_fields if field != "name"])
    elif detail["type"] == "value_error":
        problems.add((*path, *where), f"{_dotted((*path, *where))}: {detail['ctx']['error']}")
    elif detail["type"] == "literal_error":
        names = re.findall("'([^']*)'", detail["ctx"]["expected"])
        path = (*path, *where)
        problems.add(path, f"{_dotted(path)} = {_show(detail['input'])}; {_nearest(detail['input'], names)}")
    elif where[-1] == "api_key_env":
        problems.add(
            (*path, *where),
            f"{_dotted((*path, *where))} (its value is not shown); "
            'expected the name of an environment variable in capitals, for example "OPENAI_API_KEY"',
        )
    else:
        problems.value((*path, *where), detail["input"], _expected(detail))


def _expected(detail: ErrorDetails) -> str:
    limits = detail.get("ctx", {})
    match detail["type"]:
        case "string_type":
            return "a string"
        case "bool_type":
            return "true or false"
        case "int_type" | "int_from_float":
            return "a whole number"
        case "float_type" | "finite_number":
            return "a number"
        case "greater_than_equal":
            return f"a number of at least {limits['ge']:g}"
        case "greater_than":
            return f"a number above {limits['gt']:g}"
        case "less_than_equal":
            return f"a number of at most {limits['le']:g}"
        case "tuple_type":
            return 'a list of strings, for example ["search"]'
        case "model_type" | "dict_type":
            return "a table, for example { ... }"
        case _:
            return detail["msg"]


def _parameters(path: KeyPath, table: object, problems: _Problems) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments; an empty one stands in for one that is wrong."""
    fine = {"type": "object"}
    if not isinstance(table, dict):
        problems.value(path, table, 'a table of parameters, for example { query = { type = "string" } }')
        return fine
    if table.get("type") == "object":
        _check_schema(path, table, problems)
        return fine if problems else table
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, entry in table.items():
        schema, needed = _parameter((*path, name), entry, problems)
        properties[name] = schema
        if needed:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _parameter(path: KeyPath, entry: object, problems: _Problems) -> tuple[dict[str, Any], bool]:
    """Schema of one parameter, and whether it is required."""
    if not isinstance(entry, dict):
        problems.value(path, entry, 'a table, for example { type = "string", description = "..." }')
        return {}, False
    schema = dict(entry)
    before = len(problems)
    for key in schema.keys() - set(_KEYWORDS):
        problems.unknown((*path, key), _KEYWORDS)
    needed = schema.pop("required", "default" not in schema)
    if schema.get("type") == "object" and isinstance(needed, list):
        schema["required"], needed = needed, "default" not in schema
    if not isinstance(needed, bool):
        problems.value((*path, "required"), needed, "true or false")
    kinds = schema.get("type", "string")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            problems.value((*path, "type"), kind, f"one of {', '.join(_TYPES)}")
    if len(problems) == before:
        _check_schema(path, schema, problems)
    return (schema if len(problems) == before else {}), needed is True


def _check_schema(path: KeyPath, schema: dict[str, Any], problems: _Problems) -> None:
    if not _is_json(path, schema, problems):
        return
    try:
        compile_schema(schema)
    except jsonschema_rs.ValidationError as error:
        where = (*path, *error.instance_path)
        problems.add(where, f"{_dotted(where)} is no JSON Schema: {error.message}")


def _is_json(path: KeyPath, value: object, problems: _Problems) -> bool:
    """Whether a value that is told to models is one that JSON has."""
    if isinstance(value, dict):
        return all([_is_json((*path, key), inner, problems) for key, inner in value.items()])
    if isinstance(value, list):
        return all([_is_json((*path, index), inner, problems) for index, inner in enumerate(value)])
    if isinstance(value, date | time) or (isinstance(value, float) and not math.isfinite(value)):
        problems.value(path, value, "a value of JSON: put it in quotes")
        return False
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        problems.value(path, value, "a whole number of at most 64 bits")
        return False
    return True


def _without_secrets(path: KeyPath, table: dict[str, Any], problems: _Problems) -> dict[str, Any]:
    """A copy without the values that look like keys and passwords; each is told as a problem, never shown."""
    clean: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            clean[key] = _without_secrets((*path, key), value, problems)
        elif isinstance(value, str) and (SECRET_VALUE.fullmatch(value) or SECRET_KEY.search(key)):
            problems.secret((*path, key))
        else:
            clean[key] = value
    return clean


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part, ensure_ascii=False)
            text += f".{key}" if text else key
    return text


def _show(value: object) -> str:
    """A value as TOML writes it, shortened."""
    match value:
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case bool():
            return str(value).lower()
        case str():
            text = json.dumps(value, ensure_ascii=False)
        case int() if value.bit_length() > 64:
            return "a number of over 64 bits"
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(key: object, known: Iterable[str]) -> str:
    """The nearest spelling, and what else could stand there unless that is a long list."""
    names = list(known)
    close = difflib.get_close_matches(str(key), names, n=1)
    parts = [f'did you mean "{close[0]}"?'] if close else []
    if names and (len(names) <= 12 or not close):
        parts.append(f"expected one of {', '.join(names)}")
    return " ".join(parts) or "expected nothing here: there is no other"
