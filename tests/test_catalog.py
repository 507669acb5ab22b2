from __future__ import annotations

import http.server
import threading
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestra_graph.catalog import Catalog, Latency, Measured, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import ConfigError

QUERY = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


def example() -> Catalog:
    return Catalog.of(
        [
            ToolSpec(name="search", kind="search", parameters=QUERY, price=Price(per_call=0.01)),
            ToolSpec(name="small", kind="expert", terminal=True, price=Price(input=0.2, output=0.2)),
            ToolSpec(name="large", kind="expert", terminal=True, fallback=("small", "search"), price=Price(input=1.25)),
        ],
        router=ModelSpec(price=Price(input=0.1, output=0.1)),
    )


def test_price_adds_up_all_elements() -> None:
    price = Price(input=1, cached_input=0.1, output=10, per_call=0.5, per_second=0.01)
    dollars = price.dollars(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000, calls=2, seconds=3)
    assert dollars == pytest.approx(0.6 + 0.04 + 1.0 + 1.0 + 0.03)


def test_cached_tokens_cost_the_input_price_where_no_other_is_stated() -> None:
    assert Price(input=2).dollars(input_tokens=1_000_000, cached_tokens=500_000) == 2.0
    assert Price(input=2, cached_input=0).dollars(input_tokens=1_000_000, cached_tokens=500_000) == 1.0


@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_more_tokens_never_cost_less(input: float, output: float, tokens: int, more: int, written: int) -> None:
    price = Price(input=input, output=output)
    least = price.dollars(input_tokens=tokens, output_tokens=written)
    assert 0 <= least <= price.dollars(input_tokens=tokens + more, output_tokens=written)


@pytest.mark.parametrize("field", ["input", "cached_input", "output", "per_call", "per_second"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_a_wrong_price_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        Price.model_validate({field: value})


def test_p95_is_not_below_p50() -> None:
    assert Latency(p50=3).p95 == 0
    with pytest.raises(ValidationError, match="p95 = 1 is below p50 = 2"):
        Latency(p50=2, p95=1)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 65, "a\n", "router"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        ToolSpec(name=name)


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 64])
def test_a_good_name_is_taken(name: str) -> None:
    assert ToolSpec(name=name).name == name


@pytest.mark.parametrize("schema", [{}, {"type": "string"}, {"type": "object", "properties": {"q": {"type": "strin"}}}])
def test_parameters_are_a_schema_of_an_object(schema: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="parameters"):
        ToolSpec(name="a", parameters=schema)


def test_a_schema_is_never_fetched() -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/schema.json"
            with pytest.raises(ValidationError, match="not fetched"):
                ToolSpec(name="a", parameters={"type": "object", "properties": {"q": {"$ref": url}}})
        finally:
            server.shutdown()
            thread.join()
    assert asked == []


def test_the_validator_checks_arguments() -> None:
    validator = example().tools["search"].validator
    assert validator.is_valid({"query": "x"})
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate({})


def test_least_dollars_sends_the_prompt_and_writes_one_token() -> None:
    spec = ToolSpec(name="a", price=Price(input=1, output=2, per_call=0.5))
    assert spec.least_dollars(1_000_000) == pytest.approx(1.5 + 2e-6)


def test_a_fallback_must_be_a_tool() -> None:
    with pytest.raises(ValidationError, match="fallback 'b' is no tool"):
        Catalog.of([ToolSpec(name="a", fallback=("b",))])


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two tools are named 'a'"):
        Catalog.of([ToolSpec(name="a"), ToolSpec(name="a")])


def test_a_tool_is_stored_under_its_own_name() -> None:
    with pytest.raises(ValidationError, match="another name"):
        Catalog(tools={"b": ToolSpec(name="a")})


def test_restrict_keeps_order_and_drops_fallbacks_to_others() -> None:
    catalog = example()
    kept = catalog.restrict(["large", "search"])
    assert list(kept.tools) == ["search", "large"]
    assert kept.tools["large"].fallback == ("search",)
    assert kept.router == catalog.router
    assert catalog == example()


def test_reprice_changes_the_named_prices_only() -> None:
    catalog = example()
    new = catalog.reprice({"small": Price(input=9)})
    assert new.tools["small"].price.input == 9
    assert new.tools["large"] == catalog.tools["large"]
    assert catalog == example()


def test_rename_swaps_names_and_fallbacks_follow() -> None:
    renamed = example().rename({"small": "large", "large": "small"})
    assert list(renamed.tools) == ["search", "large", "small"]
    assert renamed.tools["small"].fallback == ("large", "search")
    assert renamed.rename({"small": "large", "large": "small"}) == example()


def test_rename_refuses_a_name_that_is_taken() -> None:
    with pytest.raises(ConfigError, match="two tools are named 'search'"):
        example().rename({"small": "search"})


@pytest.mark.parametrize(
    "change",
    [
        lambda catalog: catalog.restrict(["nope"]),
        lambda catalog: catalog.reprice({"nope": Price()}),
        lambda catalog: catalog.rename({"nope": "x"}),
    ],
)
def test_an_unknown_tool_is_named_with_what_was_expected(change: Any) -> None:
    with pytest.raises(ConfigError, match="'nope': no such tool; expected one of search, small, large"):
        change(example())


def test_latency_is_measured_once_enough_calls_were() -> None:
    measured = example().with_measured_latency({"search": [1.0] * 10 + [3.0] * 10, "small": [5.0], "gone": [1.0] * 50})
    assert measured.tools["search"].latency == Latency(p50=2.0, p95=3.0, source="measured")
    assert measured.tools["small"].latency == example().tools["small"].latency


def test_the_hash_follows_content() -> None:
    catalog = example()
    assert catalog.hash == example().hash
    assert catalog.hash != catalog.reprice({"small": Price(input=9)}).hash
    assert catalog.hash != catalog.restrict(["small"]).hash
    assert len(catalog.hash) == 64


def test_a_line_that_was_never_measured_says_nothing_of_it() -> None:
    """Hashes in logs stay what they were."""
    assert "measured" not in ToolSpec(name="a").model_dump(mode="json")
    measured = ToolSpec(name="a", measured=Measured(tasks=3, dollars=0.1))
    assert Catalog.of([measured]).hash != Catalog.of([ToolSpec(name="a")]).hash
    assert ToolSpec.model_validate(measured.model_dump(mode="json")) == measured


def test_terminals() -> None:
    assert example().terminals == ("small", "large")


def test_from_toml_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text("version = 1\n[tools.a]\n")
    assert Catalog.from_toml(str(file)) == Catalog.of([ToolSpec(name="a")])


def test_wrong_arguments_of_changes_are_named() -> None:
    catalog = Catalog.of([ToolSpec(name="a")])
    with pytest.raises(ConfigError, match=r"restrict\('a'\): expected a list"):
        catalog.restrict("a")
    with pytest.raises(ConfigError, match=r"'no name' cannot be a tool's name"):
        catalog.rename({"a": "no name"})
    with pytest.raises(ConfigError, match=r"'router' cannot be a tool's name"):
        catalog.rename({"a": "router"})
    with pytest.raises(ConfigError, match=r"the price of a = 0.5; expected Price\("):
        catalog.reprice({"a": 0.5})  # type: ignore[dict-item]


def test_a_line_with_a_longer_latency_than_the_tools_own_leaves_its_p95_out() -> None:
    own = ToolSpec(name="t", latency=Latency(p50=1, p95=2))
    line = ToolSpec.model_validate({"name": "t", "latency": {"p50": 5}})
    assert line.completed_by(own).latency == Latency(p50=5)
    quicker = ToolSpec.model_validate({"name": "t", "latency": {"p50": 1.5}})
    assert quicker.completed_by(own).latency == Latency(p50=1.5, p95=2)
