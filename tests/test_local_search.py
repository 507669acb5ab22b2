from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.documents import cut, read_passages
from orchestra_graph.tools.index_file import INDEX_VERSION, search_index
from orchestra_graph.tools.local_search import LocalSearch, RetrieverSearch
from orchestra_graph.tools.search_index import build_index
from tests.examples import examples

MARKDOWN = """\
# Birds of the coast

General remarks.

## Gannets

The gannet dives from thirty metres.

```
# no heading: gulls
```

## Puffins ##

Puffins nest in burrows.
"""
HTML = """<!doctype html><html><head><title>Tide tables</title><style>p {color: red}</style></head>
<body><nav>menu entry</nav><h1>Tides</h1><p>The <b>spring</b> tide is&nbsp;highest.</p>
<h2>Times</h2><pre>
# before noon
</pre><table><tr><td>Dover</td><td>11:40</td></tr></table><script>var hidden = 1;</script></body></html>"""


def pdf(*pages: str, title: str = "") -> bytes:
    """A minimal PDF file with one line of text a page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010} 00000 n \n" for at in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\n"
    return out + f"{table}{trailer}startxref\n{len(out)}\n%%EOF\n".encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "birds.md").write_text(MARKDOWN)
    (root / "deep" / "tides.html").write_text(HTML)
    (root / "deep" / "er" / "log.txt").write_text("The lighthouse keeper wrote about a café near the harbour.")
    (root / "ships.pdf").write_bytes(pdf("A brigantine has two masts.", "A barque has three.", title="Ships"))
    (root / ".hidden.md").write_text("gannet gannet gannet")
    (root / "data.bin").write_bytes(b"gannet")
    return root


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "out" / "docs.index"


async def call(tool: Tool, query: str) -> Result:
    return await tool.run(Request(args={"query": query}, question="?"))


async def test_finds_the_passage_in_every_format(folder: Path, index: Path) -> None:
    search = LocalSearch.build(folder, index)
    for query, source, title, text in (
        ("gannet diving", "birds.md", "Birds of the coast > Gannets", "The gannet dives from thirty metres."),
        ("tides at spring", "deep/tides.html", "Tides", "The spring tide is highest."),
        ("Dover times", "deep/tides.html", "Tides > Times", "# before noon\n\nDover | 11:40 |"),
        ("CAFE", "deep/er/log.txt", "log", "The lighthouse keeper wrote about a café near the harbour."),
        ("how many masts has a brigantine?", "ships.pdf", "Ships, page 1", "A brigantine has two masts."),
        ("barque", "ships.pdf", "Ships, page 2", "A barque has three."),
    ):
        result = await call(search, query)
        best = result.artifacts[0]
        assert (best["source"], best["title"]) == (source, title)
        assert best["text"].startswith(text)
        assert best["score"] > 0
        assert result.content.startswith(f"[1] {title} - {source}\n{text}")
        assert orjson.dumps(result.artifacts)


async def test_what_is_no_text_is_not_found(folder: Path, index: Path) -> None:
    search = LocalSearch.build(folder, index)
    for query in ("menu entry", "hidden", "color red", "zebra"):
        result = await call(search, query)
        assert result.content == f"No passage fits {query!r}. Try other words."
        assert result.artifacts == []


async def test_better_passages_come_first_and_top_k_bounds_them(tmp_path: Path, index: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(10):
        (docs / f"{number}.txt").write_text("salt water " + "and sand " * number + ("anchor" if number == 7 else ""))
    result = await call(LocalSearch.build(docs, index, top_k=3), "anchor in salt water")
    assert result.artifacts[0]["source"] == "7.txt"
    scores = [p["score"] for p in result.artifacts]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert "[3] " in result.content and "[4] " not in result.content


def test_incremental(folder: Path, index: Path) -> None:
    first = build_index(folder, index)
    assert (first.files, first.added, first.changed, first.removed, first.unchanged) == (4, 4, 0, 0, 0)
    again = build_index(folder, index)
    assert (again.added, again.unchanged, again.passages) == (0, 4, first.passages)
    (folder / "birds.md").write_text("# Birds\n\nThe cormorant dries its wings.")
    (folder / "ships.pdf").unlink()
    (folder / "new.txt").write_text("A new lantern.")
    then = build_index(folder, index)
    assert (then.files, then.added, then.changed, then.removed, then.unchanged) == (4, 1, 1, 1, 2)
    assert [hit.source for hit in search_index(index, "cormorant", top_k=5)] == ["birds.md"]
    assert [hit.source for hit in search_index(index, "lantern", top_k=5)] == ["new.txt"]
    for gone in ("gannet", "brigantine"):
        assert search_index(index, gone, top_k=5) == []


def test_unchanged_files_are_not_read_again(folder: Path, index: Path) -> None:
    build_index(folder, index)
    seen: list[tuple[int, int, str]] = []
    (folder / "birds.md").write_text("changed now")
    build_index(folder, index, progress=lambda done, total, source: seen.append((done, total, source)))
    assert seen == [(0, 1, "birds.md"), (1, 1, "")]


def test_another_folder_replaces_the_content(folder: Path, index: Path, tmp_path: Path) -> None:
    build_index(folder, index)
    other = tmp_path / "other"
    other.mkdir()
    (other / "birds.md").write_bytes((folder / "birds.md").read_bytes())
    told = (folder / "birds.md").stat()
    os.utime(other / "birds.md", ns=(told.st_atime_ns, told.st_mtime_ns))
    report = build_index(other, index)
    assert (report.files, report.added, report.unchanged) == (1, 1, 0)
    assert search_index(index, "brigantine", top_k=5) == []


def test_unreadable_files_are_reported_and_the_others_indexed(folder: Path, index: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nnonsense")
    (folder / "binary.txt").write_bytes(b"\0\1\2")
    (folder / "empty.md").write_text("")
    search = LocalSearch.build(folder, index)
    assert search.report is not None
    assert search.report.files == 4
    assert set(search.report.problems) == {"broken.pdf", "binary.txt", "empty.md"}
    assert search.report.problems["binary.txt"] == "ValueError: it is no text: it holds zero bytes"
    assert search.report.problems["empty.md"] == "ValueError: it holds no text"
    again = build_index(folder, index)
    assert (again.unchanged, again.problems) == (7, search.report.problems)


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "AND",
        "NOT x",
        "a*",
        "title:x",
        "(",
        "x NEAR/3 y",
        "-",
        "'; DROP TABLE files; --",
        "^",
        "_",
        "\0",
        "\ud800",
        "{}",
    ],
)
async def test_any_text_is_a_query(folder: Path, index: Path, query: str) -> None:
    result = await call(LocalSearch.build(folder, index), query)
    assert result.content


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docs")
    (root / "a.txt").write_text("Some words: 1 a b c é and not near or.")
    build_index(root, root / "a.index")
    return root / "a.index"


@given(st.text())
@settings(max_examples=examples(300), deadline=None)
def test_no_query_is_a_syntax_error(shared_index: Path, query: str) -> None:
    assert len(search_index(shared_index, query, top_k=2)) <= 1


async def test_a_query_of_a_megabyte(shared_index: Path) -> None:
    result = await call(LocalSearch(shared_index), " ".join(f"w{i}" for i in range(200_000)) + " words")
    assert result.artifacts == []


async def test_concurrent_searches_while_the_index_is_rebuilt(folder: Path, index: Path) -> None:
    search = LocalSearch.build(folder, index)
    stop = threading.Event()

    def rebuild() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (folder / "birds.md").write_text(f"{MARKDOWN}\n\nedition {number}")
            build_index(folder, index)

    writer = asyncio.create_task(asyncio.to_thread(rebuild))
    try:
        results = await asyncio.gather(*(call(search, "gannet") for _ in range(200)))
    finally:
        stop.set()
        await writer
    assert {result.artifacts[0]["source"] for result in results} == {"birds.md"}
    assert sorted(p.name for p in index.parent.iterdir()) == ["docs.index"]


async def test_index_that_is_gone_is_told(folder: Path, index: Path) -> None:
    search = LocalSearch.build(folder, index)
    index.unlink()
    with pytest.raises(ToolError, match=r"docs\.index' cannot be read: unable to open"):
        await call(search, "gannet")


def test_interrupted_build_leaves_the_old_index(folder: Path, index: Path) -> None:
    build_index(folder, index)
    before = index.read_bytes()
    (folder / "birds.md").write_text("other")

    def interrupt(done: int, total: int, source: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(folder, index, progress=interrupt)
    assert index.read_bytes() == before
    assert sorted(p.name for p in index.parent.iterdir()) == ["docs.index"]


def test_missing_and_empty_folders(tmp_path: Path, index: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder with documents, or a corpus"):
        build_index(tmp_path / "nowhere", index)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no document; expected files that end in \.txt"):
        build_index(tmp_path / "empty", index)
    (tmp_path / "empty" / "x.pdf").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"at least one document that can be read; x\.pdf: "):
        build_index(tmp_path / "empty", index)
    assert not index.exists()


def test_wrong_index_files(folder: Path, index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected an index; fix: build it with LocalSearch\.build"):
        LocalSearch(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"docs' is a folder; expected an index file; fix: .*LocalSearch\.build\('"):
        LocalSearch(folder)
    text = tmp_path / "text"
    text.write_text("no database, but long enough to be looked at as one" * 10)
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE precious (x)")
    database.close()
    for path, problem in ((text, "is no search index"), (other, "another database")):
        before = path.read_bytes()
        with pytest.raises(ConfigError, match=problem):
            LocalSearch(path)
        with pytest.raises(ConfigError, match=problem):
            build_index(folder, path)
        assert path.read_bytes() == before
    build_index(folder, index)
    database = sqlite3.connect(index)
    database.execute("PRAGMA user_version = 7")
    database.close()
    expected = f"index version 7, expected {INDEX_VERSION}; fix: delete the file and build it again"
    with pytest.raises(ConfigError, match=expected):
        LocalSearch(index)


def test_an_index_that_cannot_be_written(folder: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"cannot be built \(FileExistsError.*fix: build it in a file that you may"):
        build_index(folder, tmp_path / "file" / "docs.index")
    build_index(folder, index)
    with closing(sqlite3.connect(index)) as database:
        database.execute("DROP TABLE origin")
    before = index.read_bytes()
    with pytest.raises(ConfigError, match=r"cannot be built \(OperationalError: no such table: origin\)"):
        build_index(folder, index)
    assert index.read_bytes() == before


def test_an_index_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*fix: name another file with `path`"):
        LocalSearch(tmp_path / ("x" * 300))


def test_top_k_must_be_positive(folder: Path, index: Path) -> None:
    with pytest.raises(ConfigError, match="top_k = 0: expected at least 1"):
        LocalSearch.build(folder, index, top_k=0)


@pytest.mark.parametrize(("module", "name"), [("bs4", "deep/tides.html"), ("pypdf", "ships.pdf")])
def test_a_file_whose_reader_is_not_installed_is_reported_and_tried_again(
    folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, None)
        report = build_index(folder, index)
        assert (report.files, list(report.problems)) == (3, [name])
        assert report.problems[name].startswith("MissingError: the extra `search` is missing; fix: pip install ")
        assert build_index(folder, index).problems == report.problems
    mended = build_index(folder, index)
    assert (mended.files, mended.changed, mended.unchanged, mended.problems) == (4, 1, 3, {})


def test_spec(folder: Path, index: Path) -> None:
    spec = LocalSearch.build(folder, index, name="manual", description="The boat's manual.").spec
    assert (spec.name, spec.kind, spec.description, spec.required) == (
        "manual",
        "search",
        "The boat's manual.",
        ["query"],
    )
    assert spec.path == str(index)


def test_encodings(tmp_path: Path) -> None:
    for number, data in enumerate(("naïve".encode(), b"na\xefve", "naïve".encode("utf-16"), "\ufeffnaïve".encode())):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(data)
        assert [p.text for p in read_passages(path, size=100)] == ["naïve"]


@given(st.text(alphabet="ab. \n", max_size=400), st.integers(min_value=5, max_value=50))
@settings(deadline=None)
def test_cutting_keeps_every_word_within_the_size(text: str, size: int) -> None:
    pieces = list(cut(text, size=size))
    assert all(0 < len(piece) <= size for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


# Any LangChain retriever.


class Shelf(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [document for document in self.documents if query in document.page_content]


async def test_retriever_is_a_search_too() -> None:
    shelf = Shelf(
        documents=[
            Document("the sea is salt", metadata={"source": "sea.md", "title": "Sea", "score": 0.5}),
            Document("the sea is wide"),
            Document("the sea is deep", id="d3"),
        ]
    )
    tool = RetrieverSearch(shelf, name="shelf", top_k=2)
    result = await call(tool, "sea")
    assert result.content == "[1] Sea - sea.md\nthe sea is salt\n\n[2] passage\nthe sea is wide"
    assert result.artifacts[1] == {"source": "", "title": "", "text": "the sea is wide", "score": None}
    assert (tool.spec.name, tool.spec.kind) == ("shelf", "search")
    assert (await call(tool, "land")).content == "No passage fits 'land'. Try other words."
