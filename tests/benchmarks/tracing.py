"""What tracing a turn costs: ours against a plain graph with `ToolNode`, both traced by LangSmith's SDK.

    python tests/benchmarks/tracing.py            # 20 pairs, about 3 minutes
    python tests/benchmarks/tracing.py --pairs 5

Both sides run the fake model and the tool of `overhead.py` for ten turns and an answer, and post to a server on
loopback that reads and forgets; it is a process of its own. Ours has validation, ledger and run log switched on. A
figure is CPU time of the whole process, the SDK's threads among it, until everything has been posted; a ratio is the
median over interleaved pairs. The bar: at most 1.0. Bytes are those posted for one run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import langsmith
from langchain_core.messages import AnyMessage
from langchain_core.tracers.langchain import wait_for_all_tracers
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from langsmith.run_helpers import tracing_context

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.overhead import CONFIG, TURNS, FakeModel, MinimalState, lookup, ours, question

RUNS = 5
"""Runs in one measurement."""

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
sys.path.insert(0, {root!r})
from tests.langsmith_recorder import BATCHES

class Forgets(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taken = 0
    def do_GET(self):
        self.answer({{"version": "0.10", "batch_ingest_config": BATCHES, "taken": Forgets.taken}})
    def do_POST(self):
        Forgets.taken += len(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({{}})
    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Forgets)
print(server.server_port, flush=True)
server.serve_forever()
"""


def plain() -> Any:
    """The usual graph: a model node and `ToolNode`."""
    model = FakeModel().bind_tools([lookup])

    async def agent(state: MinimalState) -> dict[str, list[AnyMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MinimalState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode([lookup]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END])
    builder.add_edge("tools", "agent")
    return builder.compile()


class Measure:
    """Runs graphs with tracing on or off, on one loop."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._client = langsmith.Client(api_url=url, api_key="k")
        self._runner = runner
        self._url = url

    def turn_ms(self, graph: Any, traced: bool) -> float:
        """CPU milliseconds of one turn."""
        gc.collect()
        started = time.process_time()
        self._runner.run(self._some(graph, traced))
        wait_for_all_tracers()
        self._client.flush()
        return (time.process_time() - started) / (RUNS * TURNS) * 1000

    def bytes_a_run(self, graph: Any) -> int:
        """Bytes posted for one run."""
        before = self._taken()
        self.turn_ms(graph, True)
        return (self._taken() - before) // RUNS

    async def _some(self, graph: Any, traced: bool) -> None:
        with tracing_context(enabled=traced, client=self._client, project_name="benchmark"):
            for _ in range(RUNS):
                state = await graph.ainvoke(question(), CONFIG)
                assert state["messages"][-1].text == "the answer"

    def _taken(self) -> int:
        with urllib.request.urlopen(f"{self._url}/info") as answer:
            return int(json.load(answer)["taken"])


def measure(pairs: int, folder: Path, measured: Measure) -> dict[str, float]:
    """Medians and ratios."""
    sides = {"ours": ours(folder), "plain": plain()}
    times: dict[tuple[str, bool], list[float]] = {(side, traced): [] for side in sides for traced in (True, False)}
    for n in range(pairs + 1):
        for (side, traced), taken in times.items():
            value = measured.turn_ms(sides[side], traced)
            if n:  # the first round warms up
                taken.append(value)
    figures = {f"{side} {'traced' if on else 'untraced'}": statistics.median(t) for (side, on), t in times.items()}
    ratios = [a / b for a, b in zip(times["ours", True], times["plain", True], strict=True)]
    figures["ratio traced"] = statistics.median(ratios)
    for side, graph in sides.items():
        figures[f"{side} bytes a run"] = measured.bytes_a_run(graph)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per traced turn, ours against a plain graph with ToolNode.")
    parser.add_argument("--pairs", type=int, default=20, help="interleaved pairs")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    gc.disable()
    code = SERVER.format(root=str(Path(__file__).parents[2]))
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".tracing-") as folder,
        asyncio.Runner() as runner,
    ):
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            figures = measure(args.pairs, Path(folder), Measure(url, runner))
        finally:
            server.terminate()
    if args.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:20} {value:.3f}" if "ratio" in name else f"{name:20} {value:,.2f}")


if __name__ == "__main__":
    main()
