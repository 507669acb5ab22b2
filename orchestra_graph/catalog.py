"""The catalog: what each tool can do, what it costs and how long it takes.

The one place where a price lives: the table that the router reads and the bill that the meter writes come from the
same field. Catalogs are values: `restrict`, `reprice`, `rename` and the others return new ones. Reading TOML is in
`orchestra_graph.catalog_file`; check a file with `orchestra check FILE`.
"""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import jsonschema_rs
import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestra_graph.errors import ConfigError

CATALOG_VERSION: Final = 1

Kind = Literal["expert", "function", "search", "code", "graph", "mcp", "node"]
Role = Literal["answer", "code", "search", "chat"]
PriceSource = Literal["catalog", "genai-prices", "unknown"]

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""What the tool-calling APIs of OpenAI, Anthropic and vLLM accept as a function name."""

RESERVED_NAMES = frozenset({"router"})
"""Names that charges use for something else than a tool."""

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_MOST: Final = 10**15
"""Of what is counted: every number up to it is exact in JSON."""
Length = Annotated[int, Field(gt=0, le=_MOST)]
"""Tokens or characters."""


def compile_schema(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """Compile a JSON Schema; references to other documents are never fetched.

    Raises:
        jsonschema_rs.ValidationError: It is no JSON Schema, or refers to another document.
    """
    return jsonschema_rs.validator_for(schema, retriever=_refuse)


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri}: schemas are not fetched; expected one without references to other documents")


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(_Spec):
    """What a call costs. All elements add up."""

    input: NonNegative = 0.0
    """Dollars per million input tokens."""
    cached_input: NonNegative | None = None
    """Dollars per million input tokens that the provider's cache served; the input price where None."""
    output: NonNegative = 0.0
    """Dollars per million output tokens."""
    per_call: NonNegative = 0.0
    """Dollars a call."""
    per_second: NonNegative = 0.0
    """Dollars a second of work."""
    source: PriceSource = "catalog"
    """Where the figures come from; `unknown` bills nothing and says so."""

    def dollars(
        self,
        *,
        input_tokens: int = 0,
        cached_tokens: int = 0,
        output_tokens: int = 0,
        calls: int = 0,
        seconds: float = 0,
    ) -> float:
        """Price the given amounts.

        Args:
            input_tokens: All input tokens, the cached ones among them.
            cached_tokens: Input tokens served from the provider's cache.
            output_tokens: Output tokens, reasoning among them.
            calls: Calls billed by `per_call`.
            seconds: Seconds of work billed by `per_second`.
        """
        cached = self.input if self.cached_input is None else self.cached_input
        tokens = (input_tokens - cached_tokens) * self.input + cached_tokens * cached + output_tokens * self.output
        return tokens / 1e6 + calls * self.per_call + seconds * self.per_second

    @property
    def has_tokens(self) -> bool:
        """Whether tokens cost anything here."""
        return bool(self.input or self.output or self.cached_input)


class Latency(_Spec):
    """Seconds of work of one call."""

    p50: NonNegative = 0.0
    p95: NonNegative = 0.0
    source: Literal["catalog", "measured"] = "catalog"

    @model_validator(mode="after")
    def _ordered(self) -> Latency:
        if self.p95 and self.p95 < self.p50:
            raise ValueError(f"p95 = {self.p95:g} is below p50 = {self.p50:g}")
        return self


class Limits(_Spec):
    """Bounds on one call."""

    timeout: Positive = 120.0
    """Seconds before an attempt is cancelled."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Attempts after the first one, for failures that may pass."""
    context_tokens: Length = 24_000
    """Evidence that an expert is shown."""
    code_tokens: Length | None = None
    """Part of the evidence that programs and their output may take, where the protocol tells them apart."""
    document_characters: Length | None = None
    """Length to which each document is cut, where the protocol tells them apart; None leaves them whole."""
    result_tokens: Length = 4_000
    """Length to which a result is cut before the router reads it."""
    output_tokens: Length = 8_000
    """Upper bound on what a model writes; used to bound the charge of an attempt that never came back."""


class Measured(_Spec):
    """What runs on sample tasks showed of a tool, as `orchestra describe` writes it: for people, no router reads it."""

    tasks: Annotated[int, Field(ge=0, le=_MOST)] = 0
    """Tasks on which it was tried and answered."""
    success: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of them that it solved; None for a tool that states no answer."""
    dollars: NonNegative = 0.0
    """Mean of what a call cost."""


class ModelSpec(_Spec):
    """How a chat model is reached and what it costs; the router's own entry, and part of an expert's."""

    model: str | None = None
    """Name at the provider, for example `gpt-5`; also the key to look a price up that the catalog leaves out."""
    provider: str | None = None
    """Provider as `genai-prices` knows it, for example `openai`; of a search on the web `tavily`."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """Name of the environment variable that holds the key; never the key."""
    price: Price = Price(source="unknown")
    latency: Latency = Latency()
    limits: Limits = Limits()

    def least_dollars(self, input_tokens: int = 0) -> float:
        """What a call costs at least, when it sends about `input_tokens` tokens and writes one."""
        return self.price.dollars(input_tokens=input_tokens, output_tokens=1, calls=1)


class ToolSpec(ModelSpec):
    """One line of the catalog."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    kind: Kind = "function"
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: dict(NO_PARAMETERS))
    """JSON Schema of the arguments, an object."""
    terminal: bool = False
    """Whether an answer from this tool ends the run."""
    fallback: tuple[str, ...] = ()
    """Tools tried in this order when every attempt here failed."""
    cache: bool = False
    """Whether the same call may be answered from the graph's cache."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of what the run has left, dollars and seconds, that a call may spend; graphs and functions that run
    orchestrators stay within it. Without it all, and graphs called in one reply share it evenly."""
    version: str = "1"
    """Part of the cache's key: change it when the tool changes."""
    role: Role = "answer"
    """What an expert does."""
    path: str | None = None
    """Folder or index file of a local search; for the kind `mcp` a JSON file of servers."""
    target: str | None = None
    """`module:attribute` of a function, LangChain tool or compiled graph; for the kind `mcp` `server:tool`."""
    measured: Measured | None = Field(default=None, exclude_if=lambda measured: measured is None)
    """Not in the JSON of a line that was never measured: hashes of catalogs stay what they were."""
    retrieval: Price | None = Field(default=None, exclude_if=lambda price: price is None)
    """Of a call of an expert's retriever, filled in from that; its own line bills it, budget and approval count it."""

    @model_validator(mode="after")
    def _valid(self) -> ToolSpec:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is reserved; rename the tool")
        if self.parameters.get("type") != "object":
            raise ValueError(f'parameters: type = {self.parameters.get("type")!r}, expected "object"')
        if self.parameters == NO_PARAMETERS:  # as most experts have it: nothing to compile
            return self
        try:
            compile_schema(self.parameters)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise ValueError(f"parameters are no JSON Schema: {error}") from error
        return self

    @property
    def is_unpriced(self) -> bool:
        """Whether nobody says what its calls cost; a function that states no price costs none, a model does."""
        return self.price.source == "unknown" and bool(self.model or self.kind == "expert")

    @cached_property
    def validator(self) -> jsonschema_rs.Validator:
        """Compiled check of arguments."""
        return compile_schema(self.parameters)

    def completed_by(self, own: ToolSpec) -> ToolSpec:
        """This line, with the fields that it does not state taken from the tool's own."""
        mine, theirs = self.model_dump(exclude_unset=True), own.model_dump(exclude_unset=True)
        for part in ("latency", "limits"):
            mine[part] = {**theirs.get(part, {}), **mine.get(part, {})}
        if "p95" not in self.latency.model_fields_set and mine["latency"].get("p95", 0) < mine["latency"].get("p50", 0):
            mine["latency"].pop("p95", None)  # the tool's own, which the line's p50 contradicts
        if self.price.source == "genai-prices" and own.price.source == "catalog":
            # Looked up by the model's name, where the tool states its price itself.
            del mine["price"]
        return ToolSpec.model_validate({**theirs, **mine})

    def least_dollars(self, input_tokens: int = 0) -> float:
        """See `ModelSpec.least_dollars`; with what its retriever costs."""
        retrieval = 0.0 if self.retrieval is None else self.retrieval.dollars(calls=1)
        return super().least_dollars(input_tokens) + retrieval

    @property
    def is_open_ended(self) -> bool:
        """Whether a call may spend whatever it is given."""
        return self.kind == "graph" or self.share is not None

    @property
    def required(self) -> list[str]:
        """Names of the required arguments."""
        return list(self.parameters.get("required", ()))


class Catalog(_Spec):
    """Tools by name, in the order in which the router reads them, and the router's own price."""

    version: Literal[1] = CATALOG_VERSION
    tools: dict[str, ToolSpec]
    router: ModelSpec = ModelSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Catalog:
        for name, spec in self.tools.items():
            if spec.name != name:
                raise ValueError(f"tool {name!r} is stored under another name than its own {spec.name!r}")
            for other in spec.fallback:
                if other not in self.tools:
                    raise ValueError(
                        f"{name}: fallback {other!r} is no tool of the catalog, expected {_names(self.tools)}"
                    )
        return self

    @classmethod
    def of(cls, specs: Iterable[ToolSpec], *, router: ModelSpec | None = None) -> Catalog:
        """Build a catalog from lines.

        Raises:
            ConfigError: Two lines share a name.
        """
        tools: dict[str, ToolSpec] = {}
        for spec in specs:
            if spec.name in tools:
                raise ConfigError(f"two tools are named {spec.name!r}; expected unique names; rename one")
            tools[spec.name] = spec
        return cls(tools=tools, router=router or ModelSpec())

    @classmethod
    def from_toml(cls, path: str | Path) -> Catalog:
        """Read a catalog file.

        Raises:
            CatalogError: Lists every problem with its line, the value, and what was expected.
        """
        from orchestra_graph.catalog_file import read_catalog  # noqa: PLC0415  (it imports this module)

        return read_catalog(Path(path))

    @cached_property
    def json_data(self) -> dict[str, Any]:
        """The catalog as plain JSON values; shared, so not to be changed."""
        return self.model_dump(mode="json")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content, hexadecimal: the same tools, prices and texts give the same hash."""
        data = {**self.json_data, "tools": list(self.json_data["tools"].values())}
        return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def terminals(self) -> tuple[str, ...]:
        """Names of the terminal tools."""
        return tuple(name for name, spec in self.tools.items() if spec.terminal)

    def restrict(self, names: Iterable[str]) -> Catalog:
        """Keep the named tools, in the catalog's order; fallbacks to others are dropped.

        Raises:
            ConfigError: A name is not in the catalog.
        """
        if isinstance(names, str):
            raise ConfigError(f"restrict({names!r}): expected a list of names; fix: restrict([{names!r}])")
        keep = set(names)
        self._known(keep)
        kept = {n: s for n, s in self.tools.items() if n in keep}
        return self._with({n: s.model_copy(update={"fallback": _within(s.fallback, kept)}) for n, s in kept.items()})

    def reprice(self, prices: Mapping[str, Price]) -> Catalog:
        """Give the named tools other prices.

        Raises:
            ConfigError: A name is not in the catalog, or a value is no price.
        """
        self._known(prices)
        for name, price in prices.items():
            if not isinstance(price, Price):
                raise ConfigError(
                    f"the price of {name} = {price!r}; expected Price(input=..., output=..., per_call=...)"
                )
        return self._with(
            {n: s.model_copy(update={"price": prices[n]}) if n in prices else s for n, s in self.tools.items()}
        )

    def rename(self, names: Mapping[str, str]) -> Catalog:
        """Give tools other names, old to new; fallbacks follow.

        Raises:
            ConfigError: A name is not in the catalog, cannot be a name, or two tools would share it.
        """
        self._known(names)
        for name in names.values():
            if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED_NAMES:
                raise ConfigError(
                    f"{name!r} cannot be a tool's name; expected {NAME_PATTERN}, and none of the graph's own"
                )
        new = [
            spec.model_copy(
                update={"name": names.get(old, old), "fallback": tuple(names.get(f, f) for f in spec.fallback)}
            )
            for old, spec in self.tools.items()
        ]
        return Catalog.of([ToolSpec.model_validate(s.model_dump(exclude_unset=True)) for s in new], router=self.router)

    def with_measured_latency(self, seconds: Mapping[str, Sequence[float]], *, at_least: int = 20) -> Catalog:
        """Replace latencies by what was measured, where enough calls were.

        Args:
            seconds: Seconds of work of past calls, by tool; names outside the catalog are passed over.
            at_least: Calls from which on a measurement counts.
        """
        measured = {
            name: Latency(p50=statistics.median(s), p95=_p95(s), source="measured")
            for name, s in seconds.items()
            if len(s) >= at_least
        }
        return self._with(
            {n: s.model_copy(update={"latency": measured[n]}) if n in measured else s for n, s in self.tools.items()}
        )

    def _with(self, tools: dict[str, ToolSpec]) -> Catalog:
        return Catalog(tools=tools, router=self.router)

    def _known(self, names: Iterable[str]) -> None:
        unknown = [n for n in names if n not in self.tools]
        if unknown:
            raise ConfigError(f"{', '.join(map(repr, unknown))}: no such tool; expected {_names(self.tools)}")


def _within(names: Iterable[str], tools: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(n for n in names if n in tools)


def _names(tools: Iterable[str]) -> str:
    return "one of " + ", ".join(tools)


def _p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
