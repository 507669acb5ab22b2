"""Reads the tools file of a released checkpoint into a catalog, and writes catalogs as TOML.

A tools file is a JSON list of three functions (`nemotron_functions.ROLES`) whose parameter `model` is described by the
names of its experts, sentences on them, and a table of prices and latencies. What the catalog knows is taken out of the
text, the rest is kept as a template, so that `nemotron_functions.fill` gives the file back byte for byte; a file of
which that is not so is refused.

    orchestra catalog import tools.json --out release.toml
    orchestra catalog render release.toml                    # the same tools.json again
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from orchestra_graph.catalog import NAME_PATTERN, Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.nemotron_functions import PARAMETER, ROLES, fill, sentence
from orchestra_graph.protocols.nemotron_qa import nemotron_catalog
from orchestra_graph.protocols.nemotron_table import TABLE_HEADER

_NUMBER = r"\d+(?:\.\d+)?"
_ROW: Final = re.compile(
    rf"^({NAME_PATTERN.strip('^$')})( \| \$+)({_NUMBER})( \| \$+)({_NUMBER})( \| )({_NUMBER})(s[ \t]*)$", re.MULTILINE
)
"""A row; one of the release has a dollar sign too many, which stays."""

_LAYOUT: Final = (
    f"expected a list of the functions {', '.join(ROLES)}, each with a parameter {PARAMETER} whose description holds "
    f"the table {TABLE_HEADER!r}; fix: write the catalog by hand, as orchestra_graph/catalogs/nemotron.toml is"
)


_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML takes without quotes."""


class _Parameter(BaseModel):
    description: str


class _Parameters(BaseModel):
    properties: dict[str, _Parameter]


class _Function(BaseModel):
    name: str
    parameters: _Parameters


class _Entry(BaseModel):
    function: _Function


class _Layout(Exception):
    """The file is laid out in another way."""


def import_tools(text: str, source: str) -> tuple[Catalog, str]:
    """Read a tools file.

    Args:
        text: The file.
        source: What the error calls it.

    Returns:
        The catalog, and the template of the functions. An expert that has the name and the price of one of the
        packaged catalog is taken for the same, and has its model and limits.

    Raises:
        ConfigError: The file is laid out in another way.
    """
    try:
        specs, template = _read(text)
    except _Layout as error:
        raise ConfigError(f"{source}: {error}; {_LAYOUT}") from error
    catalog = Catalog.of(specs)
    if fill(template, catalog) != text:
        raise ConfigError(f"{source}: it would not be written back as it is; {_LAYOUT}")
    return catalog, template


def _read(text: str) -> tuple[list[ToolSpec], str]:
    specs: dict[str, ToolSpec] = {}
    for name, description in _descriptions(text):
        found = list(_specs(name, description))
        if not found:
            raise _Layout(f"the experts of {name} have no table")
        for spec in found:
            if spec.name in specs:
                raise _Layout(f"{spec.name} has two rows")
            specs[spec.name] = spec
        text = _replaced(text, name, description, found)
    return list(specs.values()), text


def _descriptions(text: str) -> list[tuple[str, str]]:
    """Each function's name and the description of its parameter, in the order of the file."""
    try:
        entries = [_Entry.model_validate(entry) for entry in _list(json.loads(text))]
        found = [(e.function.name, e.function.parameters.properties[PARAMETER].description) for e in entries]
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise _Layout(f"{where or 'an entry'}: {problem['msg'].lower()}") from error
    except (ValueError, RecursionError) as error:
        raise _Layout(f"it is no JSON ({error})") from error
    except KeyError as error:
        raise _Layout(f"a function has no parameter {PARAMETER}") from error
    names = [name for name, _ in found]
    if sorted(names) != sorted(ROLES):
        raise _Layout(f"it has the functions {', '.join(names)}" if names else "it has no functions")
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Layout("it holds no list")
    return value


def _specs(function: str, description: str) -> Iterator[ToolSpec]:
    """The experts in the table of a function, with the sentences on them."""
    before, header, table = description.partition(f"{TABLE_HEADER}\n")
    packaged = nemotron_catalog().tools
    role = ROLES[function]
    for row in _ROW.finditer(table if header else ""):
        fields = {
            "name": row[1],
            "kind": "expert",
            "role": role,
            **({"terminal": True} if role == "answer" else {}),
            "description": _sentence(before, row[1]),
            "price": {"input": float(row[3]), "output": float(row[5])},
            "latency": {"p50": float(row[7])},
        }
        known = packaged.get(row[1])
        if known is not None and known.role == role and known.price.model_dump(exclude_unset=True) == fields["price"]:
            fields |= known.model_dump(include={"model", "api_key_env", "limits"}, exclude_unset=True)
        try:
            yield ToolSpec.model_validate(fields)
        except ValidationError as error:
            raise _Layout(f"the row {row[0]!r}: {error.errors()[0]['msg'].lower()}") from error


def _sentence(text: str, name: str) -> str:
    """The first sentence that opens with a name, without the name."""
    found = re.search(rf"(?:^|\s){re.escape(name)} (\S.*?[.!?])(?=\s|$)", text, re.DOTALL)
    return "" if found is None else found[1]


def _replaced(text: str, function: str, description: str, specs: list[ToolSpec]) -> str:
    """The file with what the specs know of a function's description as placeholders."""
    for escaped in (True, False):
        written = json.dumps(description, ensure_ascii=escaped)
        if text.count(written) == 1:
            return text.replace(written, json.dumps(_template(function, description, specs), ensure_ascii=escaped))
    raise _Layout(f"the description of {function} is escaped in another way, or stands there twice")


def _template(function: str, description: str, specs: list[ToolSpec]) -> str:
    before, header, table = description.partition(TABLE_HEADER)
    before = before.replace(repr([spec.name for spec in specs]), f"{{{function}.choices}}", 1)
    for spec in specs:
        # Placeholders are filled in as ASCII; another sentence stays in the text as it is.
        if spec.description and spec.description.isascii():
            before = before.replace(sentence(spec), f"{{{spec.name}.sentence}}", 1)
    return before + header + _ROW.sub(r"\1\2{\1.input}\4{\1.output}\6{\1.seconds}\8", table)


def read_functions(path: str | Path) -> str | None:
    """The template of the functions in a catalog file, for `NemotronQA`; None where the file has none.

    Raises:
        CatalogError: The file cannot be read, or is wrong; lists every problem.
    """
    Catalog.from_toml(path)
    functions: str | None = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig")).get("functions")
    return functions


def write_catalog(catalog: Catalog, functions: str | None = None) -> str:
    """A catalog file: what each line states, and no defaults.

    Args:
        catalog: Its tools, and the router where it names a model.
        functions: Template of a released checkpoint's functions.
    """
    parts = [f"version = {catalog.version}\n"]
    if functions is not None:
        parts.append(
            f"# What the checkpoint reads of the tools; prices and names in braces come from below.\n"
            f"functions = {_text(functions)}\n"
        )
    if catalog.router.model_fields_set:
        parts.append(_table("router", catalog.router))
    parts += [_table(f"tools.{name}", spec) for name, spec in catalog.tools.items()]
    return "\n".join(parts)


def _table(name: str, spec: BaseModel) -> str:
    fields = spec.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    return "\n".join(
        [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in fields.items() if value is not None), ""]
    )


def _value(value: Any) -> str:
    """A JSON value as TOML writes it, in one line."""
    if isinstance(value, dict):
        pairs = [
            f"{key if _BARE.fullmatch(key) else _quoted(key)} = {_value(v)}"
            for key, v in value.items()
            if v is not None
        ]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(value)


def _text(text: str) -> str:
    """A text of several lines, as it is where TOML can hold it so."""
    plain = "'''" not in text and not re.search(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]", text)
    return f"'''\n{text}'''" if plain and not text.endswith("'") else _quoted(text)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's too, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
