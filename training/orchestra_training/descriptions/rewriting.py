"""Puts what was found of tools into the text of a catalog file; comments, order and all other fields stay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from orchestra_graph.catalog import Catalog, Latency, Measured, Price, ToolSpec
from orchestra_graph.catalog_file import parse_catalog
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.toml_lines import KeyLines, KeyPath

FIELDS: Final = ("description", "price", "latency", "measured")
"""What may be changed, in the order in which it is added."""


def rewrite(text: str, source: str, found: Mapping[str, ToolSpec]) -> str:
    """The text of a catalog with new descriptions and figures.

    Args:
        text: TOML.
        source: What errors call the text, for example the file's name.
        found: Lines as they are to be, by name; they differ from the text's in `FIELDS` only.

    Raises:
        CatalogError: The text is no catalog.
        ConfigError: It is written in a way that cannot be changed in place.
        MissingError: `tomlkit` is not installed.
    """
    try:
        import tomlkit  # noqa: PLC0415  (of an extra)
    except ImportError as error:
        raise MissingError("the package `tomlkit`", "pip install 'orchestra-graph[describe]'") from error
    catalog = parse_catalog(text, source)
    wanted = Catalog.of([found.get(name, spec) for name, spec in catalog.tools.items()], router=catalog.router)
    document = tomlkit.parse(text)
    tools: Any = document["tools"]
    added: list[KeyPath] = []
    for name, spec in found.items():
        for field in FIELDS:
            value = getattr(spec, field)
            if value == getattr(catalog.tools[name], field):
                continue
            if field not in tools[name]:
                added.append(("tools", name, field))
            _set(tools[name], field, value if isinstance(value, str) else value.model_dump(exclude_defaults=True))
    changed = _lifted(tomlkit.dumps(document), added)
    if parse_catalog(changed, source) != wanted:
        raise ConfigError(f"{source}: cannot be changed in place; fix: write each tool as a table [tools.NAME]")
    return changed


def merged(text: str, source: str, before: ToolSpec, found: ToolSpec) -> str:
    """The text of a catalog that may have been edited since, with what was found of a tool; the edits stay.

    Args:
        text: TOML.
        source: What errors call the text.
        before: The tool's line when it was tried.
        found: The line as it is to be.

    Raises:
        CatalogError, ConfigError, MissingError: See `rewrite`.
    """
    now = parse_catalog(text, source).tools.get(found.name)
    if now is None:
        return text
    changes = {
        field: getattr(found, field)
        for field in FIELDS
        if getattr(found, field) != getattr(before, field) == getattr(now, field)
    }
    return rewrite(text, source, {found.name: now.model_copy(update=changes)})


def refuse_text(text: str, source: str, names: Iterable[str]) -> None:
    """Refuse a text in which a line could not be changed; for the beginning, before anything is paid.

    Args:
        text: TOML.
        source: What errors call the text.
        names: Of the lines.

    Raises:
        CatalogError, ConfigError, MissingError: See `rewrite`.
    """
    lines = parse_catalog(text, source).tools
    figures = {"latency": Latency(p50=1.5, p95=2.5, source="measured"), "measured": Measured(tasks=1, dollars=0.5)}
    for name in names:
        # Whatever may be found of it: each field must be one that can be set; a price is where none is known.
        price = {"price": Price(per_call=1.5)} if lines[name].price.source == "unknown" else {}
        changed = lines[name].model_copy(update={"description": "It helps.", **price, **figures})
        rewrite(text, source, {name: changed})


def _set(entry: Any, field: str, value: str | dict[str, Any]) -> None:
    """Set a field of a line: a text, or a table in the form that it has."""
    from tomlkit.items import InlineTable, Table  # noqa: PLC0415  (see above)

    old = entry.get(field)
    if isinstance(value, str):
        entry[field] = value
    elif isinstance(old, Table) and not isinstance(old, InlineTable):
        for key in set(old) - value.keys():
            del old[key]
        old.update(value)
    else:
        entry[field] = _inline(value)


def _inline(value: Mapping[str, Any]) -> Any:
    """An inline table with the spaces that the catalogs of this package have."""
    import tomlkit  # noqa: PLC0415  (see above)

    pairs = ", ".join(f"{key} = {tomlkit.item(part).as_string()}" for key, part in value.items())
    return tomlkit.parse(f"x = {{ {pairs} }}\n")["x"]


def _lifted(text: str, added: list[KeyPath]) -> str:
    """The text with added lines moved up to their table: they come after the comments that open the next one."""
    for path in added:
        lines = text.split("\n")
        place = KeyLines(text).line(path) - 1
        if not re.match(rf"\s*{path[-1]} =", lines[place]):
            continue  # inside an inline table
        to = place
        while to and (not lines[to - 1].strip() or lines[to - 1].lstrip().startswith("#")):
            to -= 1
        lines.insert(to, lines.pop(place))
        text = "\n".join(lines)
    return text
