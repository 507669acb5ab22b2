"""Agents for the tests of the middleware: models that keep books, a router that is paid, and a priced tool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatResult
from langchain_core.tools import tool
from pydantic import Field

from orchestra_graph.catalog import Catalog, ModelSpec, Price, ToolSpec
from orchestra_graph.middleware import OrchestraMiddleware
from tests.provider import Provider

State = dict[str, Any]
Mode = Literal["sync", "async"]
MODES: tuple[Mode, ...] = ("sync", "async")

PRICES = {
    "small": Price(input=1.0, output=10.0),
    "large": Price(input=10.0, output=100.0),
    "backup": Price(input=3.0, output=30.0),
    "router": Price(input=0.5, output=5.0),
}
SEARCH = 0.01
"""Dollars of one try of the tool."""


def cost(name: str) -> float:
    """Dollars of one answered request."""
    return PRICES[name].dollars(input_tokens=100, output_tokens=10)


class Model(Provider):
    """Calls `search` until there are as many results as it wants, then answers with its name."""

    model: str
    steps: int = 0
    forgets: bool = False
    """Counts its own replies, where results may be summed up before it has seen them all."""
    tool: str = "search"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        results = sum(isinstance(message, ToolMessage) for message in messages)
        done = self.books.requests if self.forgets else results
        self.calls = [(self.tool, {"query": f"q{done}"})] if done < self.steps else []
        self.text = "" if self.calls else f"answer of {self.model}"
        return super()._generate(messages)


class Router(Provider):
    """Chooses experts in order, the last one for ever; a plain text is no choice."""

    model: str = "router-model"
    choices: list[Any] = Field(default_factory=list)
    seen: list[list[BaseMessage]] = Field(default_factory=list)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.seen.append(messages)
        choice = self.choices[min(len(self.seen), len(self.choices)) - 1]
        name, args = choice if isinstance(choice, tuple) else (choice, {})
        self.calls, self.text = ([], name) if " " in name else ([(name, args)], "because")
        return super()._generate(messages)


searches: list[str] = []
"""Queries that reached the tool."""


@tool
def search(query: str) -> str:
    """Look something up."""
    searches.append(query)
    return f"result of {query}"


def catalog(**lines: Any) -> Catalog:
    """Prices of the router, the experts and the tool."""
    specs = [
        ToolSpec(
            name=name, kind="expert", model=name, price=price, description=f"the {name} one", **lines.get(name, {})
        )
        for name, price in PRICES.items()
        if name != "router"
    ]
    line = ToolSpec(name="search", price=Price(per_call=SEARCH))
    return Catalog.of([*specs, line], router=ModelSpec(model="router-model", price=PRICES["router"]))


class Bench:
    """Models with books, and agents made of them."""

    def __init__(self, *choices: Any, steps: int = 0, **scripts: Any) -> None:
        self.router = Router(choices=list(choices) or ["small"], script=scripts.get("router", []))
        self.models = {
            name: Model(model=name, steps=steps, script=list(scripts.get(name, [])))
            for name in ("small", "large", "backup")
        }
        self.default = Model(model="default")

    def middleware(self, *, fallbacks: dict[str, tuple[str, ...]] | None = None, **options: Any) -> OrchestraMiddleware:
        lines = {name: {"fallback": names} for name, names in (fallbacks or {}).items()}
        return OrchestraMiddleware(self.router, self.models, **{"catalog": catalog(**lines), **options})

    def agent(self, *others: AgentMiddleware[Any, Any, Any], first: bool = True, **options: Any) -> Any:
        """An agent with this middleware first or last among others; `build` holds what is `create_agent`'s."""
        build = options.pop("build", {})
        mine = options.pop("mine", None) or self.middleware(**options)
        middleware = [mine, *others] if first else [*others, mine]
        return create_agent(self.default, build.pop("tools", [search]), middleware=middleware, **build)

    @property
    def billed(self) -> dict[str, float]:
        """What each model's provider has been told of, in dollars."""
        books = {name: model.books.answered for name, model in self.models.items()}
        books["router"] = self.router.books.answered
        return {name: count * cost(name) for name, count in books.items() if count}


def run(agent: Any, mode: Mode, given: Any = "How many?", config: Any = None, **options: Any) -> State:
    """Run an agent on a question, or on another input."""
    if isinstance(given, str):
        given = {"messages": [HumanMessage(given)]}
    if mode == "sync":
        state: State = agent.invoke(given, config, **options)
        return state
    state = asyncio.run(agent.ainvoke(given, config, **options))
    return state


def ledger_of(state: State) -> dict[str, float]:
    """Dollars by name, of what cost any."""
    return {name: account["dollars"] for name, account in state["ledger"]["tools"].items() if account["dollars"]}


def decisions(state: State) -> list[tuple[str, list[str]]]:
    """Who decided each turn, and what it called."""
    turns: Sequence[Any] = list(state["turns"].values())
    return [(turn["decision"]["by"], [call["tool"] for call in turn["decision"]["calls"]]) for turn in turns]


def said(state: State) -> str:
    """The agent's answer."""
    message = state["messages"][-1]
    assert isinstance(message, AIMessage)
    return message.text


both = pytest.mark.parametrize("mode", MODES)
first_or_last = pytest.mark.parametrize("first", [True, False], ids=["first", "last"])


def in_any_order(test: Callable[..., Any]) -> Callable[..., Any]:
    """Ours before the other one and after it, sync and async."""
    ordered: Callable[..., Any] = both(first_or_last(test))
    return ordered


def books(state: dict[str, Any], bench: Bench, **more: float) -> None:
    """What the ledger says is what the models billed, and nothing else."""
    assert ledger_of(state) == pytest.approx({**bench.billed, **more})


def charges_of(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Of one tool, in all turns."""
    return [c for turn in state["turns"].values() for c in turn["charges"].values() if c["tool"] == name]
