"""`orchestra retriever`: builds an index of passages, and serves it over HTTP."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from langchain_core.embeddings import Embeddings
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from orchestra_graph.billing import describe
from orchestra_graph.cli.terminal import console, counted, one_line, plain, print_json, progress_console
from orchestra_graph.errors import ConfigError, MissingError
from orchestra_graph.modules import import_named
from orchestra_graph.tools.index_file import open_index, read_vectors
from orchestra_graph.tools.local_search import LocalSearch
from orchestra_graph.tools.retriever_service import serve as serve_index
from orchestra_graph.tools.search_index import IndexReport, build_index

retriever = typer.Typer(help="Build an index of passages, and serve it over HTTP.", no_args_is_help=True)

PORT: Final = 1401
KEY_VARIABLE: Final = "OPENAI_API_KEY"

Model = Annotated[
    str | None,
    typer.Option(help=f"An embedding model of an OpenAI-compatible server; its key is read from {KEY_VARIABLE}."),
]
BaseUrl = Annotated[str | None, typer.Option(help="That server's address; without it OpenAI's.", metavar="URL")]
Target = Annotated[
    str | None,
    typer.Option(
        "--embeddings", metavar="MODULE:NAME", help="Any other LangChain embedding model, or a function that makes it."
    ),
]


@retriever.command()
def build(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of documents, or a corpus: *.jsonl, *.jsonl.gz or *.jsonl.zst with a passage a line in "
            "`contents`, `content` or `text`.",
            show_default=False,
        ),
    ],
    index: Annotated[Path, typer.Argument(help="The index file; brought up to date if it is there.")],
    model: Model = None,
    base_url: BaseUrl = None,
    embeddings: Target = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON.")] = False,
) -> None:
    """Index passages by words, and by meaning too where an embedding model is given.

    What cannot be read is left out, counted and told.
    """
    made = open_embeddings(model, base_url, embeddings)
    output = console()
    with _bar(progress_console(output)) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=one_line(what, 40))

        report = build_index(source, index, embeddings=made, progress=show)
    if as_json:
        print_json(asdict(report))
        return
    _print(output, index, report)


@retriever.command()
def serve(
    index: Annotated[Path, typer.Argument(help="The index file, from `orchestra retriever build`.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    model: Model = None,
    base_url: BaseUrl = None,
    embeddings: Target = None,
) -> None:
    """Serve an index: `POST /retrieve` and `GET /health`, until it is interrupted.

    With the embedding model that the index was built with, passages are found by meaning too.
    """
    made = open_embeddings(model, base_url, embeddings)
    search = LocalSearch(index, embeddings=made)
    output = console(stderr=True)
    if made is None:
        with closing(open_index(index)) as database:
            unused = read_vectors(database)
        if unused is not None:
            note = (
                f"the index holds vectors of {unused.model}; they are searched where --model or --embeddings names it"
            )
            output.print(Text.assemble(("note: ", "yellow"), plain(note)), soft_wrap=True)
    passages, searched_by = search.describe()
    how = f"words and {searched_by}" if searched_by else "words"

    def ready(url: str) -> None:
        output.print(
            Text.assemble(("serving ", "green"), plain(f"{index} ({counted(passages, 'passage')}, by {how}) on {url}"))
        )
        output.print(Text(f'curl {url}/retrieve --json \'{{"queries": ["..."], "topk": 5}}\'', "dim"))

    asyncio.run(serve_index(search, host=host, port=port, ready=ready))


def open_embeddings(model: str | None, base_url: str | None, target: str | None) -> Embeddings | None:
    """The embedding model that the options name; None where they name none.

    Raises:
        ConfigError: They contradict each other, or what they name is no embedding model.
        MissingError: The key is not set.
    """
    if target is not None:
        if model is not None or base_url is not None:
            raise ConfigError("--embeddings names a model by itself; expected no --model and no --base-url beside it")
        return _import(target)
    if model is None:
        if base_url is not None:
            raise ConfigError(f"--base-url {base_url}: expected --model NAME beside it")
        return None
    key = os.environ.get(KEY_VARIABLE)
    if base_url is None and not key:
        raise MissingError(f"the environment variable {KEY_VARIABLE}", f"export {KEY_VARIABLE}=..., or name --base-url")
    from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415  (takes a second, which the other commands save)

    # Other servers take texts, not the token ids that the client sends to OpenAI.
    return OpenAIEmbeddings(
        model=model,
        openai_api_base=base_url,
        openai_api_key=SecretStr(key or "none"),
        check_embedding_ctx_length=base_url is None,
    )


def _import(target: str) -> Embeddings:
    module, _, name = target.partition(":")
    if not module or not name:
        raise ConfigError(f"--embeddings {target}: expected MODULE:NAME")
    try:
        found = getattr(import_named(module), name)
        made = found if isinstance(found, Embeddings) else found()
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported, and may exit
        raise ConfigError(
            f"--embeddings {target} cannot be made: {describe(error)}; fix: mend the module or the name"
        ) from error
    if not isinstance(made, Embeddings):
        raise ConfigError(f"--embeddings {target} is a {type(made).__name__}; expected a LangChain embedding model")
    return made


def _bar(output: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output,
        transient=True,
        disable=not output.is_terminal,
    )


def _print(output: Console, index: Path, report: IndexReport) -> None:
    vectors = f", {counted(report.vectors, 'vector')} ({report.embedded:,} new)" if report.vectors else ""
    files = f"{counted(report.files, 'file')}: {report.added} added, {report.changed} changed, {report.removed} removed"
    output.print(
        Text.assemble(("indexed ", "green"), plain(f"{counted(report.passages, 'passage')}{vectors}, {files}  {index}"))
    )
    for source, problem in report.problems.items():
        output.print(
            Text.assemble(("left out: ", "yellow"), plain(f"{source}: {one_line(problem, 400)}")), soft_wrap=True
        )
