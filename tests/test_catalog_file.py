from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestra_graph
from orchestra_graph.catalog import Catalog, Latency, Limits, Measured, ModelSpec, Price, ToolSpec
from orchestra_graph.catalog_file import parse_catalog, read_catalog
from orchestra_graph.errors import CatalogError
from orchestra_graph.toml_lines import KeyLines
from tests.examples import examples

EXAMPLE = Path(orchestra_graph.__file__).parent / "catalogs" / "example.toml"


def problems(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, "catalog.toml")
    return caught.value.problems


def test_the_example_reads() -> None:
    catalog = read_catalog(EXAMPLE)
    assert list(catalog.tools) == ["large", "local", "search", "run_python"]
    assert catalog.router.price == Price(input=0.25, cached_input=0.025, output=2.0, source="genai-prices")
    assert catalog.tools["large"].price == Price(input=1.25, cached_input=0.125, output=10.0)
    assert catalog.tools["large"].required == []
    assert catalog.tools["search"].required == ["query"]
    assert catalog.terminals == ("large", "local")


def test_the_example_shows_every_field_some_of_them_in_comments() -> None:
    text = re.sub(r"^# (?=\[[\w.]+\]$|\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert list(parse_catalog(text, "example.toml").tools)[-2:] == ["helper", "weather"]
    tables = list(tomllib.loads(text)["tools"].values())
    parts: Any = {"price": Price, "latency": Latency, "limits": Limits, "measured": Measured}
    shown = {key for table in tables for key in table}
    assert set(ToolSpec.model_fields) - shown == {"name"}
    for part, model in parts.items():
        shown = {key for table in tables for key in table.get(part, ())}
        assert set(model.model_fields) - shown <= {"source"}, part  # which is the programs' that write figures


def test_every_field_reads() -> None:
    catalog = parse_catalog(
        """
        version = 1
        [router]
        model = "own-router"
        price = { input = 1, output = 2 }
        [tools.a]
        kind = "expert"
        role = "code"
        description = "Writes code."
        model = "own-model"
        provider = "openai"
        base_url = "http://localhost:8000/v1"
        api_key_env = "MY_KEY"
        price = { input = 1, cached_input = 0, output = 10.5, per_call = 0.1, per_second = 0.2 }
        latency = { p50 = 3, p95 = 9 }
        limits = { timeout = 30, retries = 0, context_tokens = 1, result_tokens = 2, output_tokens = 3 }
        terminal = true
        fallback = ["b"]
        cache = true
        version = "2"
        path = "documents"
        target = "module:attribute"
        retrieval = { per_call = 0.008 }
        measured = { tasks = 10, success = 0.7, dollars = 0.003 }
        [tools.b]
        """,
        "catalog.toml",
    )
    assert catalog == Catalog.of(
        [
            ToolSpec(
                name="a",
                kind="expert",
                role="code",
                description="Writes code.",
                model="own-model",
                provider="openai",
                base_url="http://localhost:8000/v1",
                api_key_env="MY_KEY",
                price=Price(input=1, cached_input=0, output=10.5, per_call=0.1, per_second=0.2),
                latency=Latency(p50=3, p95=9),
                limits=Limits(timeout=30, retries=0, context_tokens=1, result_tokens=2, output_tokens=3),
                terminal=True,
                fallback=("b",),
                cache=True,
                version="2",
                path="documents",
                target="module:attribute",
                retrieval=Price(per_call=0.008),
                measured=Measured(tasks=10, success=0.7, dollars=0.003),
            ),
            ToolSpec(name="b"),
        ],
        router=ModelSpec(model="own-router", price=Price(input=1, output=2)),
    )


def test_a_price_that_is_left_out_is_looked_up_and_one_of_nothing_is_free() -> None:
    catalog = parse_catalog(
        'version = 1\n[tools.a]\nmodel = "gpt-5"\n[tools.b]\nmodel = "gpt-5"\nprice = {}\n[tools.c]\n', ""
    )
    assert [spec.price.source for spec in catalog.tools.values()] == ["genai-prices", "catalog", "unknown"]
    assert catalog.tools["b"].price.input == 0


def test_parameters_are_required_unless_they_say_otherwise() -> None:
    catalog = parse_catalog(
        """
        version = 1
        [tools.a.parameters]
        query = { type = "string", description = "What to look for", enum = ["a", "b"] }
        limit = { type = "integer", default = 5 }
        page = { type = "integer", default = 1, required = true }
        near = { type = "string", required = false }
        area = { type = "object", properties = { x = { type = "number" } }, required = ["x"] }
        """,
        "",
    )
    assert catalog.tools["a"].parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to look for", "enum": ["a", "b"]},
            "limit": {"type": "integer", "default": 5},
            "page": {"type": "integer", "default": 1},
            "near": {"type": "string"},
            "area": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
        },
        "required": ["query", "page", "area"],
        "additionalProperties": False,
    }


def test_a_json_schema_is_taken_as_it_is() -> None:
    catalog = parse_catalog(
        'version = 1\n[tools.a]\nparameters = { type = "object", properties = { q = { type = "string" } } }\n', ""
    )
    assert catalog.tools["a"].parameters == {"type": "object", "properties": {"q": {"type": "string"}}}


def test_the_longest_whole_numbers_are_hashed() -> None:
    line = "parameters.q = { type = 'integer', minimum = -9223372036854775808, maximum = 18446744073709551615 }"
    catalog = parse_catalog(f"version = 1\n[tools.a]\n{line}\nlimits.context_tokens = 1000000000000000\n", "c.toml")
    assert len(catalog.hash) == 64


def test_a_parameter_may_be_called_type() -> None:
    catalog = parse_catalog('version = 1\n[tools.a.parameters]\ntype = { type = "string" }\n', "")
    assert catalog.tools["a"].required == ["type"]


def test_four_mistakes_are_all_named() -> None:
    found = problems(
        """version = 1

[tools.search]
kind = "serach"
price = { per_call = -0.1 }

[tools.large]
pirce = { input = 1 }
fallback = ["serch"]
"""
    )
    assert found == [
        'line 4: tools.search.kind = "serach"; did you mean "search"? '
        "expected one of expert, function, search, code, graph, mcp, node",
        "line 5: tools.search.price.per_call = -0.1; expected a number of at least 0",
        'line 8: tools.large.pirce: unknown key; did you mean "price"?',
        'line 9: tools.large.fallback[0] = "serch" is no tool of this file; '
        'did you mean "search"? expected one of search',
    ]


def test_the_error_counts_and_names_the_file() -> None:
    with pytest.raises(CatalogError, match=r"catalog\.toml: 1 problem\n  line 1: version = 2; expected version = 1"):
        parse_catalog("version = 2\n[tools.a]\n", "catalog.toml")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('kind = "x"', 'kind = "x"; expected one of expert, function, search, code, graph, mcp, node'),
        ("kind = 3", "kind = 3; expected one of"),
        ("description = 3", "description = 3; expected a string"),
        ('terminal = "yes"', 'terminal = "yes"; expected true or false'),
        ("price = 3", "price = 3; expected a table"),
        ('price.input = "1"', 'price.input = "1"; expected a number'),
        ("price.input = true", "price.input = true; expected a number"),
        ("price.input = inf", "price.input = inf; expected a number"),
        ("measured.sucess = 1", 'measured.sucess: unknown key; did you mean "success"?'),
        (
            "measured.tasks = 100000000000000000000",
            "measured.tasks = a number of over 64 bits; expected a number of at",
        ),
        ("measured.tasks = -1", "measured.tasks = -1; expected a number of at least 0"),
        ("price.inputs = 1", 'price.inputs: unknown key; did you mean "input"? expected one of input, cached_input'),
        ("latency = { p50 = 9, p95 = 3 }", "latency: p95 = 3 is below p50 = 9"),
        ("latency.p50 = 2020-01-01", "latency.p50 = 2020-01-01; expected a number"),
        ("limits.retries = 2.5", "limits.retries = 2.5; expected a whole number"),
        ("limits.retries = 11", "limits.retries = 11; expected a number of at most 10"),
        (
            "limits.code_tokens = 2000000000000000",
            "limits.code_tokens = 2000000000000000; expected a number of at most",
        ),
        ("limits.timeout = 0", "limits.timeout = 0; expected a number above 0"),
        ('fallback = "b"', 'fallback = "b"; expected a list of strings'),
        ("fallback = [3]", "fallback[0] = 3; expected a string"),
        ('fallback = ["a"]', 'fallback[0] = "a"; expected a tool other than itself'),
        (
            'api_key_env = "my key"',
            "api_key_env (its value is not shown); expected the name of an environment variable",
        ),
        ('name = "b"', "name: unknown key; the header [tools.NAME] is the name"),
        ("version = 2", "version = 2; expected a string"),
        ("parameters = []", "parameters = a list; expected a table of parameters"),
        ('parameters = { q = "string" }', 'parameters.q = "string"; expected a table'),
        ('parameters.q = { type = "str" }', 'parameters.q.type = "str"; expected one of string, integer'),
        ('parameters.q = { tpye = "string" }', 'parameters.q.tpye: unknown key; did you mean "type"?'),
        ("parameters.q = { enum = 3 }", "parameters.q.enum is no JSON Schema: 3 is not of type"),
        ("parameters.q = { required = 1 }", "parameters.q.required = 1; expected true or false"),
        ("parameters.q = { default = nan }", "parameters.q.default = nan; expected a value of JSON"),
        ("parameters.q = { default = [1, 2020-01-01] }", "parameters.q.default[1] = 2020-01-01; expected a value of"),
        (
            "parameters.q = { maximum = 18446744073709551616 }",
            "parameters.q.maximum = a number of over 64 bits; expected",
        ),
        (
            "parameters.q = { minimum = -9223372036854775809 }",
            "parameters.q.minimum = -9223372036854775809; expected a",
        ),
        ('parameters = { type = "object", properties = 3 }', "parameters.properties is no JSON Schema: 3 is not of"),
    ],
)
def test_a_mistake_is_named_with_line_value_and_what_was_expected(line: str, expected: str) -> None:
    found = problems(f"version = 1\n[tools.a]\n# the next line is wrong\n{line}\n")
    assert len(found) == 1
    assert found[0].startswith(f"line 4: tools.a.{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["line 1: version is missing; expected version = 1", "line 1: no tools; expected a table [tools.NAME]"]),
        ("version = 1.0\n[tools.a]", ["line 1: version = 1.0; expected version = 1"]),
        ("version = true\n[tools.a]", ["line 1: version = true; expected version = 1"]),
        ("version = 1\ntools = 3", ["line 2: tools = 3; expected a table [tools.NAME]"]),
        ("version = 1\n[[tools]]\nkind = 'x'", ["line 2: tools = a list; expected a table [tools.NAME]"]),
        ("version = 1\ntools.a = 3", ["line 2: tools.a = 3; expected a table [tools.a]"]),
        ("version = 1\nrouter = 3\n[tools.a]", ["line 2: router = 3; expected a table [router]"]),
        ("version = 1\n[tool.a]", ['line 2: tool: unknown key; did you mean "tools"?']),
        ("version = 1\n[tools.'a b']", ['line 2: tool name "a b"; expected 1 to 64 letters, digits, _ or -']),
        ("version = 1\n[tools.router]", ['line 2: tool name "router" is reserved; rename the tool']),
        ("version = 1\n[router]\nterminal = true\n[tools.a]", ["line 3: router.terminal: unknown key"]),
        ("version = 1\n[tools.a]\nkind = \n", ["line 3: Invalid value; expected TOML"]),
        ("version = 1\n[tools.a]\n[tools.a]\n", ["line 3: Cannot declare ('tools', 'a') twice; expected TOML"]),
        ("version = 1\na = [\n", ["line 2: Invalid value; expected TOML"]),
        ("version = 0x" + "f" * 5000, ["line 1: version = a number of over 64 bits;", "line 1: no tools;"]),
        ("version = " + "9" * 5000, ["Exceeds the limit"]),
        ("version = " + "[" * 5000, ["nested too deeply"]),
    ],
)
def test_a_wrong_file_is_told_whole(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True)), found


def test_mistakes_of_several_tools_come_in_the_order_of_lines() -> None:
    found = problems("version = 1\n[tools.b]\nx = 1\n[router]\ny = 1\n[tools.'a.b']\nz = 1\n")
    assert [problem.partition(":")[0] for problem in found] == ["line 3", "line 5", "line 6", "line 7"]
    assert found[3].startswith('line 7: tools."a.b".z: unknown key')


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "sk-abcdefgh12345678"',
        'api_key = "anything"',
        'api_key_env = "sk-abcdefgh12345678"',
        'api_key_env = "AKIAABCDEFGH1234"',
        'description = "Bearer abcdefgh"',
        'base_url = "https://me:secret@host/v1"',
        'password = "hunter2"',
        'limits.auth_token = "abc"',
    ],
)
def test_a_secret_is_refused_and_never_shown(line: str) -> None:
    found = problems(f"version = 1\n[tools.a]\n{line}\n")
    assert len(found) == 1
    assert "put the name of an environment variable into api_key_env" in found[0]
    assert json.loads(line.partition(" = ")[2]) not in found[0]


def test_a_parameter_may_be_called_token() -> None:
    catalog = parse_catalog('version = 1\n[tools.a.parameters]\ntoken = { type = "string" }\n', "")
    assert catalog.tools["a"].required == ["token"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no such file"), (b"\xff\xfe", "byte 0 is not UTF-8"), ("folder", "cannot be read: Is a directory")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | str | None, expected: str) -> None:
    file = tmp_path / "catalog.toml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    with pytest.raises(CatalogError, match=expected) as caught:
        read_catalog(file)
    assert len(caught.value.problems) == 1
    assert str(file) in str(caught.value)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_bytes(b"\xef\xbb\xbfversion = 1\r\n[tools.a]\r\nkind = 'x'\r\n")
    with pytest.raises(CatalogError, match=r"line 3: tools\.a\.kind"):
        read_catalog(file)


LINES = '''# comment
version = 1
"a \\u0041.b" . c = """
[fake]
x = 1
""""" # [also.fake]
[tools."x.y"]  # [no]
p = { a = 1, b.c = [1,
  "]", # ]
  {d = "}"}, [[2],
  [3]]] }
'lit' = \'\'\'[no]
k = 3\'\'\'
[[list]]
x = "\\"[no]\\""
[list.sub]
y = 2
[[list]]
x = 2024-01-01 10:00:00
  [ tools . 'z' ]
q = ""
r = \'\'
last = 1'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("version",), 2),
        (("a A.b", "c"), 3),
        (("tools", "x.y"), 7),
        (("tools", "x.y", "p", "b", "c", 1), 9),
        (("tools", "x.y", "p", "b", "c", 2, "d"), 10),
        (("tools", "x.y", "p", "b", "c", 3, 1, 0), 11),
        (("tools", "x.y", "lit"), 12),
        (("list", 0, "x"), 15),
        (("list", 0, "sub", "y"), 17),
        (("list", 1), 18),
        (("list", 1, "x"), 19),
        (("tools", "z"), 20),
        (("tools", "z", "r"), 22),
        (("tools", "z", "last"), 23),
        (("tools", "z", "not there", "at all"), 20),
        (("fake",), 1),
        (("k",), 1),
        ((), 1),
    ],
)
def test_lines_of_keys(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(LINES)
    assert KeyLines(LINES).line(path) == line
    assert KeyLines(LINES.replace("\n", "\r\n")).line(path) == line


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def test_lines_of_an_empty_text() -> None:
    assert KeyLines("").line(("a",)) == 1


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
KEYS = st.one_of(st.text(alphabet="aZ09_-", min_size=1, max_size=6), TEXTS)
VALUES = st.one_of(
    TEXTS.map(_quoted),
    st.sampled_from(
        ['"""\n[a]\nb = \\""" ""\n"""""', "'''\n[d]\ne=1''''", "[\n1, # ]\n'['\n]", "{ f = 1, g = ']}' }", "1e3"]
    ),
)
TABLES = st.lists(
    st.tuples(KEYS, st.lists(st.tuples(KEYS, VALUES), unique_by=lambda pair: pair[0], max_size=4)),
    unique_by=lambda pair: pair[0],
    max_size=4,
)


@given(TABLES)
def test_each_key_is_found_on_its_line(tables: list[tuple[str, list[tuple[str, str]]]]) -> None:
    text = "# [top]\n"
    expected: dict[tuple[str | int, ...], int] = {}
    for table, pairs in tables:
        expected[(table,)] = text.count("\n") + 1
        text += f"[{_quoted(table)}]\n"
        for key, value in pairs:
            expected[(table, key)] = text.count("\n") + 1
            text += f"{_quoted(key)} = {value} # x = 1\n"
    tomllib.loads(text)
    lines = KeyLines(text)
    assert {path: lines.line(path) for path in expected} == expected


def test_wrong_files_never_raise_anything_else() -> None:
    fields = list(ToolSpec.model_fields)
    values: list[Any] = ["1", "-1", '"x"', "[]", "{}", "[{}]", "{ a = 1 }", "inf", "2020-01-01", "true", '["a", 1]']
    for field in [*fields, "price.input", "latency.p50", "limits.retries", "parameters.q", "parameters.q.type"]:
        for value in values:
            try:
                parse_catalog(f"version = 1\n[tools.a]\n{field} = {value}\n", "catalog.toml")
            except CatalogError as error:
                assert all(problem.startswith("line 3: ") for problem in error.problems), error


@settings(max_examples=examples(200))
@given(st.text(alphabet="ab.=[]{}\"'\\#\n 1,", max_size=40))
def test_any_text_is_a_catalog_or_one_error(text: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, "catalog.toml")
    assert caught.value.problems
