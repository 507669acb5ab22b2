"""Starts and watches a vLLM server for a router: `orchestra serve` in Python.

from orchestra_graph.serving import Server, command_for

command = command_for("qwen3-8b")
async with Server(command.argv(), command.address, log=Path("server.log")) as server:
    await server.wait_healthy(timeout=900)
    router = ChatVLLM(model="qwen3-8b", base_url=server.base_url)

Nothing here imports vllm: it runs in a process, and often an environment, of its own.
"""

from orchestra_graph.errors import ServerError
from orchestra_graph.serving.command import PRESETS, VLLMCommand, check_folder, check_port, check_vllm, command_for
from orchestra_graph.serving.metrics import Load, read_metrics
from orchestra_graph.serving.process import Server
from orchestra_graph.serving.watch import Crashed, Event, Ready, Sample, keep_up

__all__ = [
    "PRESETS",
    "Crashed",
    "Event",
    "Load",
    "Ready",
    "Sample",
    "Server",
    "ServerError",
    "VLLMCommand",
    "check_folder",
    "check_port",
    "check_vllm",
    "command_for",
    "keep_up",
    "read_metrics",
]
