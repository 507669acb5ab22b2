"""`orchestra pairs`: what users may say of cost, time, accuracy and tools, with the weights that it means."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from langchain_core.language_models import BaseChatModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orchestra_graph.catalog import Catalog
from orchestra_graph.cli.terminal import console, counted, plain, print_json, progress_console
from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.encoding import dump
from orchestra_graph.workbench.wording import Split
from orchestra_training.cli.models import chat_model, model_name
from orchestra_training.cli.options import refuse_options
from orchestra_training.filters import FilterReport
from orchestra_training.preference_pairs import Pair, by_model, by_rules


def pairs(
    catalog: Annotated[Path, typer.Argument(help="A catalog file, TOML.", show_default=False)],
    to: Annotated[Path, typer.Option(help="File to write, JSON lines; must not be there yet.", show_default=False)],
    count: Annotated[int, typer.Option(min=0, help="Pairs by rules.")] = 1000,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of the pairs in held-out phrasings.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed gives other pairs.")] = 0,
    written: Annotated[int, typer.Option(min=0, help="Pairs that a model writes, beside those by rules.")] = 0,
    writer: Annotated[str | None, typer.Option(help="Line of the catalog whose model writes pairs.")] = None,
    checker: Annotated[str | None, typer.Option(help="Line whose model checks what was written.")] = None,
    models: Annotated[Path | None, typer.Option(help="Catalog with these lines, where it is another one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one line of JSON.")] = False,
) -> None:
    """Write preference pairs for the tools of a catalog: a user's words, and the vector that they mean.

    Pairs by rules need no model and are the same for the same seed. The two splits, train and held_out, share no
    phrasing.
    """
    output = console()
    read = Catalog.from_toml(catalog)
    if not written:
        refuse_options({"--writer": writer, "--checker": checker, "--models": models}, "--written N")
    pens = _pens(written, writer, checker, read if models is None else Catalog.from_toml(models))
    held = (round(count * held_out), round(written * held_out))
    wanted: dict[Split, tuple[int, int]] = {"train": (count - held[0], written - held[1]), "held_out": held}
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with _new_file(to) as file, Progress(*columns, console=progress_console(output), transient=True) as progress:
        job = _Job(read, file, seed, progress)
        for split, (by_rule, _) in wanted.items():
            job.draw(split, by_rule)
        if pens is not None:
            asyncio.run(job.write({split: by_pen for split, (_, by_pen) in wanted.items()}, *pens))
    if as_json:
        print_json({"file": str(to), "pairs": job.counts(), "left_out": job.left_out()})
    else:
        _show(output, job, to)


@dataclass(slots=True)
class _Job:
    """Pairs on their way to the file."""

    catalog: Catalog
    file: BinaryIO
    seed: int
    progress: Progress
    report: FilterReport = field(default_factory=FilterReport)
    made: list[Pair] = field(default_factory=list)

    def draw(self, split: Split, n: int) -> None:
        """Pairs by rules."""
        bar = self.progress.add_task(f"{split}, by rules", total=n)
        for pair in by_rules(self.catalog, n, split=split, seed=self.seed, report=self.report):
            self._keep(pair)
            self.progress.advance(bar)

    async def write(
        self, wanted: Mapping[Split, int], writer: BaseChatModel, checker: BaseChatModel, name: str
    ) -> None:
        """Pairs by the models, in one event loop: the connections that a model keeps open belong to it."""
        for split, n in wanted.items():
            await self._write(split, n, writer, checker, name)

    async def _write(self, split: Split, n: int, writer: BaseChatModel, checker: BaseChatModel, name: str) -> None:
        """Pairs of one split; each is in the file as soon as it is there."""
        bar = self.progress.add_task(f"{split}, by {plain(name)}", total=n)
        texts = [pair.text for pair in self.made if pair.split != split]
        async for pair in by_model(
            self.catalog,
            n,
            writer=writer,
            checker=checker,
            by=f"model:{name}",
            split=split,
            report=self.report,
            apart_from=texts,
            seed=self.seed,
        ):
            self._keep(pair)
            self.file.flush()
            self.progress.advance(bar)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many were made, by split and origin."""
        found: dict[str, dict[str, int]] = {}
        for (split, by), number in Counter((pair.split, pair.by) for pair in self.made).items():
            found.setdefault(split, {})[by] = number
        return found

    def left_out(self) -> dict[str, int]:
        """How many were left out, by reason."""
        return {kind: number for (_, kind), number in self.report.counts.most_common()}

    def _keep(self, pair: Pair) -> None:
        self.made.append(pair)
        self.file.write(dump(pair.model_dump(mode="json")))


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise ConfigError(f"--to {path} is there already; fix: name another file") from error
    except OSError as error:
        raise ConfigError(f"--to {path} cannot be written: {error.strerror}; fix: name another file") from error
    with file:
        yield file


def _pens(
    written: int, writer: str | None, checker: str | None, lines: Catalog
) -> tuple[BaseChatModel, BaseChatModel, str] | None:
    """The models that write and check, and the writer's name."""
    if not written:
        return None
    if writer is None or checker is None:
        raise ConfigError(f"--written {written}: expected --writer and --checker, lines of the catalog with a model")
    return (
        chat_model("--writer", writer, lines),
        chat_model("--checker", checker, lines, temperature=0),
        model_name(writer, lines),
    )


def _show(output: Console, job: _Job, to: Path) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for head in ("split", "by"):
        table.add_column(head)
    table.add_column("pairs", justify="right")
    for split, origins in job.counts().items():
        for by, number in origins.items():
            table.add_row(split, Text(plain(by)), str(number))
    output.print(table)
    left_out: Sequence[str] = [f"{kind} {number}" for kind, number in job.left_out().items()]
    if left_out:
        output.print(Text(f"left out: {', '.join(left_out)}", "yellow"))
    output.print(Text(f"{counted(len(job.made), 'pair')}: {plain(str(to))}", "dim"))
