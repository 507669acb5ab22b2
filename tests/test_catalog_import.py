"""A release's tools file becomes a catalog and comes back byte for byte, and what is laid out otherwise is refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestra_graph.catalog import Catalog, Latency, Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.catalog_import import import_tools, read_functions, write_catalog
from orchestra_graph.cli.catalog import catalog as command
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.nemotron_functions import FUNCTIONS, fill, functions
from orchestra_graph.protocols.nemotron_qa import NemotronQA, nemotron_catalog
from tests.examples import examples
from tests.qa_runs import TOKENIZER, situation

HEADER = "Model | price per million input tokens | price per million output tokens | average latency"


def function(name: str, description: str, **parts: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"what {name} does",
            "parameters": {
                "properties": {"model": {"description": description, "type": "string"}},
                "required": ["model"],
                "title": "parameters",
                "type": "object",
                **parts,
            },
        },
    }


REASON = (
    "Who reasons. Choices: ['reasoner-1', 'reasoner-2']. reasoner-2 helps (a bit, etc.) at times. reasoner-1 is strong."
    f" It is slow. \n{HEADER}\nreasoner-1 | $1.25 | $10 | 31s\nreasoner-2 | $0.25 | $2 | 25s"
)
ANSWER = (
    "Who answers. Choices: ['answer-1', 'answer-math-1']. answer-math-1 knows sums! For all else, answer-1 is there. "
    f"The table below shows the costs:\n{HEADER}\nanswer-1 | $2 | $3.5 | 96s\nanswer-math-1 | $$0.9 | $0.9 | 13s"
)
SEARCH = f"Who asks. ['search-9'] {{braces}} 100%\n{HEADER}\nsearch-9 | $0 | $0.0001 | 1.5s"
TOOLS = [function("enhance_reasoning", REASON), function("answer", ANSWER), function("search", SEARCH)]
TEXT = json.dumps(TOOLS, indent=2)

LAYOUTS: list[Callable[[Any], str]] = [
    lambda tools: json.dumps(tools, indent=2),
    lambda tools: json.dumps(tools, indent=4) + "\n",
    lambda tools: json.dumps(tools, indent="\t", ensure_ascii=False) + "\n\n",
    lambda tools: json.dumps(tools, separators=(",", ":")),
    lambda tools: json.dumps(tools, indent=2).replace("\n", "\r\n"),
    lambda tools: json.dumps(tools).replace('"type": "object"', '"type"  :"object" '),
]


def changed(path: str, value: Any) -> str:
    """The file with one value put elsewhere, by the keys to it; `...` takes it out."""
    tools = json.loads(TEXT)
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = tools
    for key in keys:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(tools)


def test_what_the_file_tells_becomes_the_catalog() -> None:
    catalog, _ = import_tools(TEXT, "tools.json")
    packaged = nemotron_catalog().tools["reasoner-1"]
    assert list(catalog.tools) == ["reasoner-1", "reasoner-2", "answer-1", "answer-math-1", "search-9"]
    assert catalog.tools["reasoner-1"] == ToolSpec(
        name="reasoner-1",
        kind="expert",
        role="code",
        description="is strong.",
        price=Price(input=1.25, output=10),
        latency=Latency(p50=31),
        model="gpt-5",
        api_key_env="OPENAI_API_KEY",
        limits=packaged.limits,
    )
    assert catalog.tools["reasoner-2"].description == "helps (a bit, etc.) at times."
    assert catalog.tools["answer-math-1"].description == "knows sums!"
    assert catalog.tools["answer-math-1"].price == Price(input=0.9, output=0.9)
    assert catalog.tools["search-9"] == ToolSpec(
        name="search-9",
        kind="expert",
        role="search",
        price=Price(output=0.0001),
        latency=Latency(p50=1.5),
    )
    assert catalog.terminals == ("answer-1", "answer-math-1")


def test_an_expert_with_another_price_is_another_expert() -> None:
    answer = import_tools(TEXT, "tools.json")[0].tools["answer-1"]
    assert (answer.model, answer.limits) == (None, Limits())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back_byte_for_byte(layout: Callable[[Any], str]) -> None:
    text = layout(TOOLS)
    catalog, template = import_tools(text, "tools.json")
    assert fill(template, catalog) == text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_it_does_through_a_catalog_file(layout: Callable[[Any], str], tmp_path: Path) -> None:
    text = layout(TOOLS)
    file = tmp_path / "catalog.toml"
    file.write_bytes(write_catalog(*import_tools(text, "tools.json")).encode())
    functions = read_functions(file)
    assert functions is not None
    assert fill(functions, Catalog.from_toml(file)) == text


@pytest.mark.parametrize("ascii_only", [True, False])
def test_texts_beyond_ascii_come_back(ascii_only: bool) -> None:
    about = REASON.replace("is strong", "ist stark: ä😀 '''\u2028\x7f").replace("Who reasons", 'Wer "überlegt"\\n')
    text = json.dumps([function("enhance_reasoning", about), *TOOLS[1:]], ensure_ascii=ascii_only)
    catalog, template = import_tools(text, "tools.json")
    assert fill(template, catalog) == text
    read = tomllib.loads(write_catalog(catalog, template))
    assert read["functions"] == template
    assert read["tools"]["reasoner-1"]["description"] == "ist stark: ä😀 '''\u2028\x7f."


def test_a_price_stands_in_one_place() -> None:
    catalog, template = import_tools(TEXT, "tools.json")
    assert not any(number in template for number in ("1.25", "$10 ", "31s", "0.9", "1.5s"))
    repriced = catalog.reprice({"reasoner-1": Price(input=7, output=8), "answer-math-1": Price(input=5, output=6)})
    expected = TEXT.replace("reasoner-1 | $1.25 | $10", "reasoner-1 | $7 | $8")
    assert fill(template, repriced) == expected.replace("math-1 | $$0.9 | $0.9", "math-1 | $$5 | $6")


def test_experts_that_are_taken_out_leave_their_rows_sentences_and_names() -> None:
    catalog, template = import_tools(TEXT, "tools.json")
    [reason, answer] = functions(template, catalog.restrict(["reasoner-1", "answer-math-1"]))
    assert reason["function"]["parameters"]["properties"]["model"]["description"] == (
        f"Who reasons. Choices: ['reasoner-1']. reasoner-1 is strong. It is slow. \n{HEADER}\n"
        "reasoner-1 | $1.25 | $10 | 31s"
    )
    assert answer["function"]["parameters"]["properties"]["model"]["description"].endswith(
        f"{HEADER}\nanswer-math-1 | $$0.9 | $0.9 | 13s"
    )


def test_the_protocol_speaks_with_the_imported_texts() -> None:
    catalog, template = import_tools(TEXT, "tools.json")
    protocol = NemotronQA(TOKENIZER, functions=template)
    protocol.check(catalog)
    assert protocol.view(situation(catalog=catalog)).tools == TOOLS


@pytest.mark.parametrize(
    "changed",
    [
        lambda catalog: catalog.rename({"answer-1": "strong"}),
        lambda catalog: Catalog.of(
            [*catalog.tools.values(), catalog.tools["answer-1"].model_copy(update={"name": "strong"})]
        ),
    ],
)
def test_an_expert_of_whom_the_imported_texts_would_tell_nothing_is_refused(
    changed: Callable[[Catalog], Catalog],
) -> None:
    catalog, template = import_tools(TEXT, "tools.json")
    with pytest.raises(ConfigError, match=r"functions have no row for strong; expected .*; fix: leave it out"):
        NemotronQA(TOKENIZER, functions=template).check(changed(catalog))
    NemotronQA(TOKENIZER).check(changed(catalog))


def test_experts_with_other_prices_stand_in_the_imported_texts() -> None:
    catalog, template = import_tools(TEXT, "tools.json")
    prices = {"reasoner-1": Price(input=7, output=8), "answer-math-1": Price(source="unknown")}
    repriced = catalog.reprice(prices).restrict([*prices, "answer-1"])
    NemotronQA(TOKENIZER, functions=template).check(repriced)
    shown = fill(template, repriced)
    assert "reasoner-1 | $7 | $8 | " in shown
    assert "answer-math-1 | $$? | $? | " in shown


def test_our_own_texts_come_back_as_well() -> None:
    text = fill(FUNCTIONS, nemotron_catalog())
    catalog, template = import_tools(text, "tools.json")
    assert fill(template, catalog) == text
    assert catalog == nemotron_catalog()


WORDS = st.text(st.sampled_from("ab-1 .!{}'\\\"$|\n\té"), max_size=30)


@settings(max_examples=examples(200))
@given(
    before=WORDS,
    after=WORDS,
    price=st.floats(0, 100).map(lambda x: round(x, 3)),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_file_comes_back_or_is_refused(before: str, after: str, price: float, layout: Callable[[Any], str]) -> None:
    row = f"answer-1 | ${price!r} | $3 | 5s"
    tools = [TOOLS[0], function("answer", f"{before}\n{HEADER}\n{row}\n{after}"), TOOLS[2]]
    text = layout(tools)
    try:
        catalog, template = import_tools(text, "tools.json")
    except ConfigError as error:
        assert str(error).startswith("tools.json: ")
    else:
        assert fill(template, catalog) == text
        assert tomllib.loads(write_catalog(catalog, template))["functions"] == template


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is no JSON"),
        ("[" * 10_000, "it is no JSON"),
        ('{"tools": []}', "it holds no list"),
        ("[]", "it has no functions"),
        (json.dumps(TOOLS[:2]), "it has the functions enhance_reasoning, answer"),
        (json.dumps([*TOOLS, TOOLS[0]]), "it has the functions"),
        (changed("0.function.name", "reason"), "it has the functions reason, answer, search"),
        (changed("0.function", ...), "function: field required"),
        (changed("1.function.parameters.properties.model", ...), "a function has no parameter model"),
        (
            changed("1.function.parameters.properties.model.description", 3),
            "description: input should be a valid string",
        ),
        (
            changed("1.function.parameters.properties.model.description", "expert-1"),
            "the experts of answer have no table",
        ),
        (
            changed("1.function.parameters.properties.model.description", f"{HEADER}\nanswer-1 | 3 | 4 | 5"),
            "the experts of answer have no table",
        ),
        (
            changed("1.function.parameters.properties.model.description", f"{REASON} "),
            "reasoner-1 has two rows",
        ),
        (
            changed("1.function.parameters.properties.model.description", f"{HEADER}\nanswer-1 | $0.80 | $1 | 5s"),
            "it would not be written back as it is",
        ),
        (
            changed("1.function.parameters.properties.model.description", f"{HEADER}\nrouter | $1 | $1 | 5s"),
            "the row 'router | $1 | $1 | 5s': value error, name 'router' is reserved",
        ),
        (TEXT.replace("Who reasons", "\\u0057ho reasons"), "is escaped in another way"),
    ],
)
def test_another_layout_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_tools(text, "tools.json")
    said = str(caught.value)
    assert said.startswith("tools.json: ")
    assert words in said
    assert said.endswith("fix: write the catalog by hand, as orchestra_graph/catalogs/nemotron.toml is")
    assert "\n" not in said


def test_a_catalog_is_written_as_it_is_read(tmp_path: Path) -> None:
    catalog = Catalog.of(
        [
            ToolSpec(
                name="a-1",
                kind="search",
                description='says "ä"\n\\ and\x7f more',
                price=Price(per_call=0.01, cached_input=None),
                latency=Latency(p50=1, p95=2),
                limits=Limits(timeout=3, document_characters=None),
                parameters={
                    "type": "object",
                    "properties": {"the query": {"type": "string", "enum": ["a", "b"]}, "größe": {"type": "string"}},
                    "required": ["the query"],
                    "additionalProperties": False,
                },
                fallback=("b",),
                cache=True,
            ),
            ToolSpec(name="b", provider=None),
        ],
        router=ModelSpec(model="r", price=Price(input=1)),
    )
    file = tmp_path / "catalog.toml"
    file.write_text(write_catalog(catalog), encoding="utf-8")
    assert Catalog.from_toml(file) == catalog
    assert read_functions(file) is None


def test_a_catalog_file_may_hold_the_texts_of_functions(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text("version = 1\nfunctions = 3\n[tools.a]\n")
    with pytest.raises(
        ConfigError, match="line 2: functions = 3; expected a text, as orchestra catalog import writes it"
    ):
        Catalog.from_toml(file)


# The command.


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(command, [str(word) for word in words])


def test_import_and_render_give_the_file_back(tmp_path: Path) -> None:
    tools, catalog, again = tmp_path / "tools.json", tmp_path / "catalog.toml", tmp_path / "again.json"
    tools.write_bytes(TEXT.encode())
    assert run("import", tools, "--out", catalog).exit_code == 0
    assert run("import", tools).stdout_bytes == catalog.read_bytes()
    assert run("render", catalog).stdout_bytes == tools.read_bytes()
    assert run("render", catalog, "--out", again).exit_code == 0
    assert again.read_bytes() == tools.read_bytes()


def test_a_catalog_without_texts_is_rendered_in_our_own(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text(write_catalog(nemotron_catalog()), encoding="utf-8")
    assert run("render", file).stdout == fill(FUNCTIONS, nemotron_catalog())


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    with pytest.raises(ConfigError, match=r"tools.json: cannot be read .*; expected the tools.json of a release"):
        raise run("import", tools).exception
    tools.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        raise run("import", tools).exception
    tools.write_bytes(TEXT.encode())
    with pytest.raises(ConfigError, match="cannot be written"):
        raise run("import", tools, "--out", tmp_path / "no" / "catalog.toml").exception
