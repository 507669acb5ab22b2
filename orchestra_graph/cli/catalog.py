"""`orchestra catalog`: reads the tools file of a released checkpoint into a catalog, and writes it back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestra_graph.catalog import Catalog
from orchestra_graph.catalog_import import import_tools, read_functions, write_catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.nemotron_functions import FUNCTIONS, fill

catalog = typer.Typer(
    help="Read the tools file of a released checkpoint into a catalog, and write it back.", no_args_is_help=True
)

Out = Annotated[Path | None, typer.Option(help="File to write; stdout where it is left out.", show_default="stdout")]


@catalog.command("import")
def import_(
    tools: Annotated[Path, typer.Argument(help="The release's tools.json.", show_default=False)],
    out: Out = None,
) -> None:
    """Read a tools file into a catalog: aliases, prices, latencies, sentences, and the texts around them."""
    try:
        text = tools.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{tools}: cannot be read ({error}); expected the tools.json of a release") from error
    _write(write_catalog(*import_tools(text, str(tools))), out)


@catalog.command()
def render(
    file: Annotated[Path, typer.Argument(help="A catalog file, TOML.", show_default=False)],
    out: Out = None,
) -> None:
    """Write the tools file of a catalog: byte for byte the one that it was imported from, else in our own words."""
    _write(fill(read_functions(file) or FUNCTIONS, Catalog.from_toml(file)), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    try:
        out.write_bytes(text.encode())
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error.strerror}); fix: name another file") from error
