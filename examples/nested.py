"""An orchestrator whose tools are orchestrators: one ledger, budget and line in the log: python examples/nested.py"""

from pathlib import Path

from orchestra_graph import Budget, Expert, Price, RunLog, Subgraph, create_orchestrator
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter

FOUNDED = {"Bern": "1191", "Basel": "before 237"}


def look_up(city: str) -> str:
    """Look up when a city was founded."""
    return FOUNDED[city]


# Scripted stand-ins; ChatOpenAI(...) or any other chat model goes in the place of each.
clerk = Expert(
    ScriptedExpert("<answer>Bern in 1191, Basel before 237.</answer>"), name="clerk", price=Price(per_call=0.001)
)
both = [("look_up", {"city": city}) for city in FOUNDED]
historian = create_orchestrator(ScriptedRouter([both, ("clerk", {})]), [look_up, clerk]).compile(name="historian")

writer = Expert(ScriptedExpert("<answer>Basel is older.</answer>"), name="writer", price=Price(per_call=0.02))
editor = create_orchestrator(ScriptedRouter([("writer", {})]), [writer]).compile(name="editor")

log = RunLog("nested.jsonl")
history = ("historian", {"request": "When were Bern and Basel founded?"})
advice = ("editor", {"request": "Bern was founded in 1191, Basel before 237. Which city is older?"})
graph = create_orchestrator(
    ScriptedRouter([history, advice]),
    [Subgraph(historian), Subgraph(editor, terminal=True)],
    budget=Budget(dollars=0.05),
    run_log=log,
).compile()

state = graph.invoke({"messages": [("user", "Which city is older, Bern or Basel?")]})
print(f"answer: {state['answer']}")
for name, totals in state["ledger"]["tools"].items():
    print(f"  {name}: {totals['attempts']} attempts, ${totals['dollars']:.3f}")
print(f"in all: ${state['ledger']['dollars']:.3f}")

(run,) = read_runs(log.path)
for nested in run.runs.values():
    print(f"inside call {nested.parent}: {len(nested.turns)} turns, {nested.answer}")
Path(log.path).unlink()
