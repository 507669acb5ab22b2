"""Watch a run as it happens, then ask again on the same thread: python examples/streaming.py"""

import asyncio

from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph import Rules, create_orchestrator
from orchestra_graph.workbench import Workbench


async def main() -> None:
    bench = Workbench()
    graph = create_orchestrator(Rules(), bench.tools(bench.world()), catalog=bench.catalog).compile(
        checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    for question in ("What is 1234 * 5678?", "What is the derivative of f(x) = x**3 - 2*x at x = 4?"):
        print(question)
        async for event in graph.astream({"messages": [("user", question)]}, config, stream_mode="custom"):
            if event["type"] == "decision":
                print("  calls", ", ".join(call["tool"] for call in event["decision"]["calls"]))
            elif event["type"] == "outcome":
                dollars = sum(charge["dollars"] for charge in event["charges"].values())
                print(f"  {event['call']['tool']} came back after {event['outcome']['seconds']:.1f} s, ${dollars:.6f}")
            elif event["type"] == "answer":
                print(f"  {event['answer']}  (${event['ledger']['dollars']:.6f} in all)")


asyncio.run(main())
