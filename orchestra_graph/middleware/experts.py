"""From what the user gives to experts that a router can choose, and to the catalog's lines for them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel

from orchestra_graph.catalog import NO_PARAMETERS, Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.tools.expert import Expert


def seated_experts(given: Mapping[str, BaseChatModel | str] | Sequence[Expert]) -> dict[str, Expert]:
    """Experts by name, each of which may end the run and takes no arguments.

    Raises:
        ConfigError: One is no expert, has a role that asks for more than its model, or shares its name.
    """
    made = [_of_model(name, model) for name, model in given.items()] if isinstance(given, Mapping) else list(given)
    seated: dict[str, Expert] = {}
    for expert in made:
        if not isinstance(expert, Expert):
            raise ConfigError(f"experts holds {expert!r}; expected Expert(model, name=...), or a mapping of models")
        name, role = expert.spec.name, expert.spec.role
        if role not in ("answer", "chat"):
            raise ConfigError(f"expert {name!r} has role {role!r}, which is a tool; expected 'answer' or 'chat'")
        if name in seated:
            raise ConfigError(f"two experts are named {name!r}; expected unique names; rename one")
        seated[name] = copy.copy(expert)
        seated[name].spec = _seat(expert.spec)
    if not seated:
        raise ConfigError("experts is empty; expected at least one")
    return seated


def split_catalog(catalog: Catalog | None, experts: Collection[str]) -> tuple[Catalog | None, dict[str, ToolSpec]]:
    """The catalog of the experts, and the lines of the agent's tools.

    Raises:
        ConfigError: A line of kind expert has no model.
    """
    if catalog is None:
        return None, {}
    prices = {name: line for name, line in catalog.tools.items() if name not in experts}
    missing = [name for name, line in prices.items() if line.kind == "expert"]
    if missing:
        raise ConfigError(f"the catalog has {', '.join(map(repr, missing))} without a model; pass it in experts")
    lines = catalog.restrict(name for name in catalog.tools if name in experts)
    return Catalog.of(map(_seat, lines.tools.values()), router=catalog.router), prices


def checked(protocol: Protocol) -> Protocol:
    """The protocol.

    Raises:
        ConfigError: It lets the router answer by itself; in an agent only experts answer.
    """
    if protocol.answers:
        raise ConfigError(
            f"protocol {protocol.name!r} lets the router answer by itself; expected protocol=... that does not"
        )
    return protocol


def _of_model(name: str, model: BaseChatModel | str) -> Expert:
    if isinstance(model, str):
        model = init_chat_model(model)
    if not isinstance(model, BaseChatModel):
        raise ConfigError(f"experts[{name!r}] = {model!r}; expected a chat model or its name")
    return Expert(model, name=name, description="Answers, and calls the agent's tools.")


def _seat(line: ToolSpec) -> ToolSpec:
    return line.model_copy(update={"terminal": True, "parameters": dict(NO_PARAMETERS)})
