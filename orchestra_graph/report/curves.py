"""Training curves from what trainers write: `trainer_state.json` of transformers and TRL, or a line of JSON a step.

Left out: TensorBoard's and trackio's own formats; both export JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestra_graph.errors import ConfigError

STEP: Final = "step"
_NOT_A_CURVE: Final = frozenset({STEP, "epoch"})


@dataclass(frozen=True, slots=True)
class Curves:
    """What one training run measured."""

    name: str
    series: dict[str, list[tuple[float, float]]]
    """Pairs of step and value, by metric, in the order of the steps."""


def read_curves(path: str | Path) -> Curves:
    """Read the numbers of a file; what is no finite number is no point of a curve.

    Args:
        path: `*.json` with a `log_history`, or lines of JSON objects; each entry has a `step`.

    Raises:
        ConfigError: It cannot be read, or an entry has no step; names file and line.
    """
    file = Path(path)
    series: dict[str, list[tuple[float, float]]] = {}
    for place, entry in _entries(file):
        step: Any = entry.get(STEP)
        if not _is_number(step):
            raise ConfigError(f"{place}: step = {step!r}; expected a number")
        for metric, value in entry.items():
            if metric not in _NOT_A_CURVE and _is_number(value):
                series.setdefault(metric, []).append((step, value))
    return Curves(_name(file), {metric: sorted(points) for metric, points in series.items()})


def _name(file: Path) -> str:
    """What the curves are called: the folder of a training, with its checkpoint, or the file."""
    if file.stem not in ("trainer_state", "metrics", "log_history"):
        return file.stem
    folder = file.absolute().parent
    return f"{folder.parent.name}/{folder.name}" if folder.name.startswith("checkpoint-") else folder.name or file.stem


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries with their places."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    if path.suffix == ".json":
        state = _load(text, str(path))
        history = state.get("log_history") if isinstance(state, dict) else state
        if not isinstance(history, list):
            raise ConfigError(f"{path}: log_history = {history!r:.60}; expected a list of entries")
        found = [(f"{path}: log_history[{number}]", entry) for number, entry in enumerate(history)]
    else:
        lines = enumerate(text.splitlines(), start=1)
        found = [(f"{path}:{number}", _load(line, f"{path}:{number}")) for number, line in lines if line.strip()]
    for place, entry in found:
        if not isinstance(entry, dict):
            raise ConfigError(f"{place}: {entry!r:.60}; expected an object")
        yield place, entry


def _load(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{place}: no JSON: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
