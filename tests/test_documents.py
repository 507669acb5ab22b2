"""What the readers of documents need installed; `test_local_search` reads documents."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from orchestra_graph.errors import MissingError
from orchestra_graph.tools.documents import SEARCH_PACKAGES, missing_extra, search_module

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def test_the_hint_installs_what_the_extra_holds() -> None:
    extra = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["search"]
    assert sorted(SEARCH_PACKAGES) == sorted(re.split(r"[<>=\[]", requirement)[0] for requirement in extra)
    assert str(missing_extra()).startswith("the extra `search` is missing; fix: pip install beautifulsoup4 faiss-cpu ")


def test_a_module_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_module("bs4").BeautifulSoup
    monkeypatch.setitem(sys.modules, "bs4", None)
    with pytest.raises(MissingError, match="the extra `search` is missing"):
        search_module("bs4")
