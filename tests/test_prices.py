from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime, tzinfo

import pytest

from orchestra_graph import prices
from orchestra_graph.catalog import Catalog, ModelSpec, Price, ToolSpec
from orchestra_graph.prices import known_price, with_known_prices


def test_a_known_model_has_the_librarys_price() -> None:
    assert known_price("gpt-5") == Price(input=1.25, cached_input=0.125, output=10.0, source="genai-prices")


def test_a_price_with_tiers_gives_its_base() -> None:
    price = known_price("gemini-2.5-pro", provider="google")
    assert price is not None
    assert (price.input, price.output) == (1.25, 10.0)


def test_the_address_names_the_provider() -> None:
    assert known_price("gpt-5", base_url="https://api.openai.com/v1") == known_price("gpt-5", provider="openai")


@pytest.mark.parametrize(
    ("model", "provider", "base_url"),
    [
        ("no-such-model", None, None),
        ("gpt-5", "no-such-provider", None),
        ("gpt-5", None, "http://localhost:8000/v1"),
        ("", None, None),
    ],
)
def test_what_the_library_does_not_know_has_no_price(model: str, provider: str | None, base_url: str | None) -> None:
    assert known_price(model, provider=provider, base_url=base_url) is None


def test_only_missing_prices_of_known_models_are_filled_in() -> None:
    own = Price(input=7, source="catalog")
    catalog = Catalog.of(
        [
            ToolSpec(name="known", model="gpt-5-mini"),
            ToolSpec(name="own", model="gpt-5-mini", price=own),
            ToolSpec(name="free", model="gpt-5-mini", price=Price()),
            ToolSpec(name="unknown", model="no-such-model"),
            ToolSpec(name="plain"),
        ],
        router=ModelSpec(model="gpt-5"),
    )
    filled = with_known_prices(catalog)
    sources = {name: spec.price.source for name, spec in filled.tools.items()}
    assert sources == {
        "known": "genai-prices",
        "own": "catalog",
        "free": "catalog",
        "unknown": "unknown",
        "plain": "unknown",
    }
    assert filled.tools["own"].price == own
    assert filled.router.price.input == 1.25
    assert catalog.tools["known"].price.source == "unknown"
    assert with_known_prices(filled) == filled


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert known_price("claude-opus-4-1") is not None


@pytest.mark.slow
def test_the_catalog_does_not_load_the_price_table() -> None:
    code = "import sys, orchestra_graph.catalog, orchestra_graph.catalog_file; print('genai_prices' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


def test_a_price_by_the_hour_is_the_dearest_at_any_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter((3, 10, 20))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2025, 6, 1, next(hours), tzinfo=UTC)

    monkeypatch.setattr(prices, "datetime", Clock)
    seen = [known_price("deepseek-chat", provider="deepseek") for _ in range(3)]
    assert seen[0] is not None
    assert seen == [seen[0]] * 3
    assert (seen[0].input, seen[0].output) == (0.27, 1.1)
