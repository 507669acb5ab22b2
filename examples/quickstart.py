"""A router over functions and experts of your own, offline: python examples/quickstart.py"""

from orchestra_graph import Budget, Expert, Preferences, Price, Rules, create_orchestrator
from orchestra_graph.testing import ScriptedExpert

OPENING_HOURS = {"Bern": "9 to 17", "Basel": "10 to 18"}


def look_up_opening_hours(city: str) -> str:
    """Look up when the shop in a city is open."""
    found = [f"{name}: {hours}" for name, hours in OPENING_HOURS.items() if name in city]
    return "; ".join(found) or "no shop there"


# Scripted stand-ins; ChatOpenAI(...) or any other chat model goes here.
small = ScriptedExpert(lambda prompt: "<answer>9 to 17</answer>" if "Bern: 9 to 17" in prompt else "I do not know.")
large = ScriptedExpert("<answer>I would have to guess.</answer>")

graph = create_orchestrator(
    Rules(),
    [
        look_up_opening_hours,
        Expert(small, name="small", description="Reads documents.", price=Price(input=0.1, output=0.4)),
        Expert(large, name="large", description="Knows a lot.", price=Price(input=5.0, output=25.0)),
    ],
    preferences=Preferences(cost=1.0, text="keep it cheap"),
    budget=Budget(dollars=0.01, seconds=30),
).compile()

state = graph.invoke({"messages": [("user", "When is the shop in Bern open?")]})
for turn in state["turns"].values():
    for call in turn["decision"]["calls"]:
        print(f"{call['tool']}: {turn['outcomes'][call['id']]['content']}")
print(f"answer: {state['answer']} for ${state['ledger']['dollars']:.6f}")
