"""Routers by name: served models, the in-process one, and the baselines that belong into every table.

    rules, cheapest, random[:SEED]   programs that know the catalog and nothing else
    fixed:TOOL                       always one expert
    strongest[:TOOL]                 the strongest single expert with search and one retry
    oracle                           knows every expert's limits; on the workbench only
    tiny                             the router that ships with the package
    local:FOLDER                     a small model in this process, which reads the catalog line by line
    MODEL@URL                        a chat model on an OpenAI-compatible server, prompted with the catalog

`NAME=SPEC,SPEC` names a router of several members, for example one a training seed; figures average over them. A name
has none of `:`, `@` and `,` in it: `local:lr=1` is a folder. In a drawn catalog the expert behind TOOL is called by the
name that it has there; where it is missing, the strongest one that is there takes its place.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from orchestra_graph.catalog import Catalog, ModelSpec, Price
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.base import Protocol
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.report.summary import priciest_tool
from orchestra_graph.routers import Cheapest, Fixed, Random, Rules
from orchestra_graph.routers.base import Choice, ProgramRouter, Scene
from orchestra_graph.routers.bundled import tiny_folder
from orchestra_graph.routers.programs import give_up, is_answered
from orchestra_graph.vllm import NO_KEY, ChatVLLM
from orchestra_graph.workbench import SKILLS, Oracle
from orchestra_training.checked import checked
from orchestra_training.evaluate.examples import Example

PLAIN: Final = ("cheapest", "random", "rules", "strongest")
"""Baselines for any tools."""
BASELINES: Final = (*PLAIN, "fixed:large", "oracle")
"""Baselines for the workbench."""

STRENGTH: Final = ("large", "math", "small", "analyst", "coder", "reader", "clerk")
"""Experts of the workbench that can end a run, by the share of its tasks that each solves with searches and a retry."""


class InTurn(ProgramRouter):
    """Calls tools in a given order until one ends the run, or answers where none does."""

    steps: tuple[str, ...]

    def choose(self, scene: Scene) -> Choice:
        """The next step; when all are done, it gives up."""
        done = len(scene.past)
        if done == len(self.steps) or (done and scene.past[-1].tool == self.steps[-1] and is_answered(scene)):
            return give_up(scene)
        return Choice(self.steps[done], f"step {done + 1}")


_OF_SERVED: Final = frozenset({"api_key_env", "price", "protocol", "temperature"})


class Member(BaseModel):
    """One policy, as it is written in a file; exactly one of `program`, `local` and `model` is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str | None = None
    """A baseline's spec, for example `fixed:large`."""
    local: str | None = None
    """Folder of a small model."""
    model: str | None = None
    """Name of a model at its server."""
    base_url: str | None = None
    api_key_env: str | None = None
    """Environment variable that holds the key; never the key."""
    price: Price = Price()
    """What the router's own tokens cost."""
    protocol: Literal["conversation", "scan"] = "conversation"
    """How a served model is spoken to."""
    temperature: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> Member:
        given = [value for value in (self.program, self.local, self.model) if value is not None]
        if len(given) != 1:
            raise ValueError("expected one of program, local, model")
        if (self.model is None) != (self.base_url is None):
            raise ValueError("model and base_url go together")
        if self.model is None and (vain := sorted(self.model_fields_set & _OF_SERVED)):
            raise ValueError(f"{', '.join(vain)}: of a served model only")
        if self.program is not None:
            _program(self.program)
        return self

    @property
    def identity(self) -> str:
        """What decides, as far as it can be told: runs that were decided by something else are other runs.

        The SHA-256 of weights in a folder; a server may hold other weights under the same name. A price is part of it,
        since the dollars of runs come from it.
        """
        if self.local is not None:
            return file_hash(Path(self.local) / "model.safetensors")
        price = self.price.model_dump_json(exclude_defaults=True) if self.price != Price() else ""
        return self.program or f"{self.model} {self.protocol} {self.temperature:g} {price}".rstrip()


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """A router of a table."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """A member that is ready to decide one example."""

    router: BaseChatModel
    protocol: Protocol
    catalog: Catalog
    """The example's, with the router's own price."""


def parse_router(text: str) -> RouterSpec:
    """Read a router of the command line.

    Raises:
        ConfigError: It is none.
    """
    name, equals, specs = text.partition("=")
    if not equals or not name.strip() or any(mark in name for mark in ":@,"):
        name, specs = text, text
    members = tuple(_member(spec.strip()) for spec in specs.split(","))
    return RouterSpec(name.strip(), members)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    routers: dict[str, Member | list[Member]]


def read_routers(path: Path) -> list[RouterSpec]:
    """Read a TOML file of routers: `[routers.NAME]` for one member, `[[routers.NAME]]` for several.

    Raises:
        ConfigError: Names file, field and value of the first thing that is wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; expected TOML in UTF-8") from error
    found = checked(_File, data, str(path)).routers
    return [RouterSpec(name, tuple(m if isinstance(m, list) else [m])) for name, m in found.items()]


def _member(spec: str) -> Member:
    kind, _, rest = spec.partition(":")
    model, at, url = spec.rpartition("@")
    if spec == "tiny":
        fields = {"local": str(tiny_folder())}
    elif kind == "local":
        fields = {"local": rest}
    elif at and url.startswith(("http://", "https://")):
        fields = {"model": model, "base_url": url}
    else:
        fields = {"program": spec}
    return checked(Member, fields, f"router {spec!r}")


def take_seat(name: str, member: Member, example: Example, keys: Mapping[str, str]) -> Seat:
    """Make a member ready for one example.

    Args:
        name: Of the router, for the run log.
        member: Who decides.
        example: What is to be decided.
        keys: Of servers, by environment variable.

    Raises:
        ConfigError: The baseline needs what the example's catalog lacks.
    """
    if member.program is not None:
        router = _program(member.program)(example)
        router.name = name
        return Seat(router, _CONVERSATION, example.catalog)
    if member.local is not None:
        return Seat(_local(member.local, name), _scan(), example.catalog)
    spec = ModelSpec(model=member.model, base_url=member.base_url, price=member.price)
    catalog = Catalog.of(example.catalog.tools.values(), router=spec)
    return Seat(
        _served(member, _key(member, keys)), _CONVERSATION if member.protocol == "conversation" else _scan(), catalog
    )


_CONVERSATION: Final = ConversationProtocol()
_Make = Callable[[Example], ProgramRouter]


def _program(spec: str) -> _Make:
    """What makes a baseline's router for an example.

    Raises:
        ValueError: There is no such baseline.
    """
    kind, _, rest = spec.partition(":")
    plain: dict[str, _Make] = {
        "rules": lambda _: Rules(),
        "cheapest": lambda _: Cheapest(),
        "oracle": _oracle,
        "random": lambda _: Random(seed=int(rest or 0)),
        "fixed": lambda example: Fixed(tool=_find(example, rest)),
        "strongest": lambda example: _strongest(example, rest),
    }
    if kind not in plain or (rest and kind in ("rules", "cheapest", "oracle")) or (kind == "fixed" and not rest):
        raise ValueError(f"expected {', '.join(plain)}:..., local:FOLDER or MODEL@URL")
    if kind == "random" and rest and not rest.isdecimal():
        raise ValueError("expected random or random:SEED, a number")
    return plain[kind]


def _oracle(example: Example) -> ProgramRouter:
    if not set(example.identity.values()) <= SKILLS.keys() or not example.identity:
        raise ConfigError("the oracle knows the experts of the workbench only; leave it out")
    return Oracle(identity=example.identity)


def _strongest(example: Example, tool: str) -> ProgramRouter:
    tools = example.catalog.tools
    searches = [name for name, spec in tools.items() if spec.role == "search" or spec.kind == "search"]
    experts = [spec for name, spec in tools.items() if name not in searches]
    dearest = priciest_tool(Catalog.of(experts) if experts else example.catalog)
    expert = _find(example, tool or (STRENGTH[0] if example.identity else dearest))
    once = (*searches[:1], expert)
    return InTurn(steps=(*once, *once))


def _find(example: Example, expert: str) -> str:
    """The name of an expert in the example's catalog, or of the strongest one that is there.

    Raises:
        ConfigError: The catalog is not drawn, and has no such tool.
    """
    names = {example.expert(name): name for name in example.catalog.tools}
    if expert not in names and not (example.identity and expert in SKILLS):
        raise ConfigError(f"{expert!r} is no tool; expected one of {', '.join(names)}")
    return next(names[wanted] for wanted in (expert, *STRENGTH) if wanted in names)


@cache
def _local(folder: str, name: str) -> BaseChatModel:
    from orchestra_graph.routers.local import LocalRouter  # noqa: PLC0415  (needs an extra)

    return LocalRouter.from_folder(folder, name=name)


@cache
def _scan() -> Protocol:
    from orchestra_graph.protocols.scan import ScanProtocol  # noqa: PLC0415

    return ScanProtocol()


def _key(member: Member, keys: Mapping[str, str]) -> str:
    name = member.api_key_env
    if name is not None and name not in keys:
        raise ConfigError(f"the environment variable {name} (key of {member.model}) is missing; fix: export {name}=...")
    return NO_KEY if name is None else keys[name]


@cache
def _served(member: Member, key: str) -> BaseChatModel:
    return ChatVLLM(
        model=member.model,
        base_url=member.base_url,
        api_key=SecretStr(key),
        temperature=member.temperature,
    )


@cache
def file_hash(path: Path) -> str:
    """SHA-256 of a file's content; read once a process.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a model's folder") from error


def check_names(routers: Sequence[RouterSpec]) -> None:
    """Refuse two routers of one name.

    Raises:
        ConfigError: Names it.
    """
    names = [router.name for router in routers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two routers are named {name!r}; expected unique names; fix: NAME={name}")
