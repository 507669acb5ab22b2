"""A router in a support graph that hands over to a person, offline: python examples/support_graph.py"""

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from orchestra_graph import Budget, Price, Rules, ToolSpec
from orchestra_graph.add_router import add_router
from orchestra_graph.testing import ScriptedExpert

# The graph as it was: a chatbot answers, and hands over to a person when it does not know.
# Scripted stand-in; ChatOpenAI(...) or any other chat model goes here.
model = ScriptedExpert(lambda text: "We are open from 9 to 17." if "open" in text else "I do not know.")


def chatbot(state: MessagesState) -> dict:
    """Looks up facts: opening hours, addresses, shipping."""
    return {"messages": [model.invoke(state["messages"])]}


def human(state: MessagesState) -> dict:
    """A clerk who changes records of customers: refunds, cancelled orders."""
    return {"messages": [AIMessage(interrupt({"asked": state["messages"][0].text}))]}


def knows(state: MessagesState) -> str:
    return "human" if "do not know" in state["messages"][-1].text else END


builder = StateGraph(MessagesState)
builder.add_node(chatbot)
builder.add_node(human)
builder.add_edge(START, "chatbot")
builder.add_conditional_edges("chatbot", knows, {"human": "human", END: END})
builder.add_edge("human", END)

# The router: it sends a question to the person at once, where the chatbot would only cost time and money.
add_router(
    builder,
    Rules(),
    [
        ToolSpec(name="chatbot", terminal=True, price=Price(input=1.0, output=5.0)),
        ToolSpec(name="human", terminal=True, price=Price(per_call=2.0)),
    ],
    budget=Budget(dollars=3.0),
)

graph = builder.compile(checkpointer=InMemorySaver())
for thread, question in enumerate(("When are you open?", "Please refund order 17 to my account.")):
    config = {"configurable": {"thread_id": str(thread)}}
    state = graph.invoke({"messages": [("user", question)]}, config)
    if "__interrupt__" in state:
        state = graph.invoke(Command(resume="Done, the money is on its way."), config)
    ledger = graph.get_state(config).values["orchestra_ledger"]
    asked = [name for name in ledger["tools"] if name != "router"]
    print(f"{question} {asked[0]}: {state['messages'][-1].text} (${ledger['dollars']:.6f})")
