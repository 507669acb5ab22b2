"""Questions as the released checkpoint `nvidia/Nemotron-Orchestrator-8B` was trained and measured on them.

    protocol = NemotronQA(FolderTokenizer("Nemotron-Orchestrator-8B"), variant="hle")
    graph = create_orchestrator(router, experts, catalog=nemotron_catalog("hle"), protocol=protocol, max_malformed=50)

Every turn is a fresh system and user message: the problem, and what the calls of experts have brought; earlier replies
never come back. The router calls one of three functions with the name of an expert, which becomes a call of that expert
without arguments. The first valid call of a reply is executed; a reply without one is a turn that the router is not
told of. Whatever the checkpoint saw is kept to the byte, odd as it may be: each oddity is a field of `Variant` or a
constant here and in `nemotron_context`. Left out are the faults of the program around it, and special tokens: no text
can end the user message that it stands in.

A conversation before the question is not shown: the checkpoint never saw one.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

import orjson
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from orchestra_graph.catalog import Catalog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.protocols.nemotron_context import (
    DOCUMENTS,
    SEPARATOR,
    brought,
    cut,
    cut_code,
    for_expert,
    numbered,
    without_special,
)
from orchestra_graph.protocols.nemotron_functions import FUNCTIONS, PARAMETER, experts, functions
from orchestra_graph.protocols.nemotron_reply import read_choice
from orchestra_graph.protocols.nemotron_table import price_row
from orchestra_graph.text import estimate_tokens, neutralise
from orchestra_graph.tokens import Tokenizer
from orchestra_graph.turns import Decision

VariantName = Literal["hle", "frames"]

SYSTEM: Final = "You are good at using tools."
USER: Final = "Problem: {problem}\n\n{context}\n\n{ending}"

TRAINING_SYSTEM: Final = "You are good at using tools. "
"""In training a space stood behind it."""
TRAINING_ENDING: Final = "Choose an approriate tool."
"""How every prompt ended in training, with its misspelling."""

CODE_TOKENS: Final = 12_000
"""Of the code so far, what the router reads at most."""

EXPERT_DOCUMENT: Final = "Doc {i}: {text}\n\n"
"""A document as experts read it."""
EXPERT_USER: Final = "{context}\n\nProblem:\n{problem}"


@dataclass(frozen=True, slots=True)
class Variant:
    """Where the two released evaluations differ."""

    document: str
    """One document, with its number and text."""
    document_characters: int
    """Length to which each document is cut."""
    tokens: int
    """Tokens of documents and code together."""
    less_problem: bool
    """Whether the problem's tokens count among them."""
    separator_always: bool
    """Whether the separator stands where there is no code yet, so that the first turn's context is the separator."""
    ending: str
    """What the user message closes with."""
    one_search: bool
    """Whether `search` is hidden once there are documents."""


VARIANTS: Final[Mapping[VariantName, Variant]] = {
    "hle": Variant(
        document="Doc {i}: {text} ...\n\n",
        document_characters=1_200,
        tokens=27_000,
        less_problem=True,
        separator_always=False,
        ending="Choose an appropriate tool.'",  # the stray apostrophe is the release's
        one_search=False,
    ),
    "frames": Variant(
        document="Doc {i}: {text}\n\n",
        document_characters=4_000,
        tokens=24_000,
        less_problem=False,
        separator_always=True,
        ending="Choose an appropriate tool.",
        one_search=True,
    ),
}

FRAMES_LIMITS: Final[Mapping[str, Mapping[str, int]]] = {
    "gpt-5": {"context_tokens": 160_000},
    "gpt-5-mini": {"context_tokens": 160_000},
    "meta-llama/Llama-3.3-70B-Instruct": {"code_tokens": 40_000},
}
"""What experts of the packaged catalog are shown in FRAMES where it differs, by model; documents are whole there."""

_CATALOG: Final = Path(__file__).parent.parent / "catalogs" / "nemotron.toml"


class NemotronQA(Protocol):
    """The released checkpoint's protocol for questions.

    Args:
        tokenizer: The served model's, by which the context is cut.
        variant: `hle` or `frames`: which of the released evaluations.
        training: Use the texts of the training prompts where they differ.
        functions: Template of the functions in place of `nemotron_functions.FUNCTIONS`; that of an imported release is
            `orchestra_graph.catalog_import.read_functions(catalog file)`.

    Raises:
        ConfigError: There is no such variant.
    """

    name: ClassVar[str] = "nemotron_qa"
    sampling = MappingProxyType({"temperature": 1.0, "max_tokens": 12_000})

    def __init__(
        self,
        tokenizer: Tokenizer,
        variant: VariantName = "hle",
        *,
        training: bool = False,
        functions: str | None = None,
    ) -> None:
        self._variant = _variant(variant)
        self._tokenizer = tokenizer
        self._system = SystemMessage(TRAINING_SYSTEM if training else SYSTEM)
        self._ending = TRAINING_ENDING if training else self._variant.ending
        self._functions = FUNCTIONS if functions is None else functions
        self.blocks = tokenizer.blocks

    def check(self, catalog: Catalog) -> None:
        """Check that each tool is an expert that a function can name, or where experts search."""
        self._check_functions(catalog)
        callable_ = {spec.name: spec for specs in experts(catalog).values() for spec in specs}
        if not any(spec.role == "answer" for spec in callable_.values()):
            raise ConfigError(f"{self.name}: the catalog has no expert of role answer; expected at least one")
        for name, spec in catalog.tools.items():
            if name not in callable_ and spec.kind != "search":
                raise ConfigError(
                    f"{self.name}: {name} (kind {spec.kind}, role {spec.role}) cannot be called; expected experts of "
                    "the roles code, answer and search; fix: leave it out, or use the protocol conversation"
                )
        for name, spec in callable_.items():
            if spec.required:
                raise ConfigError(
                    f"{self.name}: {name} requires {', '.join(spec.required)}, but experts are called without "
                    "arguments; fix: give each parameter required = false"
                )
            if spec.terminal != (spec.role == "answer"):
                raise ConfigError(
                    f"{self.name}: {name} has role = {spec.role!r} and terminal = {spec.terminal}; expected experts of "
                    "role answer, and no others, to end the run; fix: change one of the two"
                )

    def _check_functions(self, catalog: Catalog) -> None:
        try:
            found = [function["function"] for function in functions(self._functions, catalog)]
            shown = {f["name"]: f["parameters"]["properties"][PARAMETER]["description"] for f in found}
            texts = {name: re.sub(r"\$+", "$", text) for name, text in shown.items()}  # a release has some too many
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.name}: functions are no tools file ({error!r}); fix: import it again") from error
        known = experts(catalog)
        missing = known.keys() - texts
        if missing:
            raise ConfigError(f"{self.name}: functions lack {', '.join(sorted(missing))}; fix: import the file again")
        unseen = [spec.name for name in known for spec in known[name] if f"\n{price_row(spec)}" not in texts[name]]
        if unseen:
            raise ConfigError(
                f"{self.name}: functions have no row for {', '.join(unseen)}; expected one of each expert, with the "
                "name and role that it has in the imported file; fix: leave it out of the catalog, or drop `functions`"
            )

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        """One view, one reply."""
        reply = yield self.view(situation)
        return read_choice(reply, situation.catalog, situation.turn_id)

    def view(self, situation: Situation) -> View:
        """What the router reads in this situation."""
        found = brought(situation.turns, situation.catalog)
        hidden = frozenset({"search"} if self._variant.one_search and found.documents else ())
        shown = functions(self._functions, situation.catalog, hidden)
        context = self._context(situation.question, found.documents, found.code)
        user = USER.format(problem=situation.question, context=context, ending=self._ending)
        messages: list[BaseMessage] = [self._system, HumanMessage(without_special(user))]
        tokens = estimate_tokens(messages) + _function_tokens(self._functions, situation.catalog)
        return View(messages, shown, tokens)

    def brief(self, situation: Situation, spec: ToolSpec) -> list[dict[str, Any]] | None:
        """Documents, code and the problem, cut to the expert's limits."""
        found = brought(situation.turns, situation.catalog)
        room = spec.limits.context_tokens - self._tokenizer.count(situation.question)
        context = for_expert(found, spec.limits, EXPERT_DOCUMENT, room, self._tokenizer)
        user = EXPERT_USER.format(context=context.strip(), problem=situation.question).lstrip()
        return [{"role": "user", "content": neutralise(user)}]

    def _context(self, problem: str, documents: Sequence[str], code: str) -> str:
        """Documents and code; code alone where it takes all the room, by its length before it is cut."""
        variant, tokenizer = self._variant, self._tokenizer
        room = variant.tokens - (tokenizer.count(problem) if variant.less_problem else 0)
        shown_code = cut_code(code, CODE_TOKENS, tokenizer)
        if tokenizer.count(code) >= room:
            return shown_code
        shown = numbered(documents, variant.document, variant.document_characters)
        heading = DOCUMENTS if shown else ""
        if code or variant.separator_always:
            shown += SEPARATOR + shown_code
        return heading + cut(shown, room, tokenizer)


def nemotron_catalog(variant: VariantName = "hle") -> Catalog:
    """The experts that the checkpoint was measured with, with what each is shown in a variant.

    An `Expert` that is made by hand reads how long its programs may run from its own `limits`: give it those of its
    line. `orchestra_graph.tools.build.build_tools` does so.

    Raises:
        ConfigError: There is no such variant.
    """
    _variant(variant)
    catalog = _packaged()
    return catalog if variant == "hle" else Catalog.of(map(_in_frames, catalog.tools.values()), router=catalog.router)


@lru_cache(maxsize=1)
def _packaged() -> Catalog:
    return Catalog.from_toml(_CATALOG)


def _in_frames(spec: ToolSpec) -> ToolSpec:
    update = {"document_characters": None, **FRAMES_LIMITS.get(spec.model or "", {})}
    return spec.model_copy(update={"limits": spec.limits.model_copy(update=update)})


def _variant(name: VariantName) -> Variant:
    if name not in VARIANTS:
        raise ConfigError(f"variant = {name!r}; expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


@lru_cache(maxsize=128)
def _function_tokens(template: str, catalog: Catalog) -> int:
    return estimate_tokens(orjson.dumps(functions(template, catalog)).decode())
