"""What the readers of documents need installed; `test_local_search` reads documents."""

from __future__ import annotations

import re
import sys
import tomllib
from io import BytesIO
from pathlib import Path

import pytest

from orchestra_graph.errors import MissingError
from orchestra_graph.tools.documents import SEARCH_PACKAGES, Passage, missing_extra, read_passages, search_module
from tests.test_local_search import pdf

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def test_the_hint_installs_what_the_extra_holds() -> None:
    extra = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["search"]
    assert sorted(SEARCH_PACKAGES) == sorted(re.split(r"[<>=]", requirement)[0] for requirement in extra)
    assert str(missing_extra()).startswith("the extra `search` is missing; fix: pip install beautifulsoup4 faiss-cpu ")


def test_a_module_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_module("bs4").BeautifulSoup
    monkeypatch.setitem(sys.modules, "bs4", None)
    with pytest.raises(MissingError, match="the extra `search` is missing"):
        search_module("bs4")


def test_a_heading_without_text_is_none(tmp_path: Path) -> None:
    page = tmp_path / "hours.html"
    page.write_text(
        "<head><title>Opening hours</title></head><h1><img src='logo.png'></h1><h2>Bern</h2><p>From nine.</p>"
    )
    assert read_passages(page, size=1000) == [Passage("Opening hours > Bern", "From nine.")]


def test_a_pdf_under_aes_is_read_where_its_password_is_empty(tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter  # noqa: PLC0415  (an extra)

    writer = PdfWriter(PdfReader(BytesIO(pdf("A brigantine has two masts.", title="Ships"))))
    writer.encrypt("", "the owner's", algorithm="AES-128")
    writer.write(tmp_path / "ships.pdf")
    assert [passage.text for passage in read_passages(tmp_path / "ships.pdf", size=1000)] == [
        "A brigantine has two masts."
    ]
