"""Reads text, Markdown, HTML and PDF files as passages: short texts, each under the headings that it stands below.

Leaves out pictures, tables' layout, scanned pages (they hold no text) and any other format.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_graph.errors import MissingError

SEARCH_PACKAGES = ("beautifulsoup4", "faiss-cpu", "fastapi", "langchain-tavily", "numpy", "pypdf[crypto]", "uvicorn")
"""What the extra `search` installs."""

_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+")
_BLOCKS = [
    *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "footer", "form"),
    *("header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul"),
]
_UNREAD = ["script", "style", "template", "noscript", "nav", "svg"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document."""

    title: str
    """Title of the document, and the headings or the page of the piece."""
    text: str


def read_passages(path: Path, *, size: int) -> list[Passage]:
    """Read a file and cut it into passages.

    Args:
        path: A file with one of the endings in `READERS`.
        size: Characters of a passage at most.

    Raises:
        MissingError: The extra `search` is needed for this file and not installed.
        ValueError: The file holds no text, or is encrypted.
        Exception: Whatever the reader of a broken file raises.
    """
    passages = [
        Passage(title, text)
        for title, section in READERS[path.suffix.lower()](path)
        for text in cut(section, size=size)
    ]
    if not passages:
        raise ValueError("it holds no text")
    return passages


def missing_extra() -> MissingError:
    """The error for an import of the extra `search` that failed; the line installs what the extra holds."""
    return MissingError("the extra `search`", f"pip install {shlex.join(SEARCH_PACKAGES)}")


def search_module(name: str) -> Any:
    """A module of the extra `search`.

    Raises:
        MissingError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_extra() from error


def cut(text: str, *, size: int) -> Iterator[str]:
    """Cut a text at blank lines, else at ends of sentences, else at words, into pieces of at most `size` characters."""
    piece = ""
    for part, glue in _parts(text, size):
        if piece and len(piece) + len(glue) + len(part) > size:
            yield piece
            piece = part
        else:
            piece = piece + glue + part if piece else part
    if piece:
        yield piece


def _parts(text: str, size: int) -> Iterator[tuple[str, str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        glue = "\n\n"
        for sentence in [paragraph.strip()] if len(paragraph) <= size else _SENTENCE_END.split(paragraph.strip()):
            for part in _words(sentence, size):
                yield part, glue
                glue = " "


def _words(text: str, size: int) -> Iterator[str]:
    while len(text) > size:
        end = text.rfind(" ", 1, size + 1)
        end = size if end < 0 else end
        yield text[:end]
        text = text[end:].lstrip()
    if text:
        yield text


def _text(path: Path) -> Iterator[tuple[str, str]]:
    yield path.stem, _decode(path)


def _markdown(path: Path) -> Iterator[tuple[str, str]]:
    yield from _sections(_read_headings(_decode(path).splitlines()), path.stem)


def _html(path: Path) -> Iterator[tuple[str, str]]:
    soup = search_module("bs4").BeautifulSoup(path.read_bytes(), "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for tag in soup.find_all([*_UNREAD, "head"]):
        tag.decompose()
    for tag in soup.find_all(re.compile("^h[1-6]$")):
        said = tag.get_text(" ", strip=True)  # a picture says nothing
        tag.replace_with(f"\n\n\0{tag.name[1]}{said}\n\n" if said else "\n\n")
    for tag in soup.find_all(_BLOCKS):
        tag.insert_before("\n")
        tag.insert_after("\n\n" if tag.name in ("p", "div", "section", "article", "table", "ul", "ol") else "\n")
    for tag in soup.find_all(["td", "th"]):
        tag.insert_after(" | ")
    lines = (re.sub(r"[ \t\r\f\v\xa0]+", " ", line).strip() for line in soup.get_text().splitlines())
    marked = ((line, re.match("\0([1-6])(.*)", line)) for line in lines)
    yield from _sections(((int(mark[1]), mark[2]) if mark else (0, line) for line, mark in marked), title or path.stem)


def _pdf(path: Path) -> Iterator[tuple[str, str]]:
    with search_module("pypdf").PdfReader(path) as reader:
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("it is encrypted")
        named = reader.metadata.title if reader.metadata else None
        title = named.strip() if named and named.strip() else path.stem
        for number, page in enumerate(reader.pages, start=1):
            yield f"{title}, page {number}", page.extract_text()


READERS = {
    ".txt": _text,
    ".text": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
"""How a file is read, by the ending of its name."""


def _decode(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data:
        raise ValueError("it is no text: it holds zero bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _read_headings(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines of Markdown, as `_sections` takes them."""
    fenced = False
    for line in lines:
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
        yield (0, line) if heading is None else (len(heading[1]), heading[2])


def _sections(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[str, str]]:
    """Texts between headings, titled by the headings that are open there; the first of level 1 names the document.

    Args:
        lines: Each with its level as a heading; 0 is no heading.
        name: The document's, where it has no heading of level 1.
    """
    headings: dict[int, str] = {}
    body: list[str] = []
    for level, line in lines:
        if not level:
            body.append(line)
            continue
        yield _title(name, headings), "\n".join(body)
        headings = {above: text for above, text in headings.items() if above < level} | {level: line}
        body = []
    yield _title(name, headings), "\n".join(body)


def _title(name: str, headings: dict[int, str]) -> str:
    return " > ".join(headings.values() if 1 in headings else (name, *headings.values()))
