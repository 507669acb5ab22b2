"""Chat models that a command is told by the names of their lines in a catalog."""

from __future__ import annotations

import os
from typing import Final

from langchain_core.language_models import BaseChatModel

from orchestra_graph.catalog import Catalog, ModelSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.build import build_model, what_is_missing

RETRIES: Final = 4
"""Of a request that fails in a way that may pass: no graph stands around these models."""


def chat_model(option: str, name: str, catalog: Catalog, *, temperature: float | None = None) -> BaseChatModel:
    """The model of a line: `router`, or a tool that has one.

    Args:
        option: The option that names it, for errors.
        name: Name of the line.
        catalog: Where the line stands.
        temperature: The server's own where None.

    Raises:
        ConfigError: There is no such line, or its key is not there.
    """
    lines: dict[str, ModelSpec] = {"router": catalog.router, **catalog.tools}
    known = [line for line, spec in lines.items() if spec.model]
    if name not in known:
        expected = f"expected one of {', '.join(known)}" if known else "the catalog has no line with a model"
        raise ConfigError(f"{option} {name}: {expected}; fix: name a catalog that has it with --models")
    spec = ModelSpec.model_validate(lines[name].model_dump(include=set(ModelSpec.model_fields)))
    missing = what_is_missing({name: spec}, os.environ)
    if missing:
        raise ConfigError(f"{option} {name}: {'; '.join(missing)}")
    return build_model(spec, os.environ, retries=RETRIES, temperature=temperature)


def model_name(name: str, catalog: Catalog) -> str:
    """What the model of a line is called at its server: another model behind the same line is another one."""
    return (catalog.router if name == "router" else catalog.tools[name]).model or name
