"""Runs of a question as the released checkpoint reads them, turn by turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestra_graph.catalog import Catalog
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Situation, View
from orchestra_graph.protocols.nemotron_qa import NemotronQA, VariantName, nemotron_catalog
from orchestra_graph.tokens import FolderTokenizer
from orchestra_graph.turns import Outcome, Turn

TOKENIZER = FolderTokenizer(Path(__file__).parent / "data" / "tokenizer")
CATALOG = nemotron_catalog()
HLE_END = "\n\nChoose an appropriate tool.'"
FRAMES_END = "\n\nChoose an appropriate tool."
SEPARATOR = "\npython code and execution outputs:\n"


def turn(index: int, tool: str, artifacts: list[Any], **outcome: Any) -> Turn:
    """A turn of one call."""
    call: Any = {"id": f"r-{index}-0", "tool": tool, "args": {}}
    brought: Outcome = {"content": "text", "error": False, "artifacts": artifacts, **outcome}  # type: ignore[typeddict-item]
    return {
        "id": f"r-{index}",
        "index": index,
        "decision": {"calls": [call], "reason": "why", "by": "router"},
        "charges": {},
        "outcomes": {call["id"]: brought},
        "seconds": 0.0,
    }


def found(index: int, *texts: str, tool: str = "search-1", **outcome: Any) -> Turn:
    return turn(index, tool, [{"text": text, "source": "s", "score": 1.0} for text in texts], **outcome)


def ran(index: int, code: str, output: str, tool: str = "reasoner-1", **outcome: Any) -> Turn:
    return turn(index, tool, [{"code": code, "output": output}], **outcome)


def situation(*turns: Turn, question: str = "Why?", catalog: Catalog = CATALOG) -> Situation:
    return Situation(question, catalog, Preferences(), Budget(), {t["id"]: t for t in turns}, turn_id=f"r-{len(turns)}")


def view(at: Situation, variant: VariantName = "hle", **options: Any) -> View:
    return next(NemotronQA(TOKENIZER, variant, **options).decide(at))


def user(at: Situation, variant: VariantName = "hle", **options: Any) -> str:
    return view(at, variant, **options).messages[1].text


def context(text: str, question: str = "Why?") -> str:
    """What stands between problem and ending."""
    assert text.startswith(f"Problem: {question}\n\n")
    for ending in (HLE_END, FRAMES_END):
        if text.endswith(ending):
            return text[len(f"Problem: {question}\n\n") : -len(ending)]
    raise AssertionError(text[-100:])


def piece(code: str, output: str) -> str:
    return f"```python\n{code}\n```\n\n```output\n{output}\n```\n\n"
