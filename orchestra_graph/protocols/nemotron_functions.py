"""The three functions in which the released checkpoint sees its experts, written from a catalog.

A template is the JSON text of a tools file in which everything that the catalog knows is a placeholder, so that a price
stands in one place and the texts around it are kept to the byte. Placeholders, each replaced as JSON writes it:

    {answer.choices}  {answer.sentences}  {answer.rows}       the experts of a function: names, descriptions, table
    {answer-1.sentence}                                       name and description of one expert
    {answer-1.input}  {answer-1.output}  {answer-1.seconds}   its prices and latency

`FUNCTIONS` is our own wording; `orchestra_graph.catalog_import` makes the template of a release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from orchestra_graph.catalog import Catalog, Role, ToolSpec
from orchestra_graph.protocols.nemotron_table import TABLE_HEADER, numbers, price_row

ROLES: Final[Mapping[str, Role]] = {"enhance_reasoning": "code", "answer": "answer", "search": "search"}
"""Role of the experts of each function, in the order in which the checkpoint was trained with the functions."""

PARAMETER: Final = "model"
"""The one parameter of each function: the name of an expert."""

_TEXTS: Final = {
    "enhance_reasoning": (
        "Writes Python for an intermediate result that the problem needs, runs it, and adds code and output to the "
        "context.",
        "Which model writes the code.",
    ),
    "answer": ("Gives the final answer from the problem and the context.", "Which model answers."),
    "search": ("Searches for what the context does not hold yet, and adds documents to it.", "Which model asks."),
}


def _function(name: str, description: str, lead: str) -> dict[str, Any]:
    about = f"{lead} Choices: {{{name}.choices}}. {{{name}.sentences}}\n{TABLE_HEADER}\n{{{name}.rows}}"
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            # The order of the keys is the release's too: a chat template writes them as they come.
            "parameters": {
                "properties": {PARAMETER: {"description": about, "type": "string"}},
                "required": [PARAMETER],
                "title": "parameters",
                "type": "object",
            },
        },
    }


FUNCTIONS: Final = json.dumps([_function(name, *texts) for name, texts in _TEXTS.items()], indent=2) + "\n"
"""Template of the functions in our own words."""

_NAME = r"[A-Za-z0-9_-]{1,64}"
_PLACEHOLDER: Final = re.compile(rf"\{{({_NAME})\.(choices|sentences|rows|sentence|input|output|seconds)\}}")
_OF_ONE: Final = re.compile(
    rf'\\n[^"\\\n]*?\{{({_NAME})\.(?:input|output|seconds)\}}[^"\\\n]*| ?\{{({_NAME})\.sentence\}}'
)
"""What stands for one expert: a row of a table, with the line end before it as JSON writes it, or a sentence."""


def experts(catalog: Catalog) -> dict[str, list[ToolSpec]]:
    """The experts of each function, in the catalog's order; functions without one are left out."""
    found = {
        name: [spec for spec in catalog.tools.values() if spec.kind == "expert" and spec.role == role]
        for name, role in ROLES.items()
    }
    return {name: specs for name, specs in found.items() if specs}


def fill(template: str, catalog: Catalog) -> str:
    """The tools file of a catalog. Rows and sentences of experts that the catalog does not have are left out."""
    values = _values(catalog)
    template = _OF_ONE.sub(lambda part: part[0] if (part[1] or part[2]) in catalog.tools else "", template)

    def value(placeholder: re.Match[str]) -> str:
        return json.dumps(values.get((placeholder[1], placeholder[2]), ""))[1:-1]

    return _PLACEHOLDER.sub(value, template)


def _values(catalog: Catalog) -> dict[tuple[str, str], str]:
    values: dict[tuple[str, str], str] = {}
    for name, specs in experts(catalog).items():
        values[name, "choices"] = repr([spec.name for spec in specs])
        values[name, "sentences"] = " ".join(map(sentence, specs))
        values[name, "rows"] = "\n".join(map(price_row, specs))
    for spec in catalog.tools.values():
        values[spec.name, "sentence"] = sentence(spec)
        for field, shown in zip(("input", "output", "seconds"), numbers(spec), strict=True):
            values[spec.name, field] = shown
    return values


def sentence(spec: ToolSpec) -> str:
    """What the model is told of an expert: its name, which opens the sentence that the description goes on with."""
    return f"{spec.name} {spec.description}".rstrip()


@lru_cache(maxsize=128)
def functions(template: str, catalog: Catalog, hidden: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """The functions of a catalog in OpenAI's format; the same list for the same arguments.

    Args:
        template: `FUNCTIONS`, or that of a release.
        catalog: Its experts.
        hidden: Functions that are not shown.
    """
    known = experts(catalog).keys() - hidden
    return [function for function in json.loads(fill(template, catalog)) if function["function"]["name"] in known]
