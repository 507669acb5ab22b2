"""What a call's tool is shown of the run: findings that fit, or what the protocol wrote for it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, ClassVar

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from orchestra_graph.catalog import Catalog, Limits, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.evidence import findings
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.turns import Decision


def turn(index: int, content: str, *, error: bool = False) -> Any:
    call = {"id": f"t-{index}-0", "tool": "search", "args": {"n": index}}
    outcome = {"content": content, "error": error}
    decision = {"calls": [call], "reason": "", "by": "router"}
    return {"id": f"t-{index}", "index": index, "decision": decision, "charges": {}, "outcomes": {call["id"]: outcome}}


def after(*turns: Any) -> Situation:
    catalog = Catalog.of([ToolSpec(name="search", kind="search")])
    return Situation("?", catalog, Preferences(), Budget(), {t["id"]: t for t in turns})


def test_evidence_is_the_newest_that_fits_oldest_first_without_errors() -> None:
    situation = after(*(turn(n, str(n) * 30, error=n == 2) for n in range(4)))
    found = findings(situation, ToolSpec(name="expert", limits=Limits(context_tokens=16)))
    assert [(f["args"]["n"], f["content"]) for f in found] == [(1, "1" * 30), (3, "3" * 30)]
    assert {f["kind"] for f in found} == {"search"}


def test_evidence_of_one_long_result_is_cut_to_the_context() -> None:
    spec = ToolSpec(name="expert", limits=Limits(context_tokens=5))
    content = findings(after(turn(0, "x" * 100)), spec)[0]["content"]
    assert content.count("x") == 20
    assert "80 of 100 characters cut" in content


# What a protocol may say beside the view.


class Reader(Tool):
    """Keeps what it was sent."""

    reads_evidence = True

    def __init__(self, name: str, *, terminal: bool = False) -> None:
        self.spec = ToolSpec(name=name, kind="expert", terminal=terminal)
        self.requests: list[Request] = []

    async def run(self, request: Request) -> Result:
        self.requests.append(request)
        return Result("read", answer="done" if self.spec.terminal else None)


class Briefing(Protocol):
    """Asks the router once, decides the second turn by itself, and writes what tools read."""

    name: ClassVar[str] = "briefing"

    def __init__(self, *, blocks: bool) -> None:
        self.blocks = blocks
        self.on_loop: list[bool] = []

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        self._note()
        if situation.turns:
            call_id = f"{situation.turn_id}-0"
            return {"calls": [{"id": call_id, "tool": "last", "args": {}}], "reason": "", "by": "expert"}
        inner = ConversationProtocol()
        decision: Decision = yield from inner.decide(situation)
        return decision

    def check(self, catalog: Catalog) -> None:
        if "last" not in catalog.tools:
            raise ConfigError("the catalog has no tool 'last'; add it")

    def brief(self, situation: Situation, spec: ToolSpec) -> list[dict[str, Any]] | None:
        self._note()
        return [{"role": "user", "content": f"{spec.name} after {len(situation.turns)}"}]

    def transcript(self, situation: Situation, answer: str) -> list[BaseMessage]:
        return [AIMessage(f"{len(situation.turns)} turns"), AIMessage(answer)]

    def _note(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.on_loop.append(False)
        else:
            self.on_loop.append(True)


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_protocol_may_decide_without_the_router_brief_tools_and_leave_a_transcript(blocks: bool) -> None:
    first, last = Reader("first"), Reader("last", terminal=True)
    protocol = Briefing(blocks=blocks)
    router = ScriptedRouter([("first", {})])
    graph = create_orchestrator(router, [first, last], protocol=protocol).compile()
    state = await graph.ainvoke({"messages": [HumanMessage("?", id="q")]})
    assert first.requests[0].brief == [{"role": "user", "content": "first after 0"}]
    assert last.requests[0].brief == [{"role": "user", "content": "last after 1"}]
    assert [turn["decision"]["by"] for turn in state["turns"].values()] == ["router", "expert"]
    assert [list(turn["charges"]) for turn in state["turns"].values()][1] == [f"{list(state['turns'])[1]}-0#0"]
    assert [message.text for message in state["messages"]] == ["?", "2 turns", "done"]
    assert set(protocol.on_loop) == {not blocks}


def test_a_catalog_that_the_protocol_cannot_speak_of_is_refused() -> None:
    with pytest.raises(ConfigError, match="no tool 'last'"):
        create_orchestrator(ScriptedRouter([]), [Reader("first")], protocol=Briefing(blocks=False))
