"""Builds a data set: a folder with one Parquet file and a card, which appears whole or not at all."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf, isinf
from pathlib import Path
from typing import Any, Final, Literal

from orchestra_graph.engine import versions
from orchestra_graph.errors import ConfigError
from orchestra_graph.runlog.record import Trajectory
from orchestra_training.datasets import kinds
from orchestra_training.datasets.card import NAME, card
from orchestra_training.datasets.facts import of_examples, read_facts, told
from orchestra_training.datasets.selection import Reports, Selection
from orchestra_training.datasets.source import Logs, file_hash
from orchestra_training.datasets.write import Kind, read, write
from orchestra_training.filters import LEAST_SPREAD
from orchestra_training.render import Renderer
from orchestra_training.reward import FLOORS, REWARDS, RewardName

NEEDS: Final[dict[Kind, Literal["exact", "ids"] | None]] = {
    "sft": "ids",
    "dpo": "ids",
    "kto": "ids",
    "grpo": None,
    "replay": "exact",
}
"""The least fidelity of a kind's runs."""
USED: Final[dict[Kind, tuple[str, ...]]] = {
    "sft": ("reward", "best", "max_dollars"),
    "dpo": ("reward", "margin"),
    "kto": (),
    "grpo": (),
    "replay": ("reward",),
}
"""The options that are of use to a kind, beside those that are to all."""

Watch = Callable[[Iterable[Trajectory]], Iterable[Trajectory]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a data set is made of; what a kind has no use for is not looked at."""

    reward: RewardName = "guarded"
    """Compares the runs of one example (sft, dpo) or group (replay)."""
    best: int | None = 1
    """sft: how many solved runs of an example, the best first; None takes all."""
    max_dollars: float = inf
    """sft: what a run may have cost."""
    margin: float = LEAST_SPREAD
    """dpo: by how much the chosen decision has to earn more."""
    evaluate: bool = False
    """Whether runs whose purpose is `evaluate` are taken as well: they then measure nothing any more."""

    def __post_init__(self) -> None:
        if self.best is not None and self.best < 1:
            raise ConfigError(f"best = {self.best}; expected a number from 1 on, or none for all")
        if not self.max_dollars >= 0 or not self.margin >= 0:
            raise ConfigError(f"max_dollars = {self.max_dollars}, margin = {self.margin}; expected numbers from 0 on")


def build(
    kind: Kind,
    logs: Logs,
    to: str | Path,
    *,
    options: Options | None = None,
    renderer: Renderer | None = None,
    split: str = "train",
    command: str = "orchestra data build",
    watch: Watch = iter,
) -> dict[str, Any]:
    """Write a data set.

    Args:
        kind: What for.
        logs: Judged runs; they are read twice where runs are compared with each other.
        to: Folder; must not be there, or be empty.
        options: Which runs.
        renderer: Gives tokens to runs that have none (fidelity `rendered`); not for `replay`.
        split: Name of the split that the data set is; runs of another one are left out (one that states none trains),
            but those that state `train` where a harvest keeps them to test.
        command: What the card says it was made with.
        watch: Goes around each reading of the runs, to show progress.

    Returns:
        What the card states: counts, what was left out with its reasons, fidelity, hashes.

    Raises:
        ConfigError: The folder is taken, nothing is left to write, or the renderer does not fit.
        RunLogError: A log cannot be opened.
    """
    if kind == "replay" and renderer is not None:
        raise ConfigError("replay takes the logprobs of the server; rendered tokens have none")
    options, folder = options or Options(), Path(to).resolve()  # a part beside `.` needs its name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{to} is there already; expected a new folder")
    splits = (split, "train") if logs.are_set_aside else (split,)
    selection = Selection(needs=NEEDS[kind], splits=splits, evaluate=options.evaluate, renderer=renderer)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        file = part / f"{split}-00000-of-00001.parquet"
        count = write(_examples(kind, _Watched(logs, watch), selection, options), kind, file)
        facts = _facts(kind, logs, selection, options, split, command, file, count)
        if not count:
            why = _why(selection.reports, facts["read"]["runs"])
            raise ConfigError(f"nothing for {kind} in {', '.join(map(str, logs.paths))}: {why}")
        (part / NAME).write_text(card(facts), encoding="utf-8")
        _put(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return facts


def _put(part: Path, folder: Path) -> None:
    """Move what was written to its place; an empty folder is filled and not replaced, since the user may be in it."""
    if not folder.exists():
        part.rename(folder)
        return
    for file in sorted(part.iterdir(), key=lambda file: file.name == NAME):  # the card last
        file.rename(folder / file.name)


@dataclass(frozen=True, slots=True)
class _Watched:
    logs: Logs
    watch: Watch

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(self.watch(self.logs))


def _examples(kind: Kind, runs: kinds.Runs, selection: Selection, options: Options) -> Iterator[kinds.Example]:
    reward, floor = REWARDS[options.reward], FLOORS[options.reward]
    match kind:
        case "sft":
            return kinds.sft(runs, selection, reward=reward, best=options.best, max_dollars=options.max_dollars)
        case "dpo":
            return kinds.dpo(runs, selection, reward=reward, floor=floor, margin=options.margin)
        case "kto":
            return kinds.kto(runs, selection)
        case "grpo":
            return kinds.grpo(runs, selection)
        case "replay":
            return kinds.replay(runs, selection, reward=reward, floor=floor)


def _facts(
    kind: Kind,
    logs: Logs,
    selection: Selection,
    options: Options,
    split: str,
    command: str,
    file: Path,
    count: int,
) -> dict[str, Any]:
    reports, renderer = selection.reports, selection.renderer
    rendered = {"protocol": renderer.protocol.name, "template": renderer.template_hash} if renderer else {}
    return {
        "kind": kind,
        "split": split,
        "examples": count,
        "file": file.name,
        "sha256": file_hash(file),
        "command": command,
        "sources": logs.described(),
        "harvest": dict(sorted(logs.skipped().items())),
        "read": read_facts(logs),
        "runs": told(reports.runs),
        "chosen": told(reports.chosen),
        "turns": told(reports.turns),
        "fidelity": dict(reports.fidelity),
        "origins": dict(reports.origins),
        "tokenizer": selection.tokenizer,
        "options": {name: _finite(getattr(options, name)) for name in (*USED[kind], "evaluate")} | rendered,
        "columns": of_examples(read(file))[0],
        "versions": versions(),
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and isinf(value) else value


def _why(reports: Reports, runs: int) -> str:
    """What was left out, most often first, and what was wrong with the first that fell to the foremost reason."""
    dropped = [*reports.runs.dropped, *reports.chosen.dropped, *reports.turns.dropped]
    most = Counter((one.fault.filter, one.fault.kind) for one in dropped).most_common()
    if not most:
        return f"{runs} runs read"
    first = next(one for one in dropped if one.fault[:2] == most[0][0])
    reasons = "; ".join(f"{count} {filter}: {kind}" for (filter, kind), count in most)
    return f"{reasons}; for example {first.id}: {first.fault.detail}"
