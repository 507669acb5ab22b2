"""`orchestra data`: data sets for trainers out of logged runs, and what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from orchestra_graph.cli.terminal import console, counted, heading, plain, print_json, progress_console
from orchestra_graph.errors import MissingError
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.cli.options import refuse_beside, refuse_options
from orchestra_training.filters import LEAST_SPREAD
from orchestra_training.reward import RewardName

if TYPE_CHECKING:
    from orchestra_training.datasets.build import Options
    from orchestra_training.render import Renderer

data = typer.Typer(help="Data sets for trainers, out of logged runs.", no_args_is_help=True)

KindName = Literal["sft", "dpo", "kto", "grpo", "replay"]

_SHOWN_TOKENS = 400
"""Of each end of a sample."""

Tokenizer = Annotated[Path | None, typer.Option(help="Folder of a model whose tokenizer it is.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print what was found as one line of JSON.")]


@data.command()
def build(
    kind: Annotated[KindName, typer.Argument(help="What for.", show_default=False)],
    source: Annotated[
        Path, typer.Option("--from", help="A folder that `orchestra harvest` wrote, or run logs.", show_default=False)
    ],
    to: Annotated[Path, typer.Option(help="Folder to write; must not be there yet.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which split of a harvest: train or test.")] = "train",
    best: Annotated[
        int | None, typer.Option(min=1, help="sft: solved runs of an example, the best first.", show_default="1")
    ] = None,
    take_all: Annotated[bool, typer.Option("--all", help="sft: all solved runs of an example.")] = False,
    max_dollars: Annotated[
        float | None, typer.Option(min=0, help="sft: what a run may have cost.", show_default="any")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0, help="dpo: by how much the better one earns more.", show_default=str(LEAST_SPREAD)),
    ] = None,
    reward: Annotated[
        RewardName | None, typer.Option(help="sft, dpo, replay: what compares runs.", show_default="guarded")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Take runs that measure a policy as well; they measure it no more.")
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Folder of a model: runs without its tokens are rendered with it.", show_default=False),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol that runs are rendered with.", show_default="conversation")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="Chat template, Jinja; else the tokenizer's own.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a data set as a folder with Parquet and a card (README.md), as the Hugging Face hub has them.

    sft: the best solved runs; dpo: decisions after the same tokens, better against worse; kto: replies, good or bad;
    grpo: the tasks; replay: exact rows with logprobs and advantages. Runs must have been judged, but for grpo.
    """
    with _extra():
        from orchestra_training.datasets.build import NEEDS, build  # noqa: PLC0415  (pyarrow)
        from orchestra_training.datasets.source import logs_of  # noqa: PLC0415
    if tokenizer is None:
        refuse_options({"--protocol": protocol, "--chat-template": chat_template}, "--tokenizer FOLDER")
    if NEEDS[kind] is None:
        refuse_beside({"--tokenizer": tokenizer}, f"{kind}, which holds no tokens")
    options = _options(
        kind, take_all, evaluate, {"reward": reward, "best": best, "max_dollars": max_dollars, "margin": margin}
    )
    output = console()
    with _Watching(output) as watching:
        facts = build(
            kind,
            logs_of(source, split),
            to,
            options=options,
            renderer=None if tokenizer is None else _renderer(tokenizer, protocol or "conversation", chat_template),
            split=split,
            command=f"orchestra data build {kind}",
            watch=watching.watch,
        )
    if as_json:
        print_json(facts)
        return
    _print_left_out(output, facts)
    sizes = ", ".join(f"{name} {numbers['mean']:,.6g}" for name, numbers in _numbers(facts["columns"]))
    output.print(
        f"{counted(facts['examples'], 'example')} in {plain(str(to))}" + (f"; means: {sizes}" if sizes else "")
    )


@data.command()
def show(
    path: Annotated[
        Path,
        typer.Argument(help="A data set, a folder that `orchestra harvest` wrote, or run logs.", show_default=False),
    ],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of a model: shows the row's tokens as text.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in a data set, or in run logs: counts, fidelity, groups, rewards, lengths, and one row of it."""
    with _extra():
        from orchestra_training.datasets.card import read_card  # noqa: PLC0415  (with the next)
        from orchestra_training.datasets.facts import files_of, of_examples, of_logs  # noqa: PLC0415
        from orchestra_training.datasets.source import logs_of  # noqa: PLC0415
        from orchestra_training.datasets.write import read  # noqa: PLC0415  (pyarrow)
    output = console()
    with _Watching(output) as watching:
        if files := files_of(path):
            examples = (example for file in files for example in read(file))
            figures, first = of_examples(examples)
            sample = {} if first is None else dict(first)
            facts = {"files": [file.name for file in files], "columns": figures, "card": read_card(path)}
        else:
            logs = logs_of(path, None)
            facts, row = of_logs(logs, watching.watch(logs))
            sample = {} if row is None else {"run_id": row.run_id, "turns": list(row.turns)}
            sample |= {} if row is None else {"prompt_ids": row.prompt_ids, "completion_ids": row.completion_ids}
    facts["sample"] = _decoded(sample, tokenizer)
    if as_json:
        print_json(facts)
    else:
        _print_facts(output, facts)


@contextmanager
def _extra() -> Iterator[None]:
    """Around imports of what the extra `train` installs."""
    try:
        yield
    except ImportError as error:
        raise MissingError(f"the package {error.name}", "pip install 'orchestra-graph[train]'") from error


def _options(kind: KindName, take_all: bool, evaluate: bool, given: Mapping[str, Any]) -> Options:
    """The options that were given, by name; None where one was not.

    Raises:
        BadParameter: The kind has no use for one.
    """
    from orchestra_training.datasets.build import USED, Options  # noqa: PLC0415  (pyarrow)

    unused = {f"--{name.replace('_', '-')}": value for name, value in given.items() if name not in USED[kind]}
    if "best" not in USED[kind]:
        unused["--all"] = take_all or None
    refuse_beside(unused, f"{kind}, which has no use for that")
    stated = {name: value for name, value in given.items() if value is not None}
    if take_all:
        refuse_beside({"--best": given["best"]}, "--all, which takes all")
        stated["best"] = None
    return Options(**stated, evaluate=evaluate)


class _Watching(Progress):
    """Counts runs as they are read."""

    def __init__(self, output: Console) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        shown_on = progress_console(output)
        super().__init__(*columns, console=shown_on, transient=True, disable=not shown_on.is_terminal)
        self._runs: int | None = None

    def watch(self, runs: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """The runs, which are counted; a second reading knows how many there are."""
        bar = self.add_task("reading runs" if self._runs is None else "writing", total=self._runs)
        done = 0
        for run in runs:
            yield run
            done += 1
            self.update(bar, completed=done)
        self._runs = done


def _renderer(folder: Path, protocol: str, chat_template: Path | None) -> Renderer:
    from orchestra_training.render import Renderer  # noqa: PLC0415  (with transformers)

    with _extra():
        return Renderer.from_folder(folder, protocol, chat_template=chat_template)


def _decoded(sample: dict[str, Any], tokenizer: Path | None) -> dict[str, Any]:
    """A sample with its tokens as text where a tokenizer is named, else as numbers of tokens."""
    from orchestra_training.datasets.facts import IDS  # noqa: PLC0415  (not before it is needed)

    decode = None if tokenizer is None else _renderer(tokenizer, "conversation", None).decode
    shown: dict[str, Any] = {}
    for name, value in sample.items():
        ids = [label for label in value if label >= 0] if name == "labels" else value
        if name in IDS or name == "labels":
            shown[name] = f"{len(ids)} tokens" if decode is None else decode(ids)
        elif not isinstance(value, list) or all(isinstance(item, str) for item in value):
            shown[name] = value
    return shown


def _numbers(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    return ((name, numbers) for name, numbers in figures.items() if isinstance(numbers, dict) and "mean" in numbers)


def _print_left_out(output: Console, facts: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("stage")
    table.add_column("kept", justify="right")
    table.add_column("left out")
    for stage in ("runs", "chosen", "turns"):
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in facts[stage]["left_out"].items())
        table.add_row(stage, f"{facts[stage]['kept']:,}", plain(left_out))
    output.print(table)
    output.print(f"fidelity: {_counts(facts['fidelity']) or 'no tokens'}")


def _print_facts(output: Console, facts: Mapping[str, Any]) -> None:
    figures: dict[str, Any] = dict(facts["columns"]) if "columns" in facts else dict(facts["rows"])
    card = facts.get("card")
    if "columns" in facts:
        output.print("files: " + plain(", ".join(facts["files"])))
        if card is not None:
            output.print(f"{card['kind']}, {card['split']}: {counted(card['examples'], 'example')}")
            _print_left_out(output, card)
    else:
        figures |= {"rewards": facts["rewards"], "runs of a group": facts["groups"]["runs"]}
        for name in ("purpose", "split", "ended", "policy", "judged_by", "solved", "fidelity"):
            output.print(Text.assemble((f"{name.replace('_', ' ')}: ", "bold"), plain(_counts(facts[name]))))
        output.print(Text.assemble(("groups: ", "bold"), plain(_counts(facts["groups"]["kinds"]) or "none")))
        for name, counts in (
            ("not exact", facts["shortfall"]),
            ("in no group", facts["ungrouped"]),
            ("not trained", facts["turns"]["left_out"]),
        ):
            if counts:
                output.print(Text.assemble((f"{name}: ", "bold"), plain(_counts(counts))))
        if faults := facts["read"]["faults"]:
            output.print(Text.assemble(("unreadable lines: ", "yellow"), plain(_counts(faults))))
    _print_figures(output, figures)
    for name, value in facts["sample"].items():
        heading(output, name)
        output.print(Text(_cut(plain(str(value)))), soft_wrap=True)


def _print_figures(output: Console, figures: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("", "count", "mean", "least", "median", "p95", "largest"):
        table.add_column(name, justify="right" if name else "left")
    for name, numbers in _numbers(figures):
        table.add_row(plain(name), *(f"{value:,.6g}" for value in numbers.values()))
    if table.row_count:
        output.print(table)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _cut(text: str) -> str:
    ends = _SHOWN_TOKENS * 4
    return text if len(text) <= 2 * ends else f"{text[:ends]}\n[...]\n{text[-ends:]}"
