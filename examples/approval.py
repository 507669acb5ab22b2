"""A person is asked before each call that may cost more than 5 cents: python examples/approval.py"""

import sys

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from orchestra_graph import Expert, Limits, Price, create_orchestrator
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter

# Scripted stand-ins; ChatOpenAI(...) or any other chat model goes in the place of each.
small = Expert(ScriptedExpert("<answer>It may be 42.</answer>"), name="small", price=Price(input=0.1, output=0.4))
large = Expert(
    ScriptedExpert("<answer>It is 42.</answer>"),
    name="large",
    price=Price(input=5.0, output=25.0),
    limits=Limits(output_tokens=4000),
)
graph = create_orchestrator(
    ScriptedRouter([("large", {}), ("small", {})]),  # the second reply is asked for only if the first call is rejected
    [small, large],
    approve=0.05,
).compile(checkpointer=InMemorySaver())  # holds what waits for a person: a database, where that may take days


def ask(request: dict) -> dict:
    """Approve, or reject with a reason that the router reads. `edit` would send other arguments."""
    print(f"{request['name']}{request['args']} may cost up to ${request['dollars']:.2f}. Send it? [y/n] ", end="")
    reply = input() if sys.stdin.isatty() else "y"
    print(reply)
    return {"type": "approve"} if reply == "y" else {"type": "reject", "message": "too expensive"}


thread = {"configurable": {"thread_id": "1"}}
question = {"messages": [("user", "What is the answer?")]}
result = graph.invoke(question, thread, version="v2")
while result.interrupts:
    # Nothing has been paid for the calls that wait, and what others brought is kept.
    answers = {waiting.id: ask(waiting.value) for waiting in result.interrupts}
    result = graph.invoke(Command(resume=answers), thread, version="v2")

print(f"answer: {result.value['answer']}")
print(f"paid: ${result.value['ledger']['dollars']:.4f}")
