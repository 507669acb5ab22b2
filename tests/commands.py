"""The command line in the test's own process, as a script sees it: exit code, stdout, stderr."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.cli import main


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON on stdout."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Orchestra = Callable[..., Done]


@pytest.fixture
def orchestra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Orchestra:
    """Runs the command in an empty folder, its output piped."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "FORCE_COLOR", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, columns: int | None = None) -> Done:
        if columns is not None:
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("NO_COLOR", "1")
            monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("sys.argv", ["orchestra", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Done(code, seen(printed.out), printed.err)

    return run


def seen(out: str) -> str:
    """What stays on a terminal's screen: spinners erase their line, styles are not text."""
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", re.sub(r"[^\n]*\n?(?:\x1b\[\?25h)?\r(?:\x1b\[1A)?\x1b\[2K", "", out))


def complaint(err: str) -> str:
    """What is said of a wrong command line, without the frame and the line ends that a terminal's width brings."""
    return " ".join(seen(err).replace("│", "").split())
