"""Puts a trained tiny router into the package: the model, its curves, and a card whose figures all come from files that
commands wrote.

    orchestra eval tiny=local:MODEL,local:OTHER_SEED rules oracle ... --reference reference.jsonl --json \
        > evaluation.json
    python -m orchestra_training.tiny.publish MODEL --evaluation evaluation.json --stage runs/tiny-sft-0 \
        --stage runs/tiny-grpo-0 --prepared runs/tiny

Where `tiny` is several seeds, the model that is published is the first, or the one that `--member` names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from safetensors import safe_open

from orchestra_graph.errors import ConfigError
from orchestra_graph.routers.bundled import WORDS, tiny_folder
from orchestra_training.tiny.bars import TINY, bars_of
from orchestra_training.tiny.bars import table as bars_table
from orchestra_training.tiny.prepare import PREPARED

FILES: Final = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
CURVES: Final = "curves.json"
MOST_BYTES: Final = 30_000_000

_MEANS: Final = {"dollars": ".5f", "seconds": ".1f", "turns": ".1f", "priciest_share": ".1%", "malformed_share": ".1%"}

_CARD: Final = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [orchestra-graph, router]
---

# The tiny router of Orchestra Graph

A Qwen3-architecture language model of {parameters:,} parameters ({megabytes:.1f} MB with its tokenizer of {vocabulary}
tokens) that directs the tools of the workbench, trained from nothing. It speaks the protocol `scan`: one short prompt a
tool, one token, `take` or `skip`.

The workbench is a simulated economy: tasks that are executed and checked, experts that are programs, prices that are
made up. The figures say nothing of other tasks, and the router knows the workbench's words only: for your own tools
train one of your own.

## How it was trained

- demonstrations: {runs:,} runs, which gave {lessons:,} lessons, {share:.0%} of them `take`
{stages}

`curves.json` holds the figures of every logged step. The recipes are `tiny_sft` and `tiny_grpo` of `orchestra train`.

## What it does

Held-out tasks in held-out phrasings, every router on the same ones; in brackets 95% bounds of a bootstrap over tasks
and seeds. Utility is the absolute one of `orchestra_training.evaluate.score`, against the frozen runs of
`{reference}`. Where `tiny` was trained with several seeds, `tiny (shipped)` is the one in this folder,
which was chosen after these figures were known: those of all seeds are the ones to go by.

{tables}

## What it had to reach

A bar is passed where the bound passes it, not the mean, with three training seeds; measured here: {seeds}. `lessons` is
the router before it learnt from its own runs.
`python -m orchestra_training.tiny.bars` makes this table from the same evaluations.

{bars}
"""


def stage_of(folder: Path) -> dict[str, Any]:
    """What a training wrote of itself.

    Raises:
        ConfigError: There is no `trainer_state.json`.
    """
    path = folder / "trainer_state.json"
    if not path.is_file():
        raise ConfigError(f"{path} is not there; expected the output folder of orchestra train")
    state = json.loads(path.read_text(encoding="utf-8"))
    return {"name": folder.name, "steps": state["global_step"], "epochs": state["epoch"], "log": state["log_history"]}


def told(stage: Mapping[str, Any], lessons: int) -> str:
    """One line on a stage: its steps, and the first and last value of each figure that tells how it went.

    Args:
        stage: From `stage_of`.
        lessons: How many there are; an epoch reads each once.
    """
    online = any("reward" in line for line in stage["log"])
    parts = [f"{stage['steps']:,} steps" + ("" if online else f", {stage['epochs'] * lessons:,.0f} lessons read")]
    for name in ("loss", "mean_token_accuracy", "success", "reward", "dollars", "filtered/groups", "explored"):
        values = [line[name] for line in stage["log"] if name in line and "train_runtime" not in line]
        if values and not (online and name == "loss"):
            parts.append(f"{name} {values[0]:.3g} -> {values[-1]:.3g}")
    return f"- `{stage['name']}`: {', '.join(parts)}"


def table(name: str, condition: Mapping[str, Any], member: int = 0) -> str:
    """One condition as a table in Markdown.

    Args:
        name: Of the condition.
        condition: Its figures.
        member: Which of the seeds of the tiny router is shipped, counted from 0.
    """
    lines = [
        f"### {name}, {condition['units']} tasks",
        "",
        "| router | success | utility | dollars a task | seconds | turns | calls to the priciest | malformed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for router, figures in condition["routers"].items():
        means = {name: figures[name]["value"] for name in _MEANS}
        lines.append(_row(router, _bounded(figures["success"]), _bounded(figures.get("utility")), means))
    members = condition["routers"].get(TINY, {}).get("members", ())
    if len(members) > 1:
        shipped = members[member]
        success, utility = (f"{shipped[name]:.3f}" if name in shipped else "" for name in ("success", "utility"))
        lines.append(_row(f"{TINY} (shipped)", success, utility, shipped))
    return "\n".join(lines)


def _row(router: str, success: str, utility: str, means: Mapping[str, float | None]) -> str:
    shown = [_shown(means[name], form) for name, form in _MEANS.items()]
    return f"| {' | '.join((router, success, utility, *shown))} |"


def _bounded(figure: Mapping[str, float | None] | None) -> str:
    if figure is None:
        return ""
    value, low, high = (_shown(figure[name], ".3f") for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _shown(value: float | None, form: str) -> str:
    """A figure; one that there is not, as the share of no calls, is told as such."""
    return "-" if value is None else format(value, form)


def card(
    model: Path,
    prepared: Mapping[str, int],
    stages: Iterable[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    member: int = 0,
) -> str:
    """The model card."""
    conditions = [one for evaluation in evaluations for one in evaluation["conditions"].items()]
    with safe_open(model / "model.safetensors", "numpy") as weights:
        parameters = sum(_size(weights.get_slice(name).get_shape()) for name in weights.keys())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return _CARD.format(
        parameters=parameters,
        megabytes=sum((model / name).stat().st_size for name in FILES) / 1e6,
        vocabulary=config["vocab_size"],
        runs=prepared["runs"],
        lessons=prepared["lessons"],
        share=prepared["take"] / prepared["lessons"],
        stages="\n".join(told(stage, prepared["lessons"]) for stage in stages),
        reference=(evaluations[0].get("reference") or {}).get("policy", "none"),
        seeds=min(len(one["routers"].get(TINY, {}).get("members", ())) for _, one in conditions),
        tables="\n\n".join(table(name, condition, member) for name, condition in conditions),
        bars=bars_table([bar for name, condition in conditions for bar in bars_of(name, condition)]),
    )


def _size(shape: Iterable[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the trained model.")],
    evaluation: Annotated[list[Path], typer.Option(help="What orchestra eval --json printed; may be repeated.")],
    stage: Annotated[list[Path], typer.Option(help="Output folder of a training, in order; may be repeated.")],
    prepared: Annotated[Path, typer.Option(help="What orchestra_training.tiny.prepare wrote.")],
    member: Annotated[int, typer.Option(min=0, help="Which of the evaluated seeds it is, counted from 0.")] = 0,
    to: Annotated[Path | None, typer.Option(help="Folder that is written; the package's own by default.")] = None,
) -> None:
    """Publish a tiny router."""
    folder = to or tiny_folder()
    stages = [stage_of(one) for one in stage]
    counts = json.loads((prepared / PREPARED).read_text(encoding="utf-8"))
    text = card(model, counts, stages, [json.loads(one.read_text(encoding="utf-8")) for one in evaluation], member)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(model / name, folder / name)
    shutil.copyfile(prepared / "base-0" / WORDS, folder / WORDS)
    (folder / CURVES).write_text(json.dumps(stages, separators=(",", ":")), encoding="utf-8")
    (folder / "README.md").write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > MOST_BYTES:
        raise ConfigError(f"{folder}: {size:,} bytes; expected at most {MOST_BYTES:,}")
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
