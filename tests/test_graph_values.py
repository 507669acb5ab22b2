"""What a graph makes of odd values, of prices stated in odd ways, and of a protocol whose server is away."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import RouterError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.protocols.base import Situation, View
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.turns import Decision
from tests.provider import ANSWERED, PRICE, Provider, RefusedError

QUESTION: Any = {"messages": [HumanMessage("What is 6 x 7?")]}


def expert() -> Expert:
    return Expert(ScriptedExpert("<answer>42</answer>"), name="expert")


async def test_half_a_character_in_a_wish_is_replaced() -> None:
    router = ScriptedRouter([("expert", {})])
    graph = create_orchestrator(router, [expert()]).compile()
    state = await graph.ainvoke(QUESTION, context={"preferences": {"text": "\ud83d cheap"}})
    assert state["answer"] == "42"
    assert "\ufffd cheap" in "".join(message.text for message in router.prompts[0])


async def test_a_row_of_a_data_set_is_kept_as_a_checkpoint_can_hold_it() -> None:
    row = {
        "id": "t",
        "numbers": numpy.arange(3),
        "count": numpy.int64(7),
        "image": b"\xff\xd8",
        "big": 2**70,
        "at": {3},
    }
    graph = create_orchestrator(ScriptedRouter([("expert", {})]), [expert()]).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke(QUESTION, config, context={"task": row})
    kept = (await graph.aget_state(config)).values["run"]["task"]
    assert (kept["id"], kept["numbers"], kept["count"], kept["big"]) == ("t", [0, 1, 2], 7, str(2**70))


async def test_a_row_of_plain_python_is_kept_as_json(tmp_path: Path) -> None:
    graph = create_orchestrator(ScriptedRouter([("expert", {})]), [expert()]).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke(
        QUESTION, config, context={"task": {"id": "t", "tags": {"a"}, "file": tmp_path, "raw": b"text"}}
    )
    kept = (await graph.aget_state(config)).values["run"]["task"]
    assert kept == {"id": "t", "tags": ["a"], "file": str(tmp_path), "raw": "text"}


async def test_results_with_integers_over_64_bits_are_kept_by_a_checkpoint() -> None:
    class Rows(Tool):
        spec = ToolSpec(name="rows", terminal=True)
        calls = 0

        async def run(self, request: Request) -> Result:
            self.calls += 1
            return Result("read", answer="read", artifacts=[{"id": 2**64 + 1}, {"id": 2**64 - 1}, {"id": -(2**63)}])

    rows = Rows()
    graph = create_orchestrator(ScriptedRouter([("rows", {})]), [rows]).compile(checkpointer=InMemorySaver())
    state = await graph.ainvoke(QUESTION, {"configurable": {"thread_id": "1"}})
    (turn,) = state["turns"].values()
    (outcome,) = turn["outcomes"].values()
    assert [row["id"] for row in outcome["artifacts"]] == [str(2**64 + 1), 2**64 - 1, -(2**63)]
    assert (state["answer"], rows.calls) == ("read", 1)


class Named(Provider):
    """Says which model it is, as clients do."""

    model: str = "m"


async def test_a_request_has_the_price_of_the_line_of_its_model_however_that_is_stated() -> None:
    line = ToolSpec(name="expert", kind="expert", model="m", price=Price(per_call=0.02))

    async def ask(question: str) -> str:
        """Ask the same model."""
        await Named().ainvoke(question)
        return "42"

    router = ScriptedRouter([("ask", {"question": "q"}), ("expert", {})])
    state = await create_orchestrator(router, [expert(), ask], catalog=Catalog.of([line])).compile().ainvoke(QUESTION)
    assert state["ledger"]["tools"]["ask"]["dollars"] == pytest.approx(0.02)


async def test_a_fallback_router_costs_what_the_line_of_its_model_says() -> None:
    line = ToolSpec(name="expert", kind="expert", model="m", price=PRICE, terminal=True)
    fallback, router = Named(calls=[("expert", {})]), ScriptedRouter(["no call"] * 3)
    graph = create_orchestrator(router, [expert()], catalog=Catalog.of([line]), fallback=fallback)
    state = await graph.compile().ainvoke(QUESTION)
    assert state["ledger"]["tools"]["fallback"]["dollars"] == pytest.approx(ANSWERED)


class Counting(ConversationProtocol):
    """Counts tokens on a server that is away for a while, or refuses for good."""

    def __init__(self, status: int, times: int) -> None:
        super().__init__()
        self.status, self.left = status, times

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        if self.left:
            self.left -= 1
            raise RouterError(f"/tokenize answered {self.status}") from RefusedError("no", self.status)
        return (yield from super().decide(situation))


async def test_a_protocol_whose_server_is_away_for_a_moment_ends_no_run() -> None:
    router = ScriptedRouter([("expert", {})])
    state = await create_orchestrator(router, [expert()], protocol=Counting(503, 1)).compile().ainvoke(QUESTION)
    problems = [turn["decision"].get("problem", {}).get("kind") for turn in state["turns"].values()]
    assert (state["answer"], problems) == ("42", ["router_error", None])
    refused = create_orchestrator(router, [expert()], protocol=Counting(404, 1)).compile()
    with pytest.raises(RouterError, match=r"^/tokenize answered 404"):
        await refused.ainvoke(QUESTION)
