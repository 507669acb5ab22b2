"""Groups of a catalog's tools that people have words for: their own servers, outside APIs, the searches, ...

What is one's own is told by the address: a private, loopback or local one. Left out: functions, graphs and MCP tools,
of which the catalog does not tell where they send what they are given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.report.summary import priciest_tool

_LOCAL_ENDINGS: Final = (".local", ".internal", ".lan", ".localdomain", ".localhost")

Groups = dict[str, tuple[str, ...]]


def groups_of(catalog: Catalog) -> Groups:
    """Names of the tools in each group that says something: neither none of the tools nor all.

    The keys are those of `orchestra_training.preference_pairs.phrases.GROUPS`, `provider:NAME` for each provider.
    """
    tools = catalog.tools
    found: Groups = {
        "own": _where(catalog, is_own),
        "outside": _where(catalog, is_outside),
        "search": _where(catalog, lambda spec: spec.kind == "search" or spec.role == "search"),
        "code": _where(catalog, lambda spec: spec.kind == "code" or spec.role == "code"),
        "free": _where(catalog, lambda spec: spec.price.source != "unknown" and not _dollars(spec)),
    }
    if sum(_dollars(spec) > 0 for spec in tools.values()) > 1:
        found["dearest"] = (priciest_tool(catalog),)
    for provider in {spec.provider: None for spec in tools.values() if spec.provider}:
        found[f"provider:{provider}"] = tuple(name for name, spec in tools.items() if spec.provider == provider)
    return {name: members for name, members in found.items() if 0 < len(members) < len(tools)}


def is_own(spec: ToolSpec) -> bool:
    """Whether what the tool is sent stays on machines of one's own."""
    if spec.base_url is not None:
        return _is_private(spec.base_url)
    return spec.kind == "code" or (spec.kind == "search" and spec.provider is None and spec.path is not None)


def is_outside(spec: ToolSpec) -> bool:
    """Whether the tool is somebody else's service."""
    if spec.base_url is not None:
        return not _is_private(spec.base_url)
    return spec.provider is not None or spec.model is not None


def _where(catalog: Catalog, holds: Callable[[ToolSpec], bool]) -> tuple[str, ...]:
    return tuple(name for name, spec in catalog.tools.items() if holds(spec))


def _dollars(spec: ToolSpec) -> float:
    return spec.price.dollars(input_tokens=1000, output_tokens=1000, calls=1, seconds=1)


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        # A name without a dot is one of the local network.
        return "." not in host or host.endswith(_LOCAL_ENDINGS)
