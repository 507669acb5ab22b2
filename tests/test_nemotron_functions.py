"""The functions and their tables, written from a catalog."""

from __future__ import annotations

import json

import pytest

from orchestra_graph.catalog import Catalog, Latency, Price, ToolSpec
from orchestra_graph.protocols.nemotron_functions import FUNCTIONS, experts, fill, functions
from orchestra_graph.protocols.nemotron_qa import nemotron_catalog
from orchestra_graph.protocols.nemotron_table import price_row, price_table

CATALOG = nemotron_catalog()
HEADER = "Model | price per million input tokens | price per million output tokens | average latency"


def about(catalog: Catalog, function: str, template: str = FUNCTIONS) -> str:
    """The description of a function's parameter."""
    found = {f["function"]["name"]: f["function"] for f in functions(template, catalog)}
    return str(found[function]["parameters"]["properties"]["model"]["description"])


def test_the_three_functions_stand_in_their_order() -> None:
    shown = functions(FUNCTIONS, CATALOG)
    assert [f["function"]["name"] for f in shown] == ["enhance_reasoning", "answer", "search"]
    for function in shown:
        assert (function["type"], list(function["function"])) == ("function", ["name", "description", "parameters"])
        parameters = function["function"]["parameters"]
        assert list(parameters) == ["properties", "required", "title", "type"]
        assert (parameters["required"], parameters["type"]) == (["model"], "object")
        assert list(parameters["properties"]) == ["model"]
        assert parameters["properties"]["model"]["type"] == "string"


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (
            "enhance_reasoning",
            ["reasoner-1 | $1.25 | $10 | 31s", "reasoner-2 | $0.25 | $2 | 25s", "reasoner-3 | $0.8 | $0.8 | 9s"],
        ),
        (
            "answer",
            [
                "answer-1 | $1.25 | $10 | 96s",
                "answer-2 | $0.25 | $2 | 27s",
                "answer-3 | $0.9 | $0.9 | 15s",
                "answer-4 | $0.8 | $0.8 | 11s",
                "answer-math-1 | $0.9 | $0.9 | 13s",
                "answer-math-2 | $0.2 | $0.2 | 9s",
            ],
        ),
        ("search", ["search-1 | $1.25 | $10 | 22s", "search-2 | $0.25 | $2 | 16s", "search-3 | $0.8 | $0.8 | 8s"]),
    ],
)
def test_a_description_names_its_experts_and_ends_in_their_table(function: str, rows: list[str]) -> None:
    names = [row.partition(" ")[0] for row in rows]
    text = about(CATALOG, function)
    assert text.endswith("\n".join(["", HEADER, *rows]))
    assert f"Choices: {names!r}." in text
    for name in names:
        assert f"{name} {CATALOG.tools[name].description}" in text


def test_a_price_is_that_of_the_bill() -> None:
    repriced = CATALOG.reprice({"answer-1": Price(input=0.125, output=3)})
    assert "\nanswer-1 | $0.125 | $3 | 96s\n" in about(repriced, "answer")
    assert "\nanswer-2 | $0.25 | $2 | 27s\n" in about(repriced, "answer")


def test_experts_that_are_not_in_the_catalog_are_not_shown() -> None:
    few = CATALOG.restrict(["answer-2", "search-3"])
    assert [f["function"]["name"] for f in functions(FUNCTIONS, few)] == ["answer", "search"]
    assert "answer-1" not in about(few, "answer")
    assert about(few, "answer").endswith(f"\n{HEADER}\nanswer-2 | $0.25 | $2 | 27s")


def test_other_names_are_shown() -> None:
    renamed = CATALOG.rename({"answer-1": "strong"})
    assert "Choices: ['strong', 'answer-2'," in about(renamed, "answer")
    assert "\nstrong | $1.25 | $10 | 96s\n" in about(renamed, "answer")


def test_a_hidden_function_is_left_out() -> None:
    shown = functions(FUNCTIONS, CATALOG, frozenset({"search"}))
    assert [f["function"]["name"] for f in shown] == ["enhance_reasoning", "answer"]
    assert functions(FUNCTIONS, CATALOG, frozenset({"search"})) is shown


def test_tools_that_are_no_experts_of_a_role_belong_to_no_function() -> None:
    line = ToolSpec(name="chat", kind="expert", role="chat")
    assert experts(Catalog.of([line, ToolSpec(name="calc"), ToolSpec(name="wiki", kind="search")])) == {}


@pytest.mark.parametrize(
    ("price", "latency", "row"),
    [
        (Price(), Latency(p50=1), "e | $0 | $0 | 1s"),
        (Price(source="unknown"), Latency(), "e | $? | $? | ?s"),
        (Price(input=1e-7, output=100), Latency(p50=2.5), "e | $1e-07 | $100 | 2.5s"),
        (Price(input=0.3, output=15.0), Latency(p50=12.3456, source="measured"), "e | $0.3 | $15 | 12.35s"),
    ],
)
def test_a_row(price: Price, latency: Latency, row: str) -> None:
    spec = ToolSpec(name="e", price=price, latency=latency)
    assert price_row(spec) == row
    assert price_table([spec, spec]) == f"{HEADER}\n{row}\n{row}"


def test_texts_of_a_catalog_are_escaped_as_json() -> None:
    odd = Catalog.of([CATALOG.tools["answer-1"].model_copy(update={"description": 'says "é"\n\\ {answer.rows}.'})])
    assert 'answer-1 says "é"\n\\ {answer.rows}.' in about(odd, "answer")
    assert json.loads(fill(FUNCTIONS, odd))[1]["function"]["name"] == "answer"
