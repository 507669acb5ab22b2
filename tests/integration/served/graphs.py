"""The graphs that the tests of `langgraph dev` serve: scripted, so that they need neither network nor key."""

from __future__ import annotations

from pathlib import Path

from orchestra_graph import Expert, Price, RunLog, Subgraph, create_orchestrator
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter


def look_up(city: str) -> str:
    """Look up when the shop in a city is open."""
    return f"{city}: 9 to 17"


def refund(amount: int) -> str:
    """Pay money back."""
    return f"paid {amount} back"


clerk = Expert(ScriptedExpert("<answer>9 to 17</answer>"), name="clerk", price=Price(per_call=0.25))

_finds = ScriptedRouter([("look_up", {"city": "Bern"}), ("clerk", {})], stateless=True)
plain = create_orchestrator(_finds, [look_up, clerk]).compile(name="plain")

_pays = ScriptedRouter([[("refund", {"amount": 5}), ("look_up", {"city": "Bern"})], ("clerk", {})], stateless=True)
careful = create_orchestrator(_pays, [look_up, refund, clerk], approve={"refund": True}).compile(name="careful")

_asks = ScriptedRouter([("plain", {"request": "When is the shop open?"})], stateless=True)
nested = create_orchestrator(_asks, [Subgraph(plain, terminal=True)]).compile(name="nested")

_log = RunLog(Path(__file__).with_name("runs.jsonl"))
logged = create_orchestrator(_asks, [Subgraph(plain, terminal=True)], run_log=_log).compile(name="logged")
