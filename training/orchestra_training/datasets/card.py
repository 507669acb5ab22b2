"""The card of a data set: README.md with YAML front matter, as the Hugging Face hub expects it.

Beside what the hub reads it states all facts of the build, in the front matter for programs and in tables for people:
sources with their hashes, counts, fidelity, and what was left out by which filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

NAME: Final = "README.md"
_KEY: Final = "orchestra_graph: "
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

WHAT: Final = {
    "sft": "Tokens of solved runs, for supervised fine-tuning: `labels` is -100 where a token was only read.",
    "dpo": "Two decisions after the same tokens, for preference optimisation: the runs of the chosen one earned more.",
    "kto": "Single replies of a router, each good or bad as its run was.",
    "grpo": "Tasks to run, each with its preferences, budget and catalog.",
    "replay": "Tokens of runs, the logprobs under which they were sampled, and the advantage of each run in its group.",
}


def card(facts: Mapping[str, Any]) -> str:
    """The text of a card.

    Args:
        facts: What `build` found, JSON values.
    """
    kind, split = facts["kind"], facts["split"]
    size = next((name for limit, name in _SIZES if facts["examples"] < limit), "1M<n<10M")
    front = {
        "pretty_name": f"{kind} data of routed runs",
        "tags": ["orchestra-graph", "router", kind],
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": facts["file"]}]}],
    }
    # JSON is YAML, and this needs no other writer.
    head = [f"{name}: {_json(value)}" for name, value in front.items()] + [f"{_KEY}{_json(facts)}"]
    parts = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {kind} data of routed runs",
        WHAT[kind],
        f"Made by [Orchestra Graph](https://arxiv.org/abs/2511.21689) with `{facts['command']}`.",
        _table("Counts", ["", ""], _counts(facts)),
        _table("Sources", ["file", "bytes", "SHA-256"], [list(source.values()) for source in facts["sources"]]),
        _table("Harvested from", ["source", "runs"], [list(item) for item in facts["origins"].items()]),
        _table("Fidelity of the runs", ["fidelity", "runs"], [list(item) for item in facts["fidelity"].items()]),
        _table("Left out", ["stage", "reason", "count"], _left_out(facts)),
        _table("Columns", ["", "count", "mean", "least", "median", "p95", "largest"], _columns(facts["columns"])),
        _table("Built with", ["", ""], [list(item) for item in (facts["options"] | facts["versions"]).items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def read_card(folder: Path) -> dict[str, Any] | None:
    """The facts that a card states; None where there is none of ours."""
    path = folder / NAME
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    found = next((line for line in lines if line.startswith(_KEY)), None)
    facts: dict[str, Any] | None = None if found is None else orjson.loads(found.removeprefix(_KEY))
    return facts


def _counts(facts: Mapping[str, Any]) -> list[list[Any]]:
    return [
        ["runs read", facts["read"]["runs"]],
        ["runs that may be used", facts["runs"]["kept"]],
        ["runs chosen", facts["chosen"]["kept"]],
        ["turns whose tokens are trained", facts["turns"]["kept"]],
        ["examples", facts["examples"]],
        [f"SHA-256 of `{facts['file']}`", facts["sha256"]],
        ["tokenizer", facts["tokenizer"]],
    ]


def _left_out(facts: Mapping[str, Any]) -> list[list[Any]]:
    stages = ["runs", "chosen", "turns"]
    found = [[stage, reason, count] for stage in stages for reason, count in facts[stage]["left_out"].items()]
    read = facts["read"]
    found += [["harvest", kind, count] for kind, count in facts["harvest"].items()]
    found += [["lines", kind, count] for kind, count in read["faults"].items()]
    return found + [["lines", kind, read[kind]] for kind in ("superseded", "duplicates") if read[kind]]


def _columns(columns: Mapping[str, Any]) -> list[list[Any]]:
    numbers = {name: values for name, values in columns.items() if "count" in values}
    return [[name, *(f"{value:.6g}" for value in values.values())] for name, values in numbers.items()]


def _table(title: str, head: list[str], rows: list[list[Any]]) -> str:
    if not rows:
        return ""
    lines = [
        "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return "\n".join([f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines])


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
