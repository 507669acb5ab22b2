"""Prices of known models, from the table that the `genai-prices` library ships.

A price that a catalog states always stands. The table is the installed library's own: nothing is fetched. Where a
provider charges more above some prompt length, the base price is taken; where it charges by the hour of the day, the
dearest: a catalog does not change with the hour at which it is read. Audio, images and cache writes are left out.

Loading the table takes about 0.1 s, so whoever needs this module imports it when it is needed, not at the top.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from genai_prices import Usage, calc_price
from genai_prices.types import ModelInfo, TieredPrices, TimeOfDateConstraint

from orchestra_graph.catalog import Catalog, ModelSpec, Price

_Spec = TypeVar("_Spec", bound=ModelSpec)


def known_price(model: str, *, provider: str | None = None, base_url: str | None = None) -> Price | None:
    """Look a model's price up.

    Args:
        model: Name at the provider.
        provider: Provider as the library knows it; found by model where None.
        base_url: The server's address, which names the provider where `provider` is None. A server that the library
            does not know, for example one's own, has no known price.

    Returns:
        The price, marked `genai-prices`, or None where the table has none for text tokens or requests.
    """
    usage = Usage(input_tokens=0, output_tokens=0)
    try:
        if provider is None and base_url is not None:
            found = calc_price(usage, model, provider_api_url=base_url)
        else:
            found = calc_price(usage, model, provider_id=provider)
    except LookupError:
        return None
    price = _dearest(found.model)
    if not price.keys() & {"input_mtok", "output_mtok", "requests_kcount"}:
        return None
    cached = price.get("cache_read_mtok")
    return Price(
        input=_base(price.get("input_mtok")),
        cached_input=None if cached is None else _base(cached),
        output=_base(price.get("output_mtok")),
        per_call=_base(price.get("requests_kcount")) / 1000,
        source="genai-prices",
    )


def with_known_prices(catalog: Catalog) -> Catalog:
    """Fill in the prices that the catalog leaves out, of the router and of each tool that names its model.

    Models that the table does not have keep the source `unknown`. Calling it again changes nothing.
    """
    tools = {name: _priced(spec) for name, spec in catalog.tools.items()}
    return Catalog(tools=tools, router=_priced(catalog.router))


def _priced(spec: _Spec) -> _Spec:
    if spec.model is None or spec.price.source != "unknown":
        return spec
    price = known_price(spec.model, provider=spec.provider, base_url=spec.base_url)
    return spec if price is None else spec.model_copy(update={"price": price})


def _dearest(model: ModelInfo) -> dict[str, Any]:
    """What a model costs today, in its dearest half hour."""
    now = datetime.now(UTC)
    moments = [now]
    if isinstance(model.prices, list) and any(isinstance(p.constraint, TimeOfDateConstraint) for p in model.prices):
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        moments = [midnight + timedelta(minutes=30 * n) for n in range(48)]
    prices: list[dict[str, Any]] = [vars(model.get_prices(moment)) for moment in moments]
    return max(prices, key=lambda price: _base(price.get("input_mtok")) + _base(price.get("output_mtok")))


def _base(price: Decimal | TieredPrices | None) -> float:
    if price is None:
        return 0.0
    return float(price.base if isinstance(price, TieredPrices) else price)
