"""`orchestra doctor`: what is installed, and what a server can do; each miss with its fix."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.terminal import console, counted, one_line, print_error, print_json, working
from orchestra_graph.errors import ConfigError, MissingError

if TYPE_CHECKING:
    from orchestra_graph.serving.doctor import Check

_MARKS: Final = {"ok": ("ok", "green"), "missing": ("missing", "yellow"), "failed": ("failed", "bold red")}


def doctor(
    base_url: Annotated[str | None, typer.Option(help="An OpenAI-compatible server to look at, with /v1.")] = None,
    model: Annotated[str | None, typer.Option(help="Its model; the first that it lists if none.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Name of the variable that holds its key.")] = None,
    python: Annotated[
        str | None, typer.Option(help="Interpreter that should have vllm.", show_default="this one")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON and nothing else.")] = False,
) -> None:
    """Look at what is installed and at what a server can do; name the fix for each miss.

    Only what was asked for can fail: the server of `--base-url`, its `--model`, the vLLM of `--python`.
    """
    from orchestra_graph.serving.doctor import examine  # noqa: PLC0415  (OpenAI's client takes a second)

    key = None if api_key_env is None else os.environ.get(api_key_env)
    if api_key_env is not None and not key:
        raise MissingError(f"the environment variable {api_key_env}", f"export {api_key_env}=...")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the environment variable {api_key_env} holds a line end or another character that no key has; "
            "fix: export it again"
        )
    output = console()
    with working(output, "looking"):
        checks = asyncio.run(examine(python=python, base_url=base_url, model=model, api_key=key))
    failed = [check for check in checks if check.state == "failed"]
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        output.print(_table(checks))
        if base_url is None:
            output.print(Text("no server was looked at; give one with --base-url http://localhost:8000/v1", "dim"))
    if failed:
        names = ", ".join(check.name for check in failed)
        print_error(f"{counted(len(failed), 'check')} failed: {names}; the fix stands beside each")
        raise typer.Exit(1)


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("what", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("fix", overflow="fold")
    for check in checks:
        found, fix = (Text(one_line(text, 400)) for text in (check.found, check.fix))
        table.add_row(check.name, Text(*_MARKS[check.state]), found, fix)
    return table
