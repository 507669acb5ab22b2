"""The process that is killed: a graph of several turns, calls side by side, nested orchestrators, and a run log.

    python -m tests.integration.victim        # then one job a line on standard input, as JSON

Every job runs in a process of its own, forked from this one, which has everything imported: otherwise most of a
victim's life would be imports. Prints the id of that process when it is there, and its exit status when it has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from orchestra_graph.catalog import NO_PARAMETERS, Catalog, Limits, ModelSpec, Price
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.meter import current_meter
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import REQUEST_PARAMETERS, Subgraph
from tests.integration.biller import HEADER, USAGE, value_of

PRICE = Price(input=1.0, output=10.0)
DOLLARS = PRICE.dollars(input_tokens=USAGE.prompt, output_tokens=USAGE.completion)
"""Of one request."""
LIMITS = Limits(timeout=20.0, retries=5, output_tokens=500)

Ending = Literal["by the router", "by a tool", "by closing"]
Durability = Literal["sync", "async", "exit"]


@dataclass(frozen=True)
class Job:
    """One process's work: ask the question, or go on where an earlier process was killed."""

    thread: str
    store: str
    """A file of SQLite, or the connection string of PostgreSQL."""
    provider: str
    """Its base URL."""
    log: str
    ending: Ending
    inner_log: str | None
    """Log of the nested orchestrator, where it has one of its own."""
    durability: Durability = "sync"

    @property
    def config(self) -> Any:
        return {"configurable": {"thread_id": self.thread}}

    @property
    def question(self) -> Any:
        return {"messages": [HumanMessage(f"What are the values? The answer comes {self.ending}.")]}

    @property
    def context(self) -> Any:
        """Four turns leave none for an answer: the run is closed."""
        return {"budget": {"turns": 4}} if self.ending == "by closing" else {}


def saver_of(store: str) -> AbstractAsyncContextManager[AsyncPostgresSaver | AsyncSqliteSaver]:
    """The checkpointer of a store."""
    kind = AsyncPostgresSaver if store.startswith("postgresql:") else AsyncSqliteSaver
    return kind.from_conn_string(store)


def prepare(store: str) -> None:
    """Make the tables of a store, once."""

    async def make() -> None:
        async with saver_of(store) as saver:
            await saver.setup()

    asyncio.run(make())


def look_up(word: str) -> str:
    """Look a word up, for nothing."""
    return value_of(word)


class _Models:
    """Chat models of the provider; each request says in a header which attempt it is."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.AsyncClient(event_hooks={"request": [_stamp]}, verify=False)
        self._base_url = base_url
        self._sync_client = httpx.Client(verify=False)

    def chat(self, name: str) -> ChatOpenAI:
        return ChatOpenAI(
            model=name,
            base_url=self._base_url,
            api_key="none",
            max_retries=0,
            http_client=self._sync_client,
            http_async_client=self._client,
        )

    def expert(self, name: str, **options: Any) -> Expert:
        options = {"role": "chat", "parameters": REQUEST_PARAMETERS, **options}
        return Expert(self.chat(name), name=name, price=PRICE, limits=LIMITS, **options)


async def _stamp(request: httpx.Request) -> None:
    meter = current_meter()
    assert meter is not None
    request.headers[HEADER] = f"{meter.call_id}#{meter.next_try - 1}"


def build(job: Job) -> Any:
    """The graph, not yet compiled."""
    models = _Models(job.provider)

    def router(name: str) -> Any:
        return Catalog.of([], router=ModelSpec(model=name, price=PRICE, limits=LIMITS))

    inner = create_orchestrator(
        models.chat("inner"),
        [models.expert("solver")],
        catalog=router("inner"),
        run_log=RunLog(job.inner_log) if job.inner_log else None,
    )
    nested = Subgraph(inner.compile(name="inner"), limits=LIMITS)
    tools: list[Any] = [models.expert("expert"), look_up, nested]
    if job.ending != "by the router":  # which answers by itself where no tool does
        tools.append(models.expert("closer", role="answer", parameters=NO_PARAMETERS))
    return create_orchestrator(
        models.chat("router"),
        tools,
        catalog=router("router"),
        run_log=RunLog(job.log),
    )


async def live(job: Job) -> None:
    """Ask, or go on: a checkpoint is all that it takes to go on, whatever `next` says."""
    async with saver_of(job.store) as saver:
        graph = build(job).compile(checkpointer=saver)
        has_begun = await saver.aget_tuple(job.config) is not None
        await graph.ainvoke(
            None if has_begun else job.question, job.config, context=job.context, durability=job.durability
        )


def main() -> None:
    """Fork a process for each job."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_run(Job(**json.loads(line))))
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def _run(job: Job) -> int:
    try:
        asyncio.run(live(job))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def dump(job: Job) -> str:
    """A job as a line."""
    return json.dumps(asdict(job)) + "\n"


REPOSITORY = Path(__file__).parents[2]

if __name__ == "__main__":
    main()
