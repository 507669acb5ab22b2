"""`orchestra serve`: a vLLM server for a router, started, watched, and stopped with all its children."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from orchestra_graph.cli.terminal import console, one_line, plain, print_json, progress_console
from orchestra_graph.errors import ConfigError
from orchestra_graph.serving import random_weights
from orchestra_graph.serving.command import (
    PRESETS,
    RANDOM_WEIGHTS,
    VLLMCommand,
    check_folder,
    check_port,
    check_vllm,
    command_for,
)
from orchestra_graph.serving.metrics import Load
from orchestra_graph.serving.process import Server
from orchestra_graph.serving.watch import Crashed, Event, Ready, Sample, keep_up

_LINES_EVERY: Final = 10.0
"""Seconds between figures where they are lines and not a display that changes."""

_PRESETS_HELP: Final = f"A preset ({', '.join(PRESETS)}), a model folder, or a name on the Hugging Face hub."


def _flags(value: list[str] | None) -> list[str]:
    if value and not value[0].startswith("-"):
        raise typer.BadParameter(f"{value[0]!r} is no flag; flags for vLLM stand behind --")
    return value or []


def serve(
    model: Annotated[str, typer.Argument(help=_PRESETS_HELP, show_default=False)],
    extra: Annotated[
        list[str] | None,
        typer.Argument(help="Further flags for vLLM, behind `--`.", show_default=False, callback=_flags),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="What clients call the model; may be given again.")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Tokens of prompt and reply together.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, bfloat16, float16 or float32.")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(min=1, help="GPUs that share each layer.")] = None,
    data_parallel: Annotated[int | None, typer.Option(min=1, help="Copies of the model.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Use the GPUs of several machines, through a Ray cluster that runs already.")
    ] = False,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Share of each GPU's memory to take.")
    ] = None,
    lora: Annotated[list[str] | None, typer.Option(help="An adapter, NAME=PATH; may be given again.")] = None,
    tool_parser: Annotated[str | None, typer.Option(help="How the model writes tool calls.")] = None,
    reasoning_parser: Annotated[
        str | None, typer.Option(help="How the model writes its thoughts; `none` leaves them in the reply.")
    ] = None,
    python: Annotated[
        str, typer.Option(help="Interpreter of the environment that has vllm.", show_default="this one")
    ] = sys.executable,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it must be ready.")] = 900.0,
    restarts: Annotated[int, typer.Option(min=0, help="Restarts after crashes at most.")] = 3,
    log: Annotated[Path | None, typer.Option(help="File for the server's output; a new temporary one if none.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and start nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON an event.")] = False,
) -> None:
    """Serve a model with vLLM: with the flags that a router needs, until it is interrupted.

    Shows requests, tokens a second, prefix-cache hits and queue while it runs; starts the server again after a crash.
    """
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "names": served_model_name,
        "max_model_len": max_model_len,
        "dtype": dtype,
        "tensor_parallel": tensor_parallel,
        "data_parallel": data_parallel,
        "gpu_memory": gpu_memory_utilization,
        "tool_parser": tool_parser,
    }
    command = replace(
        command_for(model), python=python, ray=ray, **{name: value for name, value in given.items() if value}
    )
    if reasoning_parser is not None:
        command = replace(command, reasoning_parser=None if reasoning_parser == "none" else reasoning_parser)
    command = replace(command, lora=_adapters(lora or []), extra=(*command.extra, *(extra or [])))
    if model == RANDOM_WEIGHTS:
        command = replace(command, model=str(random_weights.folder_in(_cache())))
    else:
        check_folder(command)
    if dry_run:
        print(shlex.join(command.argv()))
        return
    check_port(*command.listens_on)
    report: _Report = _Lines() if as_json else _Display()
    try:
        serving = _serve(
            command, _log(log), make=model == RANDOM_WEIGHTS, timeout=timeout, restarts=restarts, report=report
        )
        asyncio.run(serving)
    except asyncio.CancelledError:  # SIGTERM: the same as an interrupt
        raise KeyboardInterrupt from None


async def _serve(
    command: VLLMCommand, log: Path, *, make: bool, timeout: float, restarts: int, report: _Report
) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    version = await check_vllm(command.python)
    if make:
        await random_weights.make_with(command.python, Path(command.model))
    server = Server(command.argv(), command.address, log=log)
    report.starting(server, version)
    try:
        every = report.every
        events = keep_up(server, timeout=timeout, restarts=restarts, every=every, on_line=report.line)
        with report.running():
            async with aclosing(events):
                async for event in events:
                    report.event(event, server)
    finally:
        report.stopping()
        await server.stop()


def _adapters(values: Sequence[str]) -> dict[str, str]:
    adapters = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"--lora {value}: expected NAME=PATH, for example --lora router=runs/adapter")
        adapters[name] = path
    return adapters


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestra-graph"


def _log(path: Path | None) -> Path:
    if path is not None:
        return path
    handle, name = tempfile.mkstemp(prefix="orchestra-serve-", suffix=".log")
    os.close(handle)
    return Path(name)


class _Report(ABC):
    """What is told while the server runs."""

    every = _LINES_EVERY

    @abstractmethod
    def starting(self, server: Server, version: str) -> None: ...

    @abstractmethod
    def line(self, line: str) -> None: ...

    @abstractmethod
    def event(self, event: Event, server: Server) -> None: ...

    @abstractmethod
    def stopping(self) -> None: ...

    @contextmanager
    def running(self) -> Iterator[None]:
        yield


class _Lines(_Report):
    """Lines of JSON, for scripts."""

    def starting(self, server: Server, version: str) -> None:
        print_json({"event": "starting", "command": server.command, "log": str(server.log), "version": version})

    def line(self, line: str) -> None:
        pass

    def event(self, event: Event, server: Server) -> None:
        match event:
            case Ready(seconds):
                print_json({"event": "ready", "base_url": server.base_url, "seconds": seconds})
            case Sample():
                print_json({"event": "load", **asdict(event)})
            case Crashed():
                print_json({"event": "crashed", **asdict(event)})

    def stopping(self) -> None:
        print_json({"event": "stopping"})


class _Display(_Report):
    """A line that changes on a terminal; elsewhere one line a change."""

    def __init__(self) -> None:
        self._output = console()
        self._said = ""
        if self._output.is_terminal:
            self.every = 1.0
        self._status = progress_console(self._output).status("starting")

    def starting(self, server: Server, version: str) -> None:
        self._output.print(plain(shlex.join(server.command)), soft_wrap=True)
        self._output.print(Text(f"{version}; log: {plain(str(server.log))}", "dim"), soft_wrap=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._status:
            yield

    def line(self, line: str) -> None:
        self._status.update(Text(f"starting: {one_line(line, 100)}"))

    def event(self, event: Event, server: Server) -> None:
        match event:
            case Ready(seconds):
                ready = f"ready after {seconds:.0f} s"
                self._output.print(Text.assemble((ready, "green"), f": {server.base_url}  (Ctrl-C stops it)"))
            case Sample():
                self._show(figures(event))
            case Crashed(why, restart, pause):
                self._output.print(Text(f"{plain(why)}; restart {restart} in {pause:g} s", "yellow"), soft_wrap=True)

    def _show(self, text: str) -> None:
        if self._output.is_terminal:
            self._status.update(Text(text))
        elif text != self._said:
            self._output.print(text)
        self._said = text

    def stopping(self) -> None:
        self._status.stop()
        self._output.print(Text("stopping the server and all its processes", "dim"))


def figures(sample: Sample) -> str:
    """A sample in one line."""
    load, recent = sample.load, sample.recent
    rate = recent.generated_tokens / sample.seconds if sample.seconds else 0.0
    return ", ".join(
        [
            f"{load.requests:,} requests done",
            f"{load.running} running",
            f"{load.waiting} waiting",
            f"{rate:,.0f} tokens/s",
            f"prefix cache {_percent(load)}",
            f"cache {load.cache_used:.0%} full",
        ]
    )


def _percent(load: Load) -> str:
    return "unused" if load.hit_rate is None else f"{load.hit_rate:.0%} hits"
