"""Takes personal data out of a trajectory, by a function from text to text.

Applied to every text that people, models and tools wrote: questions, reasons, arguments, results, answers, errors. Not
to ids, names of tools and models, and the catalog. Where it changes anything, token ids go as well, since they spell
the same text: the trajectory is then fit for what text is fit for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from orchestra_graph.runlog.record import Trajectory

Redact = Callable[[str], str]

_TEXTS: Final = ("task", "preferences", "turns", "answer", "error", "verdict", "runs", "captures")
"""Fields of a trajectory that hold texts."""
_NAMES: Final = frozenset(
    {
        *("id", "run_id", "group_id", "turn", "parent", "catalog", "catalog_hash", "protocol", "policy"),
        *("tool", "model", "by", "kind", "status", "price", "tokenizer", "template_hash", "finish_reason"),
        *("started_at", "ended_at", "ended", "stopped_by", "purpose", "split", "constraint", "logprobs_mode"),
        *("versions", "prompt_token_ids", "token_ids", "logprobs", "sampling", "never"),
    }
)
"""Fields below them that hold names and ids."""
_CONTENT: Final = frozenset({"args", "artifacts"})
"""Fields whose own fields are anybody's, whatever their names."""


def redacted(run: Trajectory, redact: Redact) -> Trajectory | None:
    """A run without what the function takes out of its texts; None where nothing is to be taken out."""
    record = run.model_dump(mode="json", include=set(_TEXTS), exclude_unset=True)
    clean = {name: _without(value, redact) for name, value in record.items()}
    if clean == record:
        return None
    whole = {**run.model_dump(mode="json", exclude_unset=True), **clean}
    return Trajectory.model_validate(without_tokens(whole))


def without_tokens(record: dict[str, Any]) -> dict[str, Any]:
    """A trajectory's record, and those nested in it, without captures."""
    return {
        **record,
        "captures": {},
        "turns": [{key: turn[key] for key in turn if key != "captures"} for turn in record.get("turns", ())],
        **({"runs": {id: without_tokens(run) for id, run in record["runs"].items()}} if record.get("runs") else {}),
    }


def _without(value: Any, redact: Redact, *, names: bool = True) -> Any:
    """A value with its texts redacted; with `names`, fields that hold names and ids stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_without(inner, redact, names=names) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inner
        if names and (key in _NAMES or (key == "captures" and isinstance(inner, list)))
        else _without(inner, redact, names=names and key not in _CONTENT)
        for key, inner in value.items()
    }
