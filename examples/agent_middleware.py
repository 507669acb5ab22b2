"""`create_agent` with a router that picks the model of each step, offline: python examples/agent_middleware.py"""

from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from orchestra_graph import Budget, Catalog, Expert, Price, Rules, ToolSpec
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.testing import ScriptedRouter

HOURS = {"Bern": "9 to 17", "Basel": "10 to 18"}


def opening_hours(city: str) -> str:
    """Look up when the shop in a city is open."""
    return HOURS.get(city, "no shop there")


def step(messages: list[BaseMessage]) -> AIMessage:
    """A scripted stand-in for a model that calls tools; any chat model goes in its place."""
    results = [message.text for message in messages if isinstance(message, ToolMessage)]
    if results:
        return AIMessage(f"The shop in Bern is open from {results[0]}.")
    return AIMessage("", tool_calls=[{"name": "opening_hours", "args": {"city": "Bern"}, "id": "1"}])


def down(messages: list[BaseMessage]) -> Exception:
    """A provider that is not there."""
    return ConnectionError("down")


small = Expert(ScriptedRouter(step), name="small", description="A small assistant.", price=Price(input=0.1, output=0.4))
large = Expert(ScriptedRouter(down), name="large", description="Knows everything.", price=Price(input=5.0, output=25.0))
orchestra = OrchestraMiddleware(
    Rules(),  # any chat model that calls tools, for example ChatVLLM(...)
    [small, large],
    catalog=Catalog.of([ToolSpec(name="opening_hours", price=Price(per_call=0.001))]),
    budget=Budget(dollars=0.01),
)
agent = create_agent(
    ScriptedRouter(step), [opening_hours], middleware=[ModelFallbackMiddleware(ScriptedRouter(step)), orchestra]
)

state = agent.invoke({"messages": [("user", "When is the shop in Bern open?")]})
for turn in state["turns"].values():
    for call in turn["decision"]["calls"]:
        print(f"{turn['decision']['by']} chose {call['tool']}: {turn['outcomes'][call['id']]['content']}")
print(f"{state['messages'][-1].text} ({state['stopped_by']}, ${state['ledger']['dollars']:.6f})")
for name, account in state["ledger"]["tools"].items():
    print(f"  {name}: {account['calls']} calls, ${account['dollars']:.6f}")
