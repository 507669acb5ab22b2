"""One HTML file that shows an evaluation: self-contained, without a request to any network.

Its parts are in the folder `assets`; the data is JSON, compressed and in base64, which no text in it can break out of.
Needs a browser that can decompress: Chromium 80, Firefox 113, Safari 16.4, or later ones.
"""

from __future__ import annotations

import base64
import gzip
import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from orchestra_graph.errors import ConfigError
from orchestra_graph.report.curves import Curves
from orchestra_graph.runlog.encoding import dump

_MARK: Final = re.compile(r"\{\{(\w+)\}\}")
_SCRIPTS: Final = ("base.js", "charts.js", "sections.js", "runs.js", "main.js")


def write_page(
    path: str | Path,
    *,
    title: str,
    result: Mapping[str, Any],
    runs: Mapping[str, Any],
    curves: Sequence[Curves] = (),
) -> None:
    """Write the page.

    Args:
        path: The file; one that is there is written anew.
        title: Heading and title.
        result: The figures, as `orchestra eval --json` prints them.
        runs: From `RunTable.to_json`.
        curves: Of trainings.

    Raises:
        ConfigError: It cannot be written.
    """
    trained = [{"name": curve.name, "series": curve.series} for curve in curves]
    data = dump({"title": title, "result": result, "runs": runs, "curves": trained})
    # No time in the header: the same data gives the same file.
    packed = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
    parts = {
        "title": html.escape(title),
        "style": _part("page.css"),
        "script": "\n".join(map(_part, _SCRIPTS)),
        "data": packed,
    }
    # In one pass: what is put in is not looked at again.
    text = _MARK.sub(lambda mark: parts[mark[1]], _part("page.html"))
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def refuse_place(path: str | Path) -> None:
    """Refuse a place where no file can be written; for the beginning, before there is anything to write.

    Raises:
        ConfigError: It is a folder, or in none.
    """
    place = Path(path)
    if place.is_dir():
        raise ConfigError(f"{place} is a folder; expected a file")
    if not place.parent.is_dir():
        raise ConfigError(f"{place}: cannot be written: {place.parent} is no folder; fix: make it, or name another")


def _part(name: str) -> str:
    return (resources.files("orchestra_graph.report") / "assets" / name).read_text(encoding="utf-8")
